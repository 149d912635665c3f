"""What one step is remembered by: its samples with everything that was measured on them, and the row of metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from guerdon.diagnose.monitor import Observation, Verdict
from guerdon.diagnose.surface import columns
from guerdon.evaluate.columns import Floats
from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.rewards import parts_of
from guerdon.optimize.rollout import Rollout
from guerdon.optimize.update import MEASURED
from guerdon.types import Conversation, Score


@dataclass(frozen=True)
class StepRecord:
    """The samples of a step, in lists of equal length, and the drift of the process that drew them.

    kl, kl3   nats per sequence on each sample, k1 and k3 summed over its tokens
    course    log pi less that of the policy's mean of late, nats per sequence; NaN where it is not measured
    asked     whether held-out was asked for a score
    held_out  its score, NaN where there is none
    drift     see `Novelty.distance`; NaN where it is not measured
    """

    prompts: list[Conversation]
    group: list[int]
    texts: list[str]
    scores: list[Score]
    rewards: list[float]
    kl: list[float]
    kl3: list[float]
    course: list[float]
    tokens: list[int]
    finished: list[bool]
    asked: list[bool]
    held_out: list[float]
    drift: float

    @classmethod
    def of(
        cls,
        rollout: Rollout,
        scores: Sequence[Score],
        rewards: Tensor,
        reference: Tensor,
        late: Tensor | None,
        checks: Mapping[int, float],
        drift: float,
    ) -> StepRecord:
        """From a rollout and what was measured on it; `reference` and `late` (n, T) are its log-probabilities under the
        reference and under the policy's mean of late, the latter of the samples in `checks` alone.
        """
        ratio = (rollout.behaviour - reference).double() * rollout.mask
        course = [math.nan] * len(scores)
        if late is not None:
            every = ((rollout.behaviour - late).double() * rollout.mask).sum(1).tolist()
            course = [value if i in checks else math.nan for i, value in enumerate(every)]
        return cls(
            rollout.prompts,
            rollout.group.tolist(),
            [sample.text for sample in rollout.samples],
            list(scores),
            rewards.tolist(),
            ratio.sum(1).tolist(),
            ((-ratio).expm1() + ratio).sum(1).tolist(),
            course,
            rollout.lengths.tolist(),
            rollout.finished.tolist(),
            [i in checks for i in range(len(scores))],
            [checks.get(i, math.nan) for i in range(len(scores))],
            drift,
        )

    @property
    def values(self) -> Floats:
        """(n,) the reward as it was scored, NaN where there is none."""
        return np.array([float(score) for score in self.scores], dtype=np.float64)

    def first_reason(self) -> str:
        """Why the first sample without a reward has none."""
        return next((score.reason or score.status for score in self.scores if score.status != "ok"), "no reason given")

    def signals(self) -> dict[str, float | None]:
        """Means that need no held-out score: see docs/optimize.md."""
        seen = columns(self.texts)
        spread = [score.std for score in self.scores if score.status == "ok" and score.members]
        return {
            "length": float(np.mean(self.tokens)),
            "words": float(np.mean([len(text.split()) for text in self.texts])),
            "eos_rate": float(np.mean(self.finished)),
            "repetition": float(seen["repetition"].mean()),
            "list_rate": float(seen["list"].mean()),
            "bold_rate": float(seen["bold"].mean()),
            "disagreement": float(np.mean(spread)) if spread else None,
            "drift": None if math.isnan(self.drift) else self.drift,
        }

    def observation(self, step: int, entropy: float | None = None) -> Observation:
        """What the monitor is told. `entropy`, nats per token, is measured by the update, where there was one."""
        held, values = np.array(self.held_out), self.values
        known = np.isfinite(held) & np.isfinite(values)
        return Observation(
            step=step,
            kl=float(np.mean(self.kl)),
            proxy=_mean(values),
            held_out=held[known],
            proxies=values[known],
            prompts=np.array(self.group)[known],
            ratios=np.array(self.kl)[known],
            course=np.array(self.course)[known],
            signals=self.signals() | {"entropy": entropy},
            asked=int((np.array(self.asked) & np.isfinite(values)).sum()),
        )

    def held_out_rows(self, step: int) -> list[dict[str, Any]]:
        """The step's row of held_out.jsonl."""
        seen = self.observation(step)
        return [
            {
                "step": step,
                "kl": seen.kl,
                "proxy": _known(seen.proxy),
                "held_out": [float(v) for v in seen.held_out],
                "proxies": [float(v) for v in seen.proxies],
                "prompts": [int(v) for v in (seen.prompts if seen.prompts is not None else ())],
                "ratios": [float(v) for v in seen.ratios],
                "course": [_known(float(v)) for v in seen.course],
            }
        ]


