"""The reward that a policy trained by DPO holds, as a `Scorer`: beta * (log pi(y | x) - log pi_ref(y | x)).

Rafailov et al. 2023 (arXiv 2305.18290), eq. 5: the reward for which the policy is optimal is this, plus a term that depends on
the prompt alone. So answers to one prompt can be compared, and answers to different prompts cannot. A folder that holds
`implicit_reward.json` beside the policy's weights names beta and the reference; it is then loaded like any reward model.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from guerdon.files import write_json
from guerdon.model.tree import Ids
from guerdon.optimize.layout import Group
from guerdon.optimize.policy import Policy, evaluating
from guerdon.types import ConfigError, ContractError, Conversation, DataError, Score

FILE = "implicit_reward.json"
GOLDEN = 4  # rows that are scored again at every load
BLOCK = 256  # conversations laid out together


@dataclass(frozen=True)
class Golden:
    """Token ids of a prompt and a completion, and the reward they had when the folder was written."""

    prompt: Ids
    completion: Ids
    reward: float


class ImplicitReward:
    """beta * (log pi - log pi_ref) of the last assistant turn, summed over its tokens, in reward units.

    per_token  divide by the number of completion tokens, which takes out the habit of longer answers to have more of either
               sign; no longer the reward of eq. 5
    """

    contract = None  # its own check is that of the golden rows in `FILE`

    def __init__(self, policy: Policy, reference: Policy, beta: float, per_token: bool = False, name: str = "") -> None:
        if not (math.isfinite(beta) and beta > 0):
            raise ConfigError(f"beta of an implicit reward must be greater than 0, got {beta}")
        self.policy, self.reference = policy, reference
        self.beta, self.per_token = beta, per_token
        self.fingerprint = name

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device | None = None) -> ImplicitReward:
        """From a folder with `implicit_reward.json`. Raises ConfigError when policy or reference cannot be loaded, ContractError
        when they do not score as they did when the folder was written.
        """
        path = Path(folder)
        facts = _read(path)
        beside = path / str(facts.get("reference_from_here") or "-")
        reference = beside if beside.is_dir() else facts["reference"]
        golden = [Golden(tuple(g["prompt"]), tuple(g["completion"]), g["reward"]) for g in facts["golden"]]
        name = sha256((path / FILE).read_bytes()).hexdigest()[:16]
        try:
            frozen = Policy.load(reference, device=device)
        except ConfigError as error:
            raise ConfigError(f"{path / FILE}: the reference cannot be loaded: {error}") from error
        reward = cls(Policy.load(path, device=device), frozen, facts["beta"], facts["per_token"], name)
        for row in golden:
            found = float(reward._rewards([Group(row.prompt, (row.completion,), (0,))])[0])
            if not math.isclose(found, row.reward, abs_tol=1e-3 * reward.beta * len(row.completion), rel_tol=1e-3):
                raise ContractError(
                    f"{path}: a golden row now scores {found:.6g}, not {row.reward:.6g}; the weights of the policy or of its "
                    f"reference ({reference}) have changed since the folder was written"
                )
        return reward

    def write(self, folder: str | Path, reference: str | Path, golden: Sequence[tuple[Conversation, str]]) -> None:
        """Write `FILE` into the policy's folder. `reference` is the folder or hub id it is loaded from; `golden` are prompts and
        answers of which the first few become golden rows.
        """
        rows = []
        for prompt, answer in golden[:GOLDEN]:
            ids, completion = self.policy.encode_answer(prompt, answer)
            found = float(self._rewards([Group(ids, (completion,), (0,))])[0])
            rows.append({"prompt": list(ids), "completion": list(completion), "reward": found})
        facts: dict[str, Any] = {"beta": self.beta, "per_token": self.per_token, "reference": str(reference)}
        if Path(reference).is_dir():
            facts["reference"] = str(Path(reference).resolve())
            facts["reference_from_here"] = os.path.relpath(reference, folder)
        write_json(Path(folder) / FILE, facts | {"golden": rows})

    def score(
        self, conversations: Sequence[Conversation], *, advance: Callable[[int], None] = lambda _: None
    ) -> list[Score]:
        """One score per conversation. One that does not end with the assistant, that the template refuses or that is longer than
        the model's context has status `error`; nothing is cut.
        """
        found: list[Score] = []
        for first in range(0, len(conversations), BLOCK):
            block = conversations[first : first + BLOCK]
            found += self._block(block)
            advance(len(block))
        return found

    def _block(self, conversations: Sequence[Conversation]) -> list[Score]:
        scores: dict[int, Score] = {}
        members: dict[Ids, list[tuple[int, Ids]]] = {}
        for i, conversation in enumerate(conversations):
            try:
                prompt, completion = self._encode(conversation)
                members.setdefault(prompt, []).append((i, completion))
            except DataError as error:
                scores[i] = Score(0, "error", reason=str(error))
        groups = [
            Group(prompt, tuple(c for _, c in rows), tuple(i for i, _ in rows)) for prompt, rows in members.items()
        ]
        lengths = {i: len(prompt) + len(completion) for prompt, rows in members.items() for i, completion in rows}
        for i, value in self._rewards(groups).items():
            scores[i] = Score(value, tokens=lengths[i])
        return [scores[i] for i in range(len(conversations))]

    def _encode(self, conversation: Conversation) -> tuple[Ids, Ids]:
        if len(conversation) < 2 or conversation[-1]["role"] != "assistant":
            raise DataError("the conversation is not a prompt with an assistant message at its end")
        prompt, completion = self.policy.encode_answer(conversation[:-1], conversation[-1]["content"])
        context = self.policy.context
        if context and len(prompt) + len(completion) > context:
            raise DataError(f"{len(prompt) + len(completion)} tokens are more than the model's context of {context}")
        return prompt, completion

    def _rewards(self, groups: Sequence[Group]) -> dict[int, float]:
        """Reward of each sample."""
        if not groups:
            return {}
        budget = 16384 if self.policy.device.type == "cuda" else 1024
        with evaluating(self.policy), evaluating(self.reference):
            mine, base = self.policy.logprobs(groups, budget), self.reference.logprobs(groups, budget)
        found = {}
        for i, values in mine.items():
            difference = float((values.double() - base[i].double()).sum())
            found[i] = self.beta * difference / (len(values) if self.per_token else 1)
        return found


def _read(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / FILE}: cannot be read ({error})") from error
    missing = [name for name in ("beta", "per_token", "reference", "golden") if name not in facts]
    if missing:
        raise ConfigError(f"{folder / FILE}: has no '{missing[0]}'; write it anew with guerdon optimize dpo")
    return facts
