"""What is kept of one step of a policy run while its samples come in: sums and counts, never the samples.

In: `Sample`. Out: `Tally`, whose `row` is a line of the run's series and whose `observation` is what the monitor reads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guerdon.diagnose.monitor import Observation
from guerdon.diagnose.surface import columns
from guerdon.types import Score

MOST_PROMPTS = (
    4096  # prompts of a step whose samples are told apart; those after them count in everything but `within_std`
)
SIGNALS = ("length", "words", "repetition", "list_rate", "bold_rate", "disagreement", "drift")  # means over samples
Counts = tuple[float, float, float]
EMPTY: Counts = (0, 0.0, 0.0)  # n, mean, sum of squares about the mean (Welford)


@dataclass(frozen=True, slots=True)
class Sample:
    """One scored answer of the policy.

    score   the reward, with its status, members and token count
    prompt  number that answers to one prompt share; None when not known
    surface what is seen of the answer without a model, see `surface_of`; empty when it cannot be told from the prompt
    tokens  length of the answer in tokens of the reward model; NaN when not known
    drift   squared distance of its features from the training answers, see `Novelty.distance`; NaN when not measured
    kl      nats between policy and reference on this sample, as the client sent it; NaN when it did not
    """

    score: Score
    prompt: int | None = None
    surface: Mapping[str, float] = field(default_factory=dict)
    tokens: float = math.nan
    drift: float = math.nan
    kl: float = math.nan


@dataclass(eq=False)
class Tally:
    """The statistics of one step so far; memory does not grow with the samples, but for the prompts' (bounded) and the checks'."""

    step: int
    started: float = 0.0
    rewards: Counts = EMPTY
    prompts: dict[int, Counts] = field(default_factory=dict)
    means: dict[str, Counts] = field(default_factory=dict)
    status: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    checks: list[tuple[float, float, int]] = field(default_factory=list)  # held-out, reward, prompt (-1: not known)
    missing: int = 0  # held-out scores that were asked for and could not be had
    kl: float = math.nan  # of the whole step, as the client sent it

    @property
    def samples(self) -> int:
        return self.status.total()

    def add(self, sample: Sample) -> None:
        """Count one sample. One without a score counts by its status, length, KL and surface alone."""
        score = sample.score
        self.status[score.status] += 1
        self.truncated += score.truncated
        self._mean("length", sample.tokens)
        self._mean("kl", sample.kl)
        for name, value in sample.surface.items():
            self._mean(name, value)
        if score.status != "ok":
            return
        value = float(score)
        self.rewards = _more(self.rewards, value)
        self._mean("disagreement", score.std)
        self._mean("drift", sample.drift)
        if sample.prompt is not None and (sample.prompt in self.prompts or len(self.prompts) < MOST_PROMPTS):
            self.prompts[sample.prompt] = _more(self.prompts.get(sample.prompt, EMPTY), value)

    def check(self, held_out: Score, reward: float, prompt: int | None) -> None:
        """Take in a held-out score of one of the samples; one that could not be had is counted, and is no score."""
        if held_out.status == "ok":
            self.checks.append((float(held_out), reward, -1 if prompt is None else prompt))
        else:
            self.missing += 1

    def row(self) -> dict[str, float]:
        """The step's line in the series, NaN for what was not measured; see docs/watch.md."""
        held = EMPTY
        for value, _, _ in self.checks:
            held = _more(held, value)
        kl = self._kl()
        spreads = [_std(part, 1) for part in self.prompts.values() if part[0] > 1]
        return {
            "samples": self.samples,
            "proxy": _known(self.rewards),
            "proxy_std": _std(self.rewards, 0),
            "within_std": math.fsum(spreads) / len(spreads) if spreads else math.nan,
            "held_out": _known(held),
            "held_out_std": _std(held, 0),
            "held_out_n": held[0],
            "held_out_missing": self.missing,
            "kl": kl,
            "sqrt_kl": math.sqrt(max(kl, 0.0)) if math.isfinite(kl) else math.nan,
            **{name: self._value(name) for name in SIGNALS},
            "masked": self.status["masked"],
            "errors": self.status["error"],
            "truncated": self.truncated,
        }

    def observation(self) -> Observation:
        """What the monitor is told when the step is over."""
        held_out, proxies, prompts = (
            (list(part) for part in zip(*self.checks, strict=True)) if self.checks else ([], [], [])
        )
        is_grouped = bool(prompts) and -1 not in prompts
        return Observation(
            step=self.step,
            kl=self._kl(),
            proxy=_known(self.rewards),
            held_out=held_out,
            proxies=proxies,
            prompts=[int(p) for p in prompts] if is_grouped else None,
            signals={name: self._value(name) for name in SIGNALS},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for a server that stops in the middle of a step."""
        return {
            "step": self.step,
            "started": self.started,
            "rewards": self.rewards,
            "prompts": list(self.prompts.items()),
            "means": self.means,
            "status": self.status,
            "truncated": self.truncated,
            "checks": self.checks,
            "missing": self.missing,
            "kl": None if math.isnan(self.kl) else self.kl,
        }

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Tally:
        """The tally that `to_dict` was taken from."""
        return cls(
            step=int(found["step"]),
            started=float(found["started"]),
            rewards=_counts(found["rewards"]),
            prompts={int(prompt): _counts(part) for prompt, part in found["prompts"]},
            means={str(name): _counts(part) for name, part in found["means"].items()},
            status=Counter({str(name): int(n) for name, n in found["status"].items()}),
            truncated=int(found["truncated"]),
            checks=[(float(held), float(reward), int(prompt)) for held, reward, prompt in found["checks"]],
            missing=int(found["missing"]),
            kl=math.nan if found["kl"] is None else float(found["kl"]),
        )

    def _kl(self) -> float:
        """What was sent for the step counts before what was sent with its samples."""
        return self.kl if math.isfinite(self.kl) else self._value("kl")

    def _mean(self, name: str, value: float) -> None:
        if math.isfinite(value):
            self.means[name] = _more(self.means.get(name, EMPTY), value)

    def _value(self, name: str) -> float:
        return _known(self.means.get(name, EMPTY))


def surface_of(answer: str) -> dict[str, float]:
    """Words, share of repeated four-word runs, and 1 where there is a list or bold text; see docs/drift.md."""
    seen = columns([answer])
    names = {"repetition": "repetition", "list_rate": "list", "bold_rate": "bold"}
    return {"words": float(len(answer.split()))} | {name: float(seen[of][0]) for name, of in names.items()}


def _more(counts: Counts, value: float) -> Counts:
    """One value more."""
    n, mean, square = counts
    change = value - mean
    mean += change / (n + 1)
    return n + 1, mean, square + change * (value - mean)


def _known(counts: Counts) -> float:
    return counts[1] if counts[0] else math.nan


def _std(counts: Counts, freedom: int) -> float:
    return math.sqrt(counts[2] / (counts[0] - freedom)) if counts[0] > freedom else math.nan


def _counts(found: Any) -> Counts:
    n, mean, square = found
    return int(n), float(mean), float(square)