def merge(parts: Sequence[StepRecord]) -> StepRecord:
    """The records of all processes as one; their prompts get numbers of their own."""
    if len(parts) == 1:
        return parts[0]
    group: list[int] = []
    for part in parts:
        first = max(group, default=-1) + 1
        group += [first + number for number in part.group]
    lists = ("prompts", "texts", "scores", "rewards", "kl", "kl3", "course", "tokens", "finished", "asked", "held_out")
    joined = {name: [item for part in parts for item in getattr(part, name)] for name in lists}
    return StepRecord(**joined, group=group, drift=float(np.mean([part.drift for part in parts])))


def metrics_row(
    step: int,
    config: OptimizeConfig,
    record: StepRecord,
    found: Mapping[str, float],
    verdict: Verdict,
    beta: float,
    lr: float,
    clock: Sequence[float],
) -> dict[str, Any]:
    """The step's row of metrics.jsonl; what was not measured is null. `clock` holds start, rollout, score and update times."""
    values, held = record.values, np.array(record.held_out)
    tokens, seconds = float(np.sum(record.tokens)), max(clock[-1] - clock[0], 1e-9)
    n, kl = len(values), float(np.mean(record.kl))
    row: dict[str, Any] = {
        "step": step,
        "samples": step * config.prompts_per_step * config.samples_per_prompt,
        "proxy": _mean(values),
        "proxy_std": float(np.nanstd(values)) if np.isfinite(values).any() else math.nan,
        "within_std": _within(values, np.array(record.group)),
        "objective": _mean(np.array(record.rewards)) - (beta * kl if config.kl_in == "reward" else 0.0),
        "held_out": _mean(held),
        "held_out_asked": int(np.sum(record.asked)),
        "held_out_n": int(np.isfinite(held).sum()),
        "held_out_std": float(np.nanstd(held)) if np.isfinite(held).any() else math.nan,
        "kl": kl,
        "kl_per_token": float(np.sum(record.kl)) / tokens,
        "kl_k3": float(np.mean(record.kl3)),
        "sqrt_kl": math.sqrt(max(kl, 0.0)),
        "beta": beta,
        **record.signals(),
        **dict.fromkeys(MEASURED),
        **found,
        "masked": int(np.isnan(values).sum()),
        "lr": lr,
        "status": verdict.status,
        "reason": verdict.reason,
        "best_step": verdict.best_step,
        "peak_kl": verdict.peak_kl,
        "seconds": round(seconds, 4),
        "samples_per_s": n / seconds,
        "tokens_per_s": tokens / seconds,
    }
    names = ("rollout_s", "score_s", "update_s")
    row |= {name: round(end - start, 4) for name, start, end in zip(names, clock, clock[1:], strict=False)}
    return {name: _known(value) for name, value in row.items()}


def sample_rows(step: int, record: StepRecord) -> list[dict[str, Any]]:
    """The step's rows of samples.jsonl, one for each completion."""
    return [
        {
            "step": step,
            "group": record.group[i],
            "prompt": [dict(message) for message in record.prompts[i]],
            "completion": record.texts[i],
            "reward": _known(float(record.scores[i])),
            "status": record.scores[i].status,
            "reason": record.scores[i].reason,
            "parts": {name: _known(float(score)) for name, score in parts_of(record.scores[i]).items()},
            "members": list(record.scores[i].members),
            "held_out": _known(record.held_out[i]),
            "kl": record.kl[i],
            "tokens": record.tokens[i],
            "finished": record.finished[i],
        }
        for i in range(len(record.texts))
    ]


def _within(values: Floats, group: np.ndarray[Any, Any]) -> float:
    """Mean over prompts of the standard deviation (n - 1) of their samples' rewards; what a group algorithm learns from."""
    spreads = [np.std(known, ddof=1) for g in np.unique(group) if len(known := _finite(values[group == g])) > 1]
    return float(np.mean(spreads)) if spreads else math.nan


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _mean(values: Floats) -> float:
    known = _finite(values)
    return float(known.mean()) if len(known) else math.nan


def _known(value: Any) -> Any:
    """None in place of a number that is not finite, for JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
