"""Which pairs of a policy's answers are most worth a rater's time, chosen from what the run has already measured.

In: `samples.jsonl` of a run. Out: `to_label.jsonl`, the most informative pair first.

With an ensemble, a pair is worth the information that its label is expected to give about who is right (BALD: Houlsby et al.
2011, arXiv 1112.5745, eq. 2): with p_m = sigmoid(reward_m(a) - reward_m(b)) and H the entropy of a coin in nats,
    information = H(mean of p) - mean of H(p)
which is high where the members contradict each other, and 0 where they agree, however unsure they are. Where held-out has
scored both answers it is a source as likely to be right as the whole ensemble, with q = sigmoid of its difference over its
standard deviation within prompts; then half of the above counts, and H((p + q) / 2) - (H(p) + H(q)) / 2 with p the mean of the
members (chain rule of information). Without members, reward and held-out are both read in their standard deviations, and
    information = H((p + q) / 2),   or H(p) where held-out is not known
which is high where the reward cannot decide, and where the two contradict each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.diagnose.run_files import Row, stream_rows
from guerdon.evaluate.columns import Floats
from guerdon.files import write_text
from guerdon.types import ConfigError, DataError


@dataclass(frozen=True)
class PairToLabel:
    """Two answers to one prompt that a rater should compare.

    a, b         rows of samples.jsonl; `samples` are their numbers within the step
    information  nats, at most log 2
    why          one sentence
    """

    a: Row
    b: Row
    samples: tuple[int, int]
    information: float
    why: str

    @property
    def rank(self) -> tuple[float, int, float]:
        """Higher is more worth labelling: information to two figures, then the later step, then what is left of it."""
        return float(f"{max(self.information, 1e-9):.1e}"), int(self.a["step"]), self.information

    def to_dict(self, run: str) -> dict[str, Any]:
        """The row of to_label.jsonl; the completions stand in the order in which they were sampled."""
        step, group = int(self.a["step"]), int(self.a["group"])
        return {
            "id": f"{run}:{step}:{group}:{self.samples[0]}-{self.samples[1]}",
            "prompt": self.a["prompt"],
            "completions": [self.a["completion"], self.b["completion"]],
            "rewards": [self.a["reward"], self.b["reward"]],
            "held_out": [self.a.get("held_out"), self.b.get("held_out")],
            "run": run,
            "step": step,
            "group": group,
            "samples": list(self.samples),
            "information": self.information,
            "why": self.why,
        }


def pairs_to_label(run: Path, most: int = 200) -> list[PairToLabel]:
    """At most one pair for each prompt, the most informative first.

    Answers without a reward and pairs of equal texts are left out. Raises DataError when the run has no samples.jsonl, and
    ConfigError when `most` is below 1.
    """
    if most < 1:
        raise ConfigError(f"the number of pairs to label must be at least 1, got {most}")
    path = run / "samples.jsonl"
    if not path.is_file():
        raise DataError(f"{run}: holds no samples.jsonl; give the --output of guerdon optimize ppo, rloo or grpo")
    best: dict[str, PairToLabel] = {}
    for _, rows in groupby(stream_rows(path), key=lambda row: int(row["step"])):
        for pair in _of_step(list(rows)):
            prompt = json.dumps(pair.a["prompt"], sort_keys=True)
            if prompt not in best or pair.rank > best[prompt].rank:
                best[prompt] = pair
    return sorted(best.values(), key=lambda pair: pair.rank, reverse=True)[:most]


def write_to_label(run: Path, most: int = 200) -> int:
    """Write RUN/to_label.jsonl, whole or not at all; returns the number of pairs in it. Raises as `pairs_to_label` does."""
    pairs = pairs_to_label(run, most)
    lines = [json.dumps(pair.to_dict(run.resolve().name), ensure_ascii=False, allow_nan=False) + "\n" for pair in pairs]
    write_text(run / "to_label.jsonl", "".join(lines))
    return len(pairs)


def _of_step(rows: Sequence[Row]) -> Iterator[PairToLabel]:
    """The best pair of each prompt of a step."""
    groups: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        if row.get("reward") is not None:
            groups.setdefault(int(row["group"]), []).append(i)
    spreads = {
        name: _spread([_values(rows, group, name) for group in groups.values()]) for name in ("reward", "held_out")
    }
    for group in groups.values():
        reward, held = (_values(rows, group, name) / spreads[name] for name in ("reward", "held_out"))
        counts = {len(rows[i].get("members") or ()) for i in group}
        members = None
        if len(counts) == 1 and max(counts) > 1:
            members = np.array([rows[i]["members"] for i in group], dtype=np.float64)
        value = _doubt(reward, held) if members is None else _disagreement(members, held)
        found = _best(rows, group, value)
        if found is not None:
            i, j = found
            opinions = None if members is None else members[[i, j]]
            why = _why(reward[i] - reward[j], held[i] - held[j], opinions)
            yield PairToLabel(rows[group[i]], rows[group[j]], (group[i], group[j]), float(value[i, j]), why)


def _best(rows: Sequence[Row], group: Sequence[int], value: Floats) -> tuple[int, int] | None:
    """The pair of different texts with the highest value, as places in the group; the first among equals."""
    texts = [str(rows[i]["completion"]).strip() for i in group]
    number = np.array([texts.index(text) for text in texts])
    is_usable = np.triu(number[:, None] != number[None], 1) & np.isfinite(value)
    if not is_usable.any():
        return None
    i, j = np.unravel_index(int(np.argmax(np.where(is_usable, value, -math.inf))), value.shape)
    return int(i), int(j)


def _disagreement(members: Floats, held: Floats) -> Floats:
    """(n, n) information of each pair from (n, members) rewards and (n,) held-out in its deviations, NaN where not known."""
    p = _sigmoid(members[:, None] - members[None])
    q = _sigmoid(held[:, None] - held[None])
    mean = p.mean(2)
    among = np.maximum(_entropy(mean) - _entropy(p).mean(2), 0.0)
    between = np.maximum(_entropy((mean + q) / 2) - (_entropy(mean) + _entropy(q)) / 2, 0.0)
    found: Floats = np.where(np.isfinite(q), between + among / 2, among)
    return found


def _doubt(reward: Floats, held: Floats) -> Floats:
    """(n, n) entropy of the mean of what reward and held-out, each in its deviations, say about each pair."""
    p = _sigmoid(reward[:, None] - reward[None])
    q = _sigmoid(held[:, None] - held[None])
    return _entropy(np.where(np.isfinite(q), (p + q) / 2, p))


def _why(reward: float, held: float, members: Floats | None) -> str:
    """From the differences first minus second, in deviations, and the members' rewards (2, members)."""
    side, other = ("first", "second") if reward > 0 else ("second", "first")
    if reward * held < 0:
        return f"The reward prefers the {side} answer, held-out the {other}."
    if members is None:
        return f"The reward can hardly decide: the answers lie {abs(reward):.2f} standard deviations within a prompt apart."
    first, count = int((members[0] > members[1]).sum()), members.shape[1]
    if 0 < first < count:
        return f"{first} of {count} members of the reward prefer the first answer, {count - first} the second."
    return f"All {count} members of the reward prefer the same answer, but are not equally sure."


def _values(rows: Sequence[Row], group: Sequence[int], name: str) -> Floats:
    found = [rows[i].get(name) for i in group]
    return np.array([math.nan if value is None else float(value) for value in found], dtype=np.float64)


def _spread(groups: Sequence[Floats]) -> float:
    """Standard deviation within prompts, pooled; 1 where there is none."""
    known = [values[np.isfinite(values)] for values in groups]
    known = [values for values in known if len(values) > 1]
    freedom = sum(len(values) - 1 for values in known)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in known)
    return math.sqrt(squares / freedom) if squares > 0 else 1.0


def _sigmoid(x: Floats) -> Floats:
    p: Floats = 0.5 * (1 + np.tanh(x / 2))
    return p


def _entropy(p: Floats) -> Floats:
    """Of a coin that falls on one side with probability p, nats."""
    with np.errstate(divide="ignore", invalid="ignore"):
        h: Floats = -(np.where(p > 0, p * np.log(p), 0) + np.where(p < 1, (1 - p) * np.log1p(-p), 0))
    return np.where(np.isnan(p), np.nan, h)
