"""The reward model: a pretrained transformer with one scalar head, and the only code that turns token ids into a score.

`RewardModel.load(path)` accepts a Guerdon checkpoint (whose contract it enforces), any other sequence-classification
checkpoint with one label (whose head it keeps), a LoRA adapter folder, or a language model or encoder (which gets a new
head, seeded). `score` is the one public road to a reward; `forward` is the same computation on packed rows, with
gradients.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guerdon.aggregate import combine, parse_rule
from guerdon.files import replacing_folder
from guerdon.model import members
from guerdon.model.contract import GOLDEN_CONVERSATIONS, Contract, GoldenRow, verify
from guerdon.model.encode import Encoded, Encoder, Truncation, require_conversations, template_hash
from guerdon.model.head import find_head, head_inputs, head_width, keep_head_in_fp32
from guerdon.model.load import fit_to_tokenizer, load_encoder, load_net, require_positions, resolve
from guerdon.model.ready import Ready, gathered
from guerdon.model.tree import Ids, Row, Tree, grow_trees, padded_rows, tree_rows
from guerdon.model.trunk import Trunk
from guerdon.types import ConfigError, ContractError, Conversation, DataError, Score

logger = logging.getLogger("guerdon")


class RewardModel(nn.Module):
    """A backbone with a scalar head, its tokenizer and its contract. Build it with `load`.

    net            the transformers model (or the PEFT model around it)
    encoder        conversation -> ids
    contract       None until the model is saved or when it was loaded from a checkpoint without one
    new_modules    modules that were drawn at random because the checkpoint did not have them: a head, perhaps a pooler
    rule           how the rewards of an ensemble's members become one
    shares_prefix  True when prompt trees give the same scores as single conversations (measured at load)
    """

    def __init__(
        self, net: nn.Module, encoder: Encoder, contract: Contract | None, new_modules: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.net = net
        self.encoder = encoder
        self.contract = contract
        self.new_modules = new_modules
        self.rule = parse_rule("mean")
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
        reward: str = "mean",
        no_pickle: bool = False,
    ) -> RewardModel:
        """Load a reward model, or start one from a language model or encoder.

        path        folder, hub id, or `minilm` for the packaged MiniLM encoder
        device      default: CUDA when there is one, else CPU
        dtype       precision of the trunk; `auto` keeps the checkpoint's (float32 for a new head). The head is float32.
        max_length  context in tokens; default: the contract's, else what the model and its tokenizer allow up to 2048
        seed        of the new head, when one is needed
        check       enforce the contract, where there is one
        reward      what leaves an ensemble: `mean`, `min`, `mean-std:K`, `mean-var:K` or `quantile:Q`
        no_pickle   read weights in safetensors only

        Raises ConfigError when there is no such model, it has more than one label, or it is no ensemble and `reward`
        asks for more than the mean; ContractError when a checkpoint
        does not score as its contract says.
        """
        source = resolve(path)
        contract = Contract.read(Path(source)) if Path(source).is_dir() else None
        net, new_modules = load_net(source, dtype, seed, no_pickle)
        members.read(net, Path(source))
        encoder = load_encoder(source, max_length, truncation)
        fit_to_tokenizer(net, encoder.tokenizer)
        require_positions(net, encoder.max_length)
        model = cls(net, encoder, contract, new_modules)
        model.rule = parse_rule(reward)
        if model.rule.name != "mean" and model.members == 1:
            raise ConfigError(
                f"{path}: is a single reward model, so its reward cannot be '{reward}'; train an ensemble: guerdon train --ensemble 5"
            )
        try:
            model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {device}: cannot be used ({str(error).splitlines()[0]})") from error
        model.eval()
        if model.shares_prefix and model.device.type == "cuda":
            model.trunk.use_flex()
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

    @property
    def _scored_position(self) -> Literal["last", "model"]:
        return "last" if self.trunk.pools_last else "model"

    @property
    def members(self) -> int:
        """How many members vote; 1 for a plain reward model."""
        return members.count(self.net)

    @property
    def has_new_head(self) -> bool:
        """True when the head is freshly drawn, so that scores mean nothing yet."""
        head, _ = find_head(self.net)
        return any(name.split(".")[0] == head for name in self.new_modules)

    @property
    def fingerprint(self) -> str:
        """Names the reward as it is computed here: contract (drawn up now if there is none), context and precision."""
        contract = self.contract or self._draw_up_contract()
        text = f"{contract.hash} {self.encoder.max_length} {self.encoder.truncation} {self.dtype}"
        if self.members > 1:
            text += f" {self.rule}"
        return sha256(text.encode()).hexdigest()[:16]

    def rows(self, trees: Sequence[Tree], tokens: int, *, tight: bool = False) -> list[Row]:
        """Lay trees out for `forward`, in rows of about `tokens` tokens: packed trees, or padded where sharing is inexact;
        `tight` makes more padded rows, with less padding.
        """
        if self.shares_prefix:
            return list(tree_rows(trees, tokens, pad_to=128 if self.trunk.uses_flex else 1))
        return list(padded_rows(trees, tokens, self.encoder.tokenizer.pad_token_id, 256 if tight else None))

    def forward(self, row: Row) -> Tensor:
        """Rewards of the completions of one row, (n,) float32, in the order of `row.origin`; differentiable. (n, M) from
        an ensemble of M members.
        """
        return self.trunk(row)

    def score(
        self,
        conversations: Sequence[Conversation],
        *,
        tokens_per_row: int | None = None,
        forward: Callable[[Row], Tensor] | None = None,
    ) -> list[Score]:
        """Rewards of whole conversations (each a list of {"role", "content"}), in order.

        A conversation that cannot be scored comes back as a `Score` with status `error` and a reason, never as a
        number. Consecutive or not, conversations whose tokens start alike are computed as one prompt tree. `tokens_per_row` trades memory for speed and changes no score. `forward` stands in for this model's own
        computation while it is wrapped for mixed precision or several devices.
        """
        return self._finish(self.encode(conversations), forward or self.trunk, tokens_per_row)

    def score_texts(self, texts: Sequence[str], *, tokens_per_row: int | None = None) -> list[Score]:
        """Rewards of conversations that a chat template has already rendered; see `Encoder.texts` for what is put right."""
        return self._finish(self.encode_texts(texts), self.trunk, tokens_per_row)

    def score_ids(self, rows: Sequence[Sequence[int]], *, tokens_per_row: int | None = None) -> list[Score]:
        """Rewards of token sequences, taken as they are; one that is longer than the context is cut."""
        return self._finish(self.encode_ids(rows), self.trunk, tokens_per_row)

    def features(
        self, conversations: Sequence[Conversation], *, tokens_per_row: int | None = None
    ) -> NDArray[np.float32]:
        """What the head reads: one row per conversation, (n, width) float32; NaN where a conversation cannot be scored.

        For a decoder the last hidden state of the scored token, for an encoder what its own pooling makes of the text.
        The final linear layer applied to a row gives the score, before the contract's scale and offset.
        """
        return self.score_with_features(conversations, tokens_per_row=tokens_per_row)[1]

    def score_with_features(
        self, conversations: Sequence[Conversation], *, tokens_per_row: int | None = None
    ) -> tuple[list[Score], NDArray[np.float32]]:
        """What `score` and `features` give, in one pass."""
        items = self.encode(conversations)
        scores, states = gathered(self.stream(items, features=True, tokens_per_row=tokens_per_row), len(items))
        return scores, np.zeros((0, head_width(self.net)), dtype=np.float32) if states is None else states

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded | Score]:
        """Token ids of each conversation as it is scored, or a `Score` of status `error` that says why there are none."""
        if isinstance(conversations, (str, dict)) or any(isinstance(c, (str, dict)) for c in conversations):
            raise DataError(
                "score takes a list of conversations, each a list of messages; put brackets around a single one"
            )
        return _each(lambda rows: self.encoder(require_conversations(rows)), conversations)

    def encode_texts(self, texts: Sequence[str]) -> list[Encoded | Score]:
        """The same for texts that a chat template has already rendered."""
        return _each(self.encoder.texts, texts)

    def encode_ids(self, rows: Sequence[Sequence[int]]) -> list[Encoded | Score]:
        """The same for token ids; those that the model has no embedding for are refused."""
        size = self.net.get_input_embeddings().num_embeddings  # type: ignore[operator]

        def checked(rows: Sequence[Sequence[int]]) -> list[Encoded]:
            if not all(isinstance(i, int) and 0 <= i < size for row in rows for i in row):
                raise DataError(f"token ids must be whole numbers from 0 to {size - 1}, as the model's tokenizer gives")
            return self.encoder.ids(rows)

        return _each(checked, rows)

    def score_encoded(self, items: Sequence[Encoded | Score], *, tokens_per_row: int | None = None) -> list[Score]:
        """Rewards of what `encode`, `encode_texts` and `encode_ids` gave, in any mixture, in order."""
        return self._finish(items, self.trunk, tokens_per_row)

    def stream(
        self,
        items: Sequence[Encoded | Score],
        *,
        features: bool = False,
        tokens_per_row: int | None = None,
        forward: Callable[[Row], Tensor] | None = None,
    ) -> Iterator[Ready]:
        """The same, row by row as they are finished, with `features` where they are asked for.

        Equal sequences are computed once, so what they get is equal to the last bit.
        """
        places: dict[Ids, list[int]] = {}
        for place, item in enumerate(items):
            if isinstance(item, Encoded):
                places.setdefault(item.ids, []).append(place)
        width = head_width(self.net) if features else 0
        refused = [place for place, item in enumerate(items) if isinstance(item, Score)]
        if refused:
            missing = np.full((len(refused), width), np.nan, dtype=np.float32) if features else None
            yield Ready(refused, [item for item in items if isinstance(item, Score)], missing, 0)
        budget = tokens_per_row or (2048 if self.device.type == "cpu" else 8192)
        trees = grow_trees(places, budget) if self.shares_prefix else [(ids,) for ids in places]
        compute = self._with_states if features else forward or self.trunk
        training = self.training
        self.eval()
        for row in self.rows(trees, budget, tight=self.device.type == "cpu"):  # there a row costs little by itself
            with torch.inference_mode():
                values = compute(row.to(self.device)).float().cpu().reshape(len(row.origin), -1)
            which = [(n, place) for n, (tree, k) in enumerate(row.origin) for place in places[trees[tree][k]]]
            rewards = values[:, : values.shape[1] - width].tolist()
            scores = [self._score(rewards[n], items[place]) for n, place in which]  # type: ignore[arg-type]
            states = values[[n for n, _ in which], values.shape[1] - width :].numpy() if features else None
            yield Ready([place for _, place in which], scores, states, row.tokens)
        self.train(training)

    def _with_states(self, row: Row) -> Tensor:
        """Rewards and what the head read for them, side by side: (n, M + width)."""
        with head_inputs(self.net) as states:
            rewards = self.trunk(row).reshape(len(row.origin), -1)
            return torch.cat([rewards, states(rewards)], dim=1)

    def save(self, folder: str | Path, center_on: Sequence[Conversation] = ()) -> None:
        """Write a plain transformers checkpoint with tokenizer and contract; LoRA weights are merged in.

        An ensemble is written as the mean of its members, with the members beside it; they are shifted to one mean reward
        over the conversations of `center_on`, which leaves the mean of the members as it was. The folder appears whole
        or not at all; an older one of the same name is replaced. The model itself is unchanged.
        """
        if hasattr(self.net, "peft_config"):
            self.merged().save(folder, center_on)
            return
        self.contract = self._draw_up_contract()
        self._write(Path(folder), self.contract, center_on)

    def save_adapter(self, folder: str | Path, center_on: Sequence[Conversation] = ()) -> None:
        """Write the LoRA adapter alone (head included), with tokenizer and contract. Raises ConfigError without LoRA."""
        if not hasattr(self.net, "peft_config"):
            raise ConfigError("this model has no LoRA adapter to save; use save() for the whole model")
        self._write(Path(folder), self._draw_up_contract(), center_on)

    def merged(self) -> RewardModel:
        """A copy with the LoRA weights folded into the backbone; itself when there are none."""
        if not hasattr(self.net, "peft_config"):
            return self
        net = copy.deepcopy(self.net).merge_and_unload()  # type: ignore[operator]
        net.set_attn_implementation("sdpa" if self.trunk.uses_flex else net.config._attn_implementation)
        merged = RewardModel(net, self.encoder, self.contract, self.new_modules).eval()
        merged.rule = self.rule
        if self.trunk.uses_flex:
            merged.trunk.use_flex()
        return merged

    def _write(self, target: Path, contract: Contract, center_on: Sequence[Conversation]) -> None:
        with replacing_folder(target) as staging:
            with members.collapsed(self.net):
                self.net.save_pretrained(staging)  # type: ignore[operator]
            if self.members > 1:
                members.write(self.net, staging, self._offsets(center_on))
            self.encoder.tokenizer.save_pretrained(staging)
            contract.write(staging)

    def _finish(
        self, items: Sequence[Encoded | Score], forward: Callable[[Row], Tensor], tokens_per_row: int | None
    ) -> list[Score]:
        return gathered(self.stream(items, tokens_per_row=tokens_per_row, forward=forward), len(items))[0]

    def _offsets(self, conversations: Sequence[Conversation]) -> Tensor:
        """What to add to each member, (M,), so that all have one mean reward over the conversations; sums to 0."""
        rows = [score.members for score in self.score(conversations) if score.status == "ok"]
        if not rows:
            return torch.zeros(self.members)
        mean = torch.tensor(rows, dtype=torch.float64).mean(0)
        return mean.mean() - mean

    def _score(self, rewards: Sequence[float], item: Encoded) -> Score:
        scale, offset = (self.contract.scale, self.contract.offset) if self.contract else (1.0, 0.0)
        values = tuple(scale * reward + offset for reward in rewards)
        if len(values) == 1:
            return Score(values[0], "ok", len(item.ids), item.truncated)
        return Score(float(combine(np.array(values), self.rule)), "ok", len(item.ids), item.truncated, members=values)

    def _draw_up_contract(self) -> Contract:
        """The contract of the model as it stands, golden rows scored now."""
        items = self.encode(GOLDEN_CONVERSATIONS)
        probes = [c for c, item in zip(GOLDEN_CONVERSATIONS, items, strict=True) if isinstance(item, Encoded)]
        if not probes:
            raise ConfigError(
                "no golden conversation fits the context and template, so no contract can be drawn up; "
                "raise --max-length, or choose --truncation left"
            )
        encoded = self.encoder(probes)
        scores = self.score(probes)
        golden = tuple(
            GoldenRow(tuple({"role": m["role"], "content": m["content"]} for m in messages), item.ids, score.mean)
            for messages, item, score in zip(probes, encoded, scores, strict=True)
        )
        old = self.contract
        is_same = old is not None and old.golden == golden  # after training the old temperature means nothing
        return Contract(
            template_hash=template_hash(self.encoder.tokenizer),
            pad_token_id=int(self.encoder.tokenizer.pad_token_id),
            closing=str(self.encoder.tokenizer.convert_ids_to_tokens(encoded[0].ids[-1])),
            scored_position=self._scored_position,
            max_length=self.encoder.max_length,
            truncation=self.encoder.truncation,
            dtype=self.dtype,
            shares_prefix=self.shares_prefix,
            golden=golden,
            scale=old.scale if old else 1.0,
            offset=old.offset if old else 0.0,
            temperature=old.temperature if old and is_same else None,
        )

    def _enforce(self, contract: Contract, where: str) -> None:
        conversations: list[Conversation] = [row.messages for row in contract.golden]  # type: ignore[misc]
        encoder = Encoder(self.encoder.tokenizer, contract.max_length, contract.truncation)
        ids = [item.ids for item in encoder(conversations)]
        now = {"pad_token_id": self.encoder.tokenizer.pad_token_id, "scored_position": self._scored_position}
        for name, value in now.items():
            if value != getattr(contract, name):
                raise ContractError(
                    f"{where}: {name} is {value}, the contract says {getattr(contract, name)}; restore the original files"
                )
        kept, self.encoder = self.encoder, encoder
        scores = [score.mean for score in self.score(conversations)]
        self.encoder = kept
        worst = verify(contract, template_hash(self.encoder.tokenizer), ids, scores, self.dtype, where)
        logger.debug("%s: %d golden rows agree within %.1e", where, len(contract.golden), worst)


def _each(encode: Callable[[Sequence[Any]], list[Encoded]], things: Sequence[Any]) -> list[Encoded | Score]:
    """Encode in one batch; when something is refused, one by one, so that only the culprits fail."""
    try:
        return list(encode(things))
    except DataError as error:
        if len(things) == 1:
            return [Score(float("nan"), "error", reason=str(error))]
        return [_each(encode, [thing])[0] for thing in things]
