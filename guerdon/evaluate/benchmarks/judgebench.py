"""JudgeBench: pairs whose better answer is objectively known (Tan et al. 2024, arXiv 2410.12784).

Rule (ScalerLab/JudgeBench, `utils/metrics.py`): a judge sees both orders of a pair. Two-game, the default: +1 for each
decision that equals the label, -1 for each that equals the flipped label, the second game flipped back; a pair is right
if the sum is above 0, and is divided by all pairs, so that a missing or drawn decision helps neither side. Single-game:
the first decision equals the label. The overall score is the micro average over all pairs; categories are the prefixes
of `source`. A reward model decides `A>B` if A scores strictly higher, else `B>A`, in both orders (`utils/judges.py`): an
exact tie is wrong under two-game, and depends on the label under single-game.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.data.containers import Row, stream
from guerdon.evaluate.benchmarks.estimate import RESAMPLES, Result, by_category, mean, weighted
from guerdon.evaluate.benchmarks.item import Item, Sheet, make_item, matrix, number, rows_with, sheet
from guerdon.evaluate.columns import Floats
from guerdon.types import DataError

HUB = "ScalerLab/JudgeBench:gpt"
METRIC = "two-game accuracy, micro average"
CATEGORIES = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}
FLIP = {"A>B": "B>A", "B>A": "A>B"}

Games = tuple[str | None, str | None]  # the decision in the given order, and in the swapped order as it was spoken


def load(path: str | os.PathLike[str]) -> list[Item]:
    """Rows with `pair_id`, `source`, `question`, `response_A`, `response_B`, `label` (`A>B` or `B>A`)."""
    return [
        _item(row) for row in rows_with(path, ("pair_id", "source", "question", "response_A", "response_B", "label"))
    ]


def _item(row: Row) -> Item:
    data = row.data
    if data["label"] not in FLIP:
        raise DataError(f"{row.place}: label is {data['label']!r}; write A>B or B>A")
    category = next((name for prefix, name in CATEGORIES.items() if str(data["source"]).startswith(prefix)), None)
    if category is None:
        raise DataError(f"{row.place}: source {data['source']!r} is none of {', '.join(CATEGORIES)}")
    marks = [data["label"] == "A>B", data["label"] == "B>A"]
    answers = [data["response_A"], data["response_B"]]
    return make_item(str(data["pair_id"]), category, data["question"], answers, marks)


def decide(scores: Floats) -> list[Games]:
    """The two games of a reward model: scores (n, 2) of A and B; the first-named answer must score strictly higher."""
    first, second = scores[:, 0] > scores[:, 1], scores[:, 1] > scores[:, 0]
    return [
        ("A>B" if a else "B>A", "A>B" if b else "B>A") for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]


def two_game(games: Games, label: str) -> bool:
    """Whether more of the two decisions equal the label than its opposite."""
    spoken = (games[0], FLIP.get(games[1] or "", games[1]))
    return sum((decision == label) - (decision == FLIP[label]) for decision in spoken) > 0


def measure(items: Sequence[Item], scores: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Result:
    """Micro two-game accuracy and categories; `details`: single-game, macro average. Scores are (items, 2), A first."""
    s = sheet(items, scores)
    return _result(s, decide(s.scores), s.ties, seed, resamples)


def measure_games(
    items: Sequence[Item], games: Sequence[Games], *, seed: int = 0, resamples: int = RESAMPLES
) -> Result:
    """The same for the decisions of a judge, one pair of games per item; a null decision counts for neither side."""
    if len(games) != len(items):
        raise ValueError(f"{len(items)} items but {len(games)} pairs of decisions")
    s = sheet(items, np.zeros((len(items), 2)))
    drawn = sum(decision not in FLIP for pair in games for decision in pair)
    return _result(s, games, drawn, seed, resamples)


def _result(s: Sheet, games: Sequence[Games], ties: int, seed: int, resamples: int) -> Result:
    labels = ["A>B" if item.correct[0] else "B>A" for item in s.items]
    options = {"seed": seed, "resamples": resamples}
    wins = np.array([two_game(pair, label) for pair, label in zip(games, labels, strict=True)], dtype=np.float64)
    single = np.array([pair[0] == label for pair, label in zip(games, labels, strict=True)], dtype=np.float64)
    consistent = np.array([a == FLIP.get(b or "", b) for a, b in games], dtype=np.float64)
    categories = by_category(wins, s, **options)
    return Result(
        benchmark="judgebench",
        metric=METRIC,
        overall=mean(wins, s.group, **options),
        categories=categories,
        details={
            "single-game accuracy": mean(single, s.group, **options),
            "macro average": _macro(wins, s, list(categories), **options),
            "consistent": mean(consistent, s.group, **options),
        },
        items=len(s.items),
        prompts=s.prompts,
        ties=ties,
        unscored=s.unscored,
    )


def _macro(wins: Floats, s: Sheet, names: Sequence[str], **options: int) -> Any:
    return weighted(wins, s.category, {name: 1 / len(names) for name in names}, s.group, **options)


def read_scores(
    path: str | os.PathLike[str], items: Sequence[Item] | None = None
) -> tuple[list[Item], dict[str, Floats | Result]]:
    """Published outputs: rows of `outputs/*.jsonl` (with `judgments`), or `pair_id`, `judge_model` and `scores` or
    `decisions`. One result per judge; rows that hold no texts need the pairs as `items`.
    """
    rows = list(stream(path))
    own = [_item(row) for row in rows if {"question", "response_A", "response_B", "label"} <= row.data.keys()]
    pairs = list({item.id: item for item in (items or own)}.values())
    if not pairs:
        raise DataError(f"{path}: holds no texts and labels; name the pairs as well with --data")
    by_judge: dict[str, dict[str, Row]] = {}
    for row in rows:
        name = str(row.data.get("judge_model") or row.data.get("judge_name") or row.file)
        by_judge.setdefault(name, {})[str(row.data.get("pair_id"))] = row
    found: dict[str, Floats | Result] = {}
    for judge, answers in by_judge.items():
        absent = [item.id for item in pairs if item.id not in answers]
        if absent:
            raise DataError(
                f"{path}: {judge} has no row for pair {absent[0]} and {len(absent) - 1} more; give all pairs"
            )
        judged = [answers[item.id] for item in pairs]
        scores = [_scores(row) for row in judged]
        known = [row for row in scores if row is not None]
        if len(known) == len(scores):
            found[judge] = matrix(pairs, known)
        else:
            found[judge] = measure_games(pairs, [_games(row) for row in judged])
    return pairs, found


def _scores(row: Row) -> list[float] | None:
    values = row.data.get("scores")
    judgments = row.data.get("judgments")
    if values is None and isinstance(judgments, list) and judgments and isinstance(judgments[0], dict):
        judgment = judgments[0].get("judgment")
        values = judgment.get("scores") if isinstance(judgment, dict) else None
    return None if values is None else [number(value, row.place) for value in values]


def _games(row: Row) -> Games:
    if isinstance(row.data.get("decisions"), list):
        spoken = list(row.data["decisions"])
    elif isinstance(row.data.get("judgments"), list):
        spoken = [
            judgment.get("decision") if isinstance(judgment, dict) else None for judgment in row.data["judgments"]
        ]
    else:
        raise DataError(f"{row.place}: expected scores, decisions or judgments; give a published output file")
    first, second = [*spoken, None, None][:2]
    return first, second
