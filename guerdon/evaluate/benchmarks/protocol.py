"""How scores came about, kept beside every number: published values differ by points for reasons that stand here.

In: any `Scorer`, the conversations it scored, and a mapping of what its owner knows of it. Out: a frozen `Protocol`.
Fields that cannot be known, as for a file of someone else's scores, are None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from guerdon.evaluate.columns import plain
from guerdon.types import Conversation, Score, Scorer

PACKAGES = ("guerdon", "torch", "transformers", "tokenizers", "numpy")
CHECKED = 32  # conversations that are scored a second time, one by one
FACTS = ("template_hash", "max_length", "truncation", "dtype", "device", "contract")


@dataclass(frozen=True)
class Protocol:
    """Everything outside the weights that moves a benchmark score.

    scores            file that the scores were read from; None when a model was run
    model             folder or id of the model
    fingerprint       names the reward as it was computed (`scorer.fingerprint`)
    contract          hash of the scoring contract
    template_hash     of the chat template
    max_length        context, tokens
    truncation        side on which longer conversations are cut, or `error`
    dtype             precision of the trunk
    device            where it ran
    conversations     scored conversations
    truncated         how many of them were cut to the context
    truncation_rate   truncated over conversations
    failed            conversations without a score
    batch_difference  largest absolute difference between scores of one call and of single calls, in units of the reward
    batch_checked     conversations behind it
    reward_std        standard deviation of all scores, to judge it by
    versions          of the packages that compute
    """

    scores: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    contract: str | None = None
    template_hash: str | None = None
    max_length: int | None = None
    truncation: str | None = None
    dtype: str | None = None
    device: str | None = None
    conversations: int | None = None
    truncated: int | None = None
    truncation_rate: float | None = None
    failed: int | None = None
    batch_difference: float | None = None
    batch_checked: int | None = None
    reward_std: float | None = None
    versions: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        record: dict[str, Any] = plain(asdict(self), keep_none=True)
        return record

    def warnings(self) -> tuple[str, ...]:
        """What in this record makes the number doubtful, a sentence each."""
        lines = []
        if self.truncation_rate and self.truncation_rate > 0.01:
            lines.append(
                f"{100 * self.truncation_rate:.1f} % of the conversations were cut to {self.max_length} tokens."
            )
        if self.batch_difference and self.reward_std and self.batch_difference > 0.01 * self.reward_std:
            lines.append(
                f"Scores depend on the batch: up to {self.batch_difference:.2g} of {self.reward_std:.2g} standard deviation."
            )
        if self.failed:
            lines.append(f"{self.failed:,} of {self.conversations or 0:,} conversations could not be scored.")
        return tuple(lines)


def record(
    scorer: Scorer,
    conversations: Sequence[Conversation],
    scores: Sequence[Score],
    *,
    model: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Protocol:
    """The record of scores that `scorer` has just given to `conversations`; scores some of them again, one by one.

    facts  what the caller knows of the model, by field name; what stands neither here nor on the scorer stays None
    """
    known = {name: (facts or {}).get(name, getattr(scorer, name, None)) for name in FACTS}
    fine = [float(score) for score in scores if score.status == "ok"]
    cut = sum(score.truncated for score in scores)
    difference, checked = batch_difference(scorer, conversations)
    fingerprint = getattr(scorer, "fingerprint", None)
    return Protocol(
        model=model,
        fingerprint=None if fingerprint is None else str(fingerprint),
        **{name: _plain_fact(value) for name, value in known.items()},
        conversations=len(scores),
        truncated=cut,
        truncation_rate=cut / len(scores) if scores else None,
        failed=len(scores) - len(fine),
        batch_difference=difference,
        batch_checked=checked,
        reward_std=_std(fine),
        versions=versions(),
    )


def batch_difference(
    scorer: Scorer, conversations: Sequence[Conversation], most: int = CHECKED
) -> tuple[float | None, int]:
    """Largest absolute difference between scores given together and one by one, over evenly chosen conversations.

    Batches pad, pack and sum in other orders, and code that scores the wrong token shows here: the same model has been
    seen at .429, .476 and .480 with batches of 1, 2 and 3 (allenai/reward-bench issue 137).
    """
    step = max(1, math.ceil(len(conversations) / most))
    chosen = list(conversations[::step])
    together = scorer.score(chosen) if chosen else []
    single = [scorer.score([conversation])[0] for conversation in chosen]
    pairs = [(a, b) for a, b in zip(together, single, strict=True) if a.status == b.status == "ok"]
    return (max(abs(float(a) - float(b)) for a, b in pairs), len(pairs)) if pairs else (None, 0)


def versions() -> dict[str, str]:
    """Installed versions of the packages that compute scores."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _plain_fact(value: Any) -> Any:
    return value if value is None or isinstance(value, int | str) else str(value)


def _std(values: Sequence[float]) -> float | None:
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
