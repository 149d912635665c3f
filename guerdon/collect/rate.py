"""A study judged by a model: every question in two opposite orders, stored as two judgements of kind `model`.

Resumable: what is stored is not asked again, and the id of a judgement follows from study, question, rater and order, so that
nothing can be stored twice. Answers that cannot be read, and calls that fail, are counted and handed to `unread`; they are
asked again by the next run.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from guerdon.collect import ai_rater
from guerdon.collect.both_orders import BothOrders, both_orders
from guerdon.collect.chat_api import ChatApi, ChatError, Prices, in_parallel, money
from guerdon.collect.names import fitted
from guerdon.collect.spending import Spending
from guerdon.collect.store import Store
from guerdon.types import DataError, Judgement, Question

_NAMES = uuid.UUID("6f1c7d0e-6f0b-4d0c-9a52-0d8f0b6f3a11")
PREFIX = "ai/"  # of the names of models as raters
CHARACTERS_PER_TOKEN = 4.0  # of English text; only the estimate of --dry-run uses it
ANSWER_TOKENS = 150  # likewise: a short reason and the verdict


@dataclass(frozen=True, slots=True)
class Job:
    """One call: a question, and the order in which its candidates are shown."""

    question: Question
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unread:
    """A call that gave no judgement: why, and what the model said (empty when the call failed)."""

    question: str
    order: tuple[int, ...]
    reason: str
    reply: str


@dataclass
class Rated:
    """What a run did, and what all judgements of this rater say about its leaning to one position."""

    rater: str
    stored: int = 0
    unreadable: int = 0
    failed: int = 0
    stopped: bool = False
    orders: BothOrders | None = None
    reasons: dict[str, int] = field(default_factory=dict)

    def render(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.rater}: {self.stored:,} judgements stored, {self.unreadable:,} replies without a readable verdict, "
            f"{self.failed:,} calls without a reply"
        ]
        common = sorted(self.reasons.items(), key=lambda item: -item[1])[:3]
        lines += [f"  {count:,} times: {reason}" for reason, count in common]
        lines += ["  stopped: the budget is spent; run again with a larger one to go on"] if self.stopped else []
        lines += ["  the same command asks for those again"] if self.unreadable or self.failed else []
        lines += [self.orders.render()] if self.orders and self.orders.questions else []
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take: questions, calls (two each), tokens as estimated from characters, and the cost at these prices."""

    questions: int
    calls: int
    prompt_tokens: int
    answer_tokens: int
    cost: float | None

    def render(self) -> str:
        """One line for people."""
        cost = (
            f"about {money(self.cost)}" if self.cost is not None else "unknown (give --price-prompt and --price-answer)"
        )
        return (
            f"{self.questions:,} questions left, {self.calls:,} calls: about {self.prompt_tokens:,} prompt tokens (characters / "
            f"{CHARACTERS_PER_TOKEN:g}) and {self.answer_tokens:,} answer tokens; cost {cost}. Nothing was asked."
        )


def rater_name(model: str, guide: ai_rater.Guide) -> str:
    """The name under which a model's judgements are stored; another rubric or constitution makes another rater."""
    return fitted(f"{PREFIX}{guide.name}/{model}", 120)


def jobs(store: Store, study: str, rater: str, limit: int | None = None) -> Iterator[Job]:
    """The calls that are still to be made: first the missing halves of questions asked one way, then the others.

    `limit` is the number of further questions. They come in the random order of the study.
    """
    half: dict[str, list[Judgement]] = {}
    for judgement in store.current(study, kinds=("model",)):
        if judgement.rater == rater:
            half.setdefault(judgement.question.id, []).append(judgement)
    for known in half.values():
        question = known[0].question
        yield from (Job(question, order) for order in orders_of(question) if order not in {j.order for j in known})
    for question in islice(store.unrated(study, rater), limit):
        yield from (Job(question, order) for order in orders_of(question))


def orders_of(question: Question) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """An order that depends on the question alone, and its reverse."""
    k = len(question.completions)
    start = uuid.uuid5(_NAMES, question.id).int % k
    order = tuple((start + position) % k for position in range(k))
    return order, order[::-1]


