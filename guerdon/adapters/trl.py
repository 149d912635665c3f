"""Rewards for TRL's GRPOTrainer and RLOOTrainer: `reward_funcs` that mask what could not be scored.

    trainer = GRPOTrainer(model, reward_funcs=reward_func(scorer), ...)

TRL turns a None of one function into 0 in the sum over several; only a row that every function left out is left out of the
loss. So parts belong into one `WeightedSum` behind `reward_func`, or, when TRL is to weigh and log them one by one, into
`reward_funcs`, which give None in all of them when one could not score the row. Read in and tested with TRL 1.16.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from guerdon.adapters.source import conversation_of, score_rows
from guerdon.optimize.rewards import parts_of, require_all
from guerdon.types import ConfigError, Conversation, Score, Scorer


class RewardFunction(Protocol):
    """What TRL calls: everything by keyword, a reward or None per completion back."""

    __name__: str

    def __call__(
        self, *, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> Awaitable[list[float | None]]: ...


def reward_func(scorer: Scorer, *, name: str = "guerdon") -> RewardFunction:
    """An asynchronous reward function around any scorer; `name` is what TRL logs it under.

    Plain text and conversational datasets both work: a text prompt is scored as one user message. Beside the rewards it
    logs, where TRL offers it, the columns `{name}/status` and `{name}/{part}` of the completions table, and the metrics
    `{name}/masked` (share of rows without a reward) and `{name}/disagreement` (mean spread of an ensemble's members).
    """

    async def score(*, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        scores = await _ascore(scorer, _rows(prompts, completions))
        _log(name, scores, columns.get("log_extra"), columns.get("log_metric"))
        return [_value(found) for found in scores]

    score.__name__ = name
    return cast(RewardFunction, score)


def reward_funcs(scorers: Mapping[str, Scorer]) -> list[RewardFunction]:
    """One asynchronous reward function per scorer, named by its key. A row that one of them could not score is None in all.

    Whichever TRL calls first scores the batch with all scorers, side by side; the others take what it found. Give the
    weights to TRL as `reward_weights`. Raises ConfigError without scorers.
    """
    if not scorers:
        raise ConfigError("there are no rewards to make functions of")
    shared = _Shared(scorers)

    def make(name: str) -> RewardFunction:
        async def score(*, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
            found = await shared.scores(name, prompts, completions)
            whole = [all(scores[i].status == "ok" for scores in found.values()) for i in range(len(prompts))]
            _log(name, found[name], columns.get("log_extra"), columns.get("log_metric"))
            return [_value(score) if ok else None for score, ok in zip(found[name], whole, strict=True)]

        score.__name__ = name
        return cast(RewardFunction, score)

    return [make(name) for name in scorers]


class _Shared:
    """The scores of one batch by all scorers, computed once. A batch is known by the very lists that TRL hands round."""

    def __init__(self, scorers: Mapping[str, Scorer]) -> None:
        self.scorers = dict(scorers)
        self.batch: tuple[Any, Any] | None = None
        self.taken: set[str] = set()
        self.task: asyncio.Task[dict[str, list[Score]]] | None = None

    async def scores(self, name: str, prompts: list[Any], completions: list[Any]) -> dict[str, list[Score]]:
        is_same = self.batch is not None and self.batch[0] is prompts and self.batch[1] is completions
        if self.task is None or not is_same or name in self.taken:
            self.batch, self.taken = (prompts, completions), set()
            self.task = asyncio.get_running_loop().create_task(self._all(_rows(prompts, completions)))
        self.taken.add(name)
        task = self.task
        if len(self.taken) == len(self.scorers):  # the next call is a new batch, though it may reuse these lists
            self.batch = self.task = None
        return await asyncio.shield(task)

    async def _all(self, rows: list[Conversation | str]) -> dict[str, list[Score]]:
        found = await asyncio.gather(*(_ascore(scorer, rows) for scorer in self.scorers.values()))
        return dict(zip(self.scorers, found, strict=True))


async def _ascore(scorer: Scorer, rows: list[Conversation | str]) -> list[Score]:
    """Scores without holding up the event loop: the scorer's own `ascore`, or a thread."""
    ascore: Callable[[Sequence[Conversation]], Awaitable[list[Score]]] | None = getattr(scorer, "ascore", None)
    if ascore is None:
        return await asyncio.to_thread(score_rows, scorer, rows)
    usable = [row for row in rows if not isinstance(row, str)]
    scores = await ascore(usable)
    require_all(scores, usable, "the reward")
    found = iter(scores)
    return [Score(0, "error", reason=row) if isinstance(row, str) else next(found) for row in rows]


def _rows(prompts: list[Any], completions: list[Any]) -> list[Conversation | str]:
    return [conversation_of(prompt, answer) for prompt, answer in zip(prompts, completions, strict=True)]


def _value(score: Score) -> float | None:
    return float(score) if score.status == "ok" else None


def _log(
    name: str,
    scores: Sequence[Score],
    log_extra: Callable[[str, list[Any]], None] | None,
    log_metric: Callable[[str, float], None] | None,
) -> None:
    if log_extra is not None:
        said = [s.status if s.status == "ok" else f"{s.status}: {s.reason}" for s in scores]
        log_extra(f"{name}/status", said)
        for part in {part: None for score in scores for part in parts_of(score)}:
            log_extra(f"{name}/{part}", [_value(parts_of(s)[part]) if part in parts_of(s) else None for s in scores])
    if log_metric is not None and scores:
        log_metric(f"{name}/masked", sum(s.status != "ok" for s in scores) / len(scores))
        spread = [s.std for s in scores if s.status == "ok" and s.members]
        if spread:
            log_metric(f"{name}/disagreement", math.fsum(spread) / len(spread))
