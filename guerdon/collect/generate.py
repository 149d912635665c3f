"""Candidates for a study from chat endpoints: each prompt answered n times by one or several models, stored as questions.

Resumable: the id of a question follows from its prompt, models and number of candidates, and a prompt whose question the study
has is not asked again. A question is stored when all of its candidates are there; a prompt for which that fails is counted
with its reason and tried again by the next run. Which model wrote a candidate is stored with the question and never shown.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from guerdon.collect.chat_api import ChatApi, ChatError, Prices, in_parallel
from guerdon.collect.spending import Spending
from guerdon.collect.store import Store
from guerdon.types import ConfigError, Conversation, Message, Question

_TRIES = 3  # for a candidate that is empty, cut off or the same as another
_CHUNK = 20  # questions per transaction
_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>\s*", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """A model behind an endpoint, and what it costs."""

    api: ChatApi
    model: str
    prices: Prices = field(default_factory=Prices)


@dataclass
class Generated:
    """What a run did: questions stored, prompts the study had already, and prompts that failed, by reason."""

    added: int = 0
    known: int = 0
    duplicates: int = 0
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def render(self, study: str) -> str:
        """A few lines for people."""
        lines = [
            f"{study}: {self.added:,} questions added, {self.known:,} prompts asked before, {self.duplicates:,} with candidates "
            f"the study has already, {self.failed:,} prompts failed"
        ]
        common = sorted(self.reasons.items(), key=lambda item: -item[1])[:3]
        lines += [f"  {count:,} times: {reason}" for reason, count in common]
        return "\n".join(lines + (["  the same command tries those again"] if self.failed else []))


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt and the sources of its candidates, in order."""

    id: str
    prompt: tuple[Message, ...]
    sources: tuple[Source, ...]


def generate(
    store: Store,
    study: str,
    prompts: Sequence[Conversation],
    sources: Sequence[Source],
    n: int = 2,
    *,
    name: str = "generated",
    connections: int = 8,
    keep_cut: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Generated:
    """Answer each prompt n times and add the questions to the study.

    With several sources the candidates of prompt i are written by sources i n, i n + 1, ... in turn, so that over the prompts
    each meets each other equally often. Answers that were cut off at the token limit are kept only with `keep_cut`.
    Raises ConfigError when the study wants another number of candidates, ChatError when no call can succeed.
    """
    settings = store.study(study).settings
    if n < 2 or settings.k not in (0, n):
        wanted = settings.k or "2 or more"
        raise ConfigError(f"study {study!r} has questions with {wanted} candidates, not {n}; change -n")
    have = {question.id for question in store.questions(study)}
    todo = list(jobs(prompts, sources, n))
    result = Generated(known=sum(job.id in have for job in todo))
    spending = [Spending(store, study, source.model, "generate", source.api.usage, source.prices) for source in sources]
    ready: list[Question] = []

    def work(job: Job) -> Question:
        return _question(job, name, keep_cut)

    def flush(least: int) -> None:
        if len(ready) >= least:
            done = store.add_questions(study, ready)
            result.added, result.duplicates = result.added + done.added, result.duplicates + done.duplicates
            ready.clear()

    try:
        for _, outcome in in_parallel((job for job in todo if job.id not in have), work, connections):
            if isinstance(outcome, ChatError):
                result.failed += 1
                result.reasons[str(outcome)] = result.reasons.get(str(outcome), 0) + 1
            else:
                ready.append(outcome)
            flush(_CHUNK)
            for one in spending:
                one.note()
            advance(1)
    finally:
        flush(1)
        for one in spending:
            one.note(last=True)
    return result


def jobs(prompts: Sequence[Conversation], sources: Sequence[Source], n: int) -> Iterator[Job]:
    """One job for each prompt, with the sources of its candidates."""
    for i, prompt in enumerate(prompts):
        chosen = tuple(sources[(i * n + j) % len(sources)] for j in range(n))
        messages = tuple(Message(role=m["role"], content=m["content"]) for m in prompt)
        models = sorted({source.model for source in sources})
        digest = hashlib.sha256(json.dumps([messages, models, n], ensure_ascii=False).encode("utf-8", "surrogatepass"))
        yield Job(f"gen-{digest.hexdigest()[:16]}", messages, chosen)


def _question(job: Job, name: str, keep_cut: bool) -> Question:
    """All candidates of one prompt. Raises ChatError when one of them cannot be had."""
    texts: list[str] = []
    for source in job.sources:
        texts.append(_candidate(job, source, texts, keep_cut))
    return Question(
        prompt=job.prompt,
        completions=tuple((Message(role="assistant", content=text),) for text in texts),
        models=tuple(source.model for source in job.sources),
        source=name,
        id=job.id,
    )


def _candidate(job: Job, source: Source, others: Sequence[str], keep_cut: bool) -> str:
    """An answer that is whole, not empty, and not one of the others; its thinking is left out."""
    reason = ""
    for _ in range(_TRIES):
        reply = source.api.ask(source.model, job.prompt)
        text = _THINKING.sub("", reply.text).strip()
        if reply.finish == "length" and not keep_cut:
            reason = "was cut off at the token limit; raise --max-tokens"
        elif reply.finish == "content_filter":
            reason = "was stopped by the server's content filter"
        elif not text or re.match(r"<think", text, re.IGNORECASE):
            reason = "is empty"
        elif text in others:
            reason = "is the same as another candidate; raise --temperature"
        else:
            return text
    raise ChatError(f"{source.model}: an answer {reason}, {_TRIES} times")