def rate(
    store: Store,
    study: str,
    api: ChatApi,
    model: str,
    guide: ai_rater.Guide,
    *,
    limit: int | None = None,
    most: float | None = None,
    prices: Prices | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
    unread: Callable[[Unread], None] = lambda row: None,
) -> Rated:
    """Ask the model about every question it has not judged yet, at most `limit`, and store what it says.

    Stops before the next call once `most` is spent. Raises ChatError when no call can succeed (a wrong key, no such model);
    what was stored stays.
    """
    prices, rater = prices or Prices(), rater_name(model, guide)
    words = store.study(study).settings.mask
    result, spending = Rated(rater), Spending(store, study, rater, "rate", api.usage, prices)

    def work(job: Job) -> tuple[float, str, str]:
        asked = time.time()
        reply = api.ask(model, ai_rater.ask(job.question, job.order, guide, words=words, seed=seed))
        return asked, reply.text, reply.finish

    def affordable() -> Iterator[Job]:
        for job in jobs(store, study, rater, limit):
            if most is not None and (api.usage.cost(prices) or 0.0) >= most:
                result.stopped = True
                return
            yield job

    try:
        for job, outcome in in_parallel(affordable(), work, api.connections):
            spending.note()
            if isinstance(outcome, ChatError):
                _failed(result, unread, job, str(outcome), "")
            else:
                _store(store, study, result, unread, job, outcome, guide, seed)
            advance(1)
    finally:
        spending.note(last=True)
    result.orders = both_orders(j for j in store.current(study, kinds=("model",)) if j.rater == rater)
    return result


def estimate(
    todo: Sequence[Job], guide: ai_rater.Guide, prices: Prices, *, answer_tokens: int = ANSWER_TOKENS, seed: int = 0
) -> Estimate:
    """What these calls would cost, without making any: characters / 4 as tokens, `answer_tokens` for each answer."""
    characters = sum(len(m["content"]) for job in todo for m in ai_rater.ask(job.question, job.order, guide, seed=seed))
    prompt, answers = round(characters / CHARACTERS_PER_TOKEN), answer_tokens * len(todo)
    questions = len({job.question.id for job in todo})
    return Estimate(questions, len(todo), prompt, answers, prices.cost(prompt, answers))


def _store(
    store: Store,
    study: str,
    result: Rated,
    unread: Callable[[Unread], None],
    job: Job,
    outcome: tuple[float, str, str],
    guide: ai_rater.Guide,
    seed: int,
) -> None:
    asked, text, finish = outcome
    try:
        verdict = ai_rater.read(text, job.order, finish)
        judgement = _judgement(study, result.rater, job, verdict, guide, seed, asked)
        result.stored += store.submit(judgement, study) == "stored"
    except ai_rater.Unreadable as error:
        result.unreadable += 1
        _count(result, unread, job, str(error), text)
    except DataError as error:  # the question changed, or another process stored the same judgement meanwhile
        _failed(result, unread, job, str(error), text)


def _judgement(
    study: str, rater: str, job: Job, verdict: ai_rater.Verdict, guide: ai_rater.Guide, seed: int, asked: float
) -> Judgement:
    number = guide.for_question(job.question.id, seed)[1]
    values: dict[str, Any] = {"ranks": verdict.ranks, "strength": verdict.strength}
    return Judgement(
        id=str(uuid.uuid5(_NAMES, "\n".join((study, job.question.id, rater, str(list(job.order)))))),
        rater=rater,
        kind="model",
        question=job.question,
        order=job.order,
        answer=verdict.answer,
        rationale=f"[principle {number}] {verdict.reason}" if number else verdict.reason,
        shown_at=asked,
        submitted_at=time.time(),
        **values,
    )


def _failed(result: Rated, unread: Callable[[Unread], None], job: Job, reason: str, reply: str) -> None:
    result.failed += 1
    _count(result, unread, job, reason, reply)


def _count(result: Rated, unread: Callable[[Unread], None], job: Job, reason: str, reply: str) -> None:
    result.reasons[reason] = result.reasons.get(reason, 0) + 1
    unread(Unread(job.question.id, job.order, reason, reply))
