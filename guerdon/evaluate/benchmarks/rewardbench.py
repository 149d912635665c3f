"""RewardBench 1: four sections of chosen-rejected pairs (Lambert et al. 2024, arXiv 2403.13787).

Rule (allenai/reward-bench, `scripts/run_rm.py`, `calculate_scores_per_section` in `rewardbench/utils.py`): an item is
right if the chosen answer scores strictly higher, so a tie is wrong. A subset scores the mean of its items. A section is
the mean of its subsets weighted by the official counts, in which math-prm counts 984 although it has 447 items, so that
mathematics and code weigh the same. The overall score is the unweighted mean of the four sections. The former fifth
section ("prior sets") is not part of it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from guerdon.evaluate.benchmarks.estimate import RESAMPLES, Estimate, Result, by_category, weighted
from guerdon.evaluate.benchmarks.item import Item, make_item, matrix, number, prompt_group, rows_with, score_rows, sheet
from guerdon.evaluate.columns import Floats
from guerdon.types import DataError

HUB = "allenai/reward-bench:filtered"
METRIC = "mean of four sections"
COUNTS = {
    "alpacaeval-easy": 100,
    "alpacaeval-length": 95,
    "alpacaeval-hard": 95,
    "mt-bench-easy": 28,
    "mt-bench-med": 40,
    "mt-bench-hard": 37,
    "llmbar-natural": 100,
    "llmbar-adver-neighbor": 134,
    "llmbar-adver-GPTInst": 92,
    "llmbar-adver-GPTOut": 47,
    "llmbar-adver-manual": 46,
    "refusals-dangerous": 100,
    "refusals-offensive": 100,
    "xstest-should-refuse": 154,
    "xstest-should-respond": 250,
    "donotanswer": 136,
    "math-prm": 984,  # 447 items, weighted like the six code subsets together
    "hep-cpp": 164,
    "hep-go": 164,
    "hep-java": 164,
    "hep-js": 164,
    "hep-python": 164,
    "hep-rust": 164,
}
SECTIONS = {
    "Chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "Chat Hard": (
        "mt-bench-hard",
        "llmbar-natural",
        "llmbar-adver-neighbor",
        "llmbar-adver-GPTInst",
        "llmbar-adver-GPTOut",
        "llmbar-adver-manual",
    ),
    "Safety": (
        "refusals-dangerous",
        "refusals-offensive",
        "xstest-should-refuse",
        "xstest-should-respond",
        "donotanswer",
    ),
    "Reasoning": ("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
}


def load(path: str | os.PathLike[str]) -> list[Item]:
    """Rows with `prompt`, `chosen`, `rejected`, `subset`, `id`: the split `filtered` of allenai/reward-bench."""
    return [
        make_item(
            str(row.data.get("id", row.place)),
            _subset(row.data["subset"], row.place),
            row.data["prompt"],
            [row.data["chosen"], row.data["rejected"]],
            [True, False],
        )
        for row in rows_with(path, ("prompt", "chosen", "rejected", "subset"))
    ]


def _subset(name: str, place: str) -> str:
    if name not in COUNTS:
        raise DataError(f"{place}: subset {name!r} is not one of RewardBench; measure other pairs with `hh`")
    return str(name)


def section_weights(subsets: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each section that has a subset here: the official weight of each of its subsets that are here, summing to 1."""
    found = {}
    for section, names in SECTIONS.items():
        present = [name for name in names if name in subsets]
        total = sum(COUNTS[name] for name in present)
        if present:
            found[section] = {name: COUNTS[name] / total for name in present}
    return found


def section_scores(subsets: Mapping[str, float]) -> dict[str, float]:
    """Section scores out of subset scores, as `calculate_scores_per_section` does; other keys are ignored."""
    return {
        section: sum(weight * subsets[name] for name, weight in weights.items())
        for section, weights in section_weights([name for name in subsets if name in COUNTS]).items()
    }


def measure(items: Sequence[Item], scores: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Result:
    """Overall and section scores; `details` holds the subsets. Scores are (items, 2), chosen first."""
    s = sheet(items, scores)
    wins = s.wins
    subsets = by_category(wins, s, seed=seed, resamples=resamples)
    weights = section_weights(list(subsets))
    share = {name: w / len(weights) for section in weights.values() for name, w in section.items()}
    missing = tuple(name for name in COUNTS if name not in subsets)
    return Result(
        benchmark="rewardbench",
        metric=METRIC if len(weights) == len(SECTIONS) else f"mean of {len(weights)} of four sections",
        overall=weighted(wins, s.category, share, s.group, seed=seed, resamples=resamples),
        categories={
            section: weighted(wins, s.category, w, s.group, seed=seed, resamples=resamples)
            for section, w in weights.items()
        },
        details=subsets,
        items=len(s.items),
        prompts=s.prompts,
        ties=s.ties,
        unscored=s.unscored,
        notes=(f"Absent subsets: {', '.join(missing)}; published scores cover all.",) if missing else (),
    )


def from_subsets(subsets: Mapping[str, float]) -> Result:
    """The result that follows from subset scores alone (a file of `eval-set/` in allenai/reward-bench-results)."""
    known = {name: Estimate(float(value)) for name, value in subsets.items() if name in COUNTS}
    sections = section_scores({name: estimate.value for name, estimate in known.items()})
    whole = len(sections) == len(SECTIONS)
    overall = sum(sections.values()) / len(sections) if sections else math.nan
    return Result(
        benchmark="rewardbench",
        metric=METRIC if whole else f"mean of {len(sections)} of four sections",
        overall=Estimate(overall),
        categories={name: Estimate(value) for name, value in sections.items()},
        details=known,
        items=0,
        prompts=0,
        ties=0,
        unscored=0,
        notes=("Computed from subset scores, so without intervals.",),
    )


def read_scores(
    path: str | os.PathLike[str], items: Sequence[Item] | None = None
) -> tuple[list[Item], dict[str, Floats | Result]]:
    """A published file: per item `subset`, `scores_chosen`, `scores_rejected`, or subset scores alone.

    With `items`, rows are found by `id` so that prompts and lengths are known; without, a row that does not carry its
    prompt is a prompt of its own.
    """
    rows = score_rows(path)
    if len(rows) == 1 and "scores_chosen" not in rows[0].data:
        return [], {str(rows[0].data.get("model", "scores")): from_subsets(rows[0].data)}
    known = {(item.category, item.id): item for item in items or ()}
    kept, scores = [], []
    for row in rows:
        if not {"scores_chosen", "scores_rejected", "subset"} <= row.data.keys():
            raise DataError(
                f"{row.place}: expected scores_chosen, scores_rejected and subset; give a published score file"
            )
        id = str(row.data.get("id", row.place))
        bare = Item(
            id, _subset(row.data["subset"], row.place), (True, False), prompt_group(str(row.data.get("prompt", id)))
        )
        kept.append(known.get((bare.category, id), bare))
        scores.append([number(row.data[name], row.place) for name in ("scores_chosen", "scores_rejected")])
    return kept, {str(rows[0].data.get("model", "scores")): matrix(kept, scores)}
