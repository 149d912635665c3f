"""Rewards that are checked rather than learned: the right answer, a form, a length, the gold reward of the lab.

Each is a `Scorer`. They judge the answer of a conversation: the text of its last message, which must be the assistant's.
The prompt is everything up to the last user message. A conversation without an answer gets status `error`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

import regex

from guerdon.data.containers import columns, describe, stream
from guerdon.data.messages import turns_of
from guerdon.lab.gold import gold
from guerdon.optimize.final_answer import grade, same_answer
from guerdon.types import ConfigError, Conversation, DataError, Score

Unit = Literal["words", "tokens"]
PromptKey = tuple[tuple[str, str], ...]
_MATCH_SECONDS = 1.0  # for one answer; a policy will find the text on which a pattern backtracks for hours


def answer_of(conversation: Conversation) -> str | None:
    """The text to judge; None when the conversation does not end with the assistant."""
    return conversation[-1]["content"] if conversation and conversation[-1]["role"] == "assistant" else None


def prompt_key(conversation: Conversation) -> PromptKey:
    """What a prompt is known by: role and stripped text of its messages up to the last user turn, system messages aside."""
    last = max((i for i, message in enumerate(conversation) if message["role"] == "user"), default=-1)
    return tuple(
        (message["role"], message["content"].strip())
        for message in conversation[: last + 1]
        if message["role"] not in ("system", "developer")
    )


def _judged(conversations: Sequence[Conversation], judge: Callable[[Conversation, str], Score]) -> list[Score]:
    found = []
    for conversation in conversations:
        answer = answer_of(conversation)
        missing = Score(0, "error", reason="the conversation does not end with an assistant message")
        found.append(missing if answer is None else judge(conversation, answer))
    return found


class Answer:
    """1 where the answer is right, 0 where it is wrong or none is given; `masked` where the right answer is not known.

    answers  prompt (text, or messages) -> the right answer, or several of which any will do
    whole    the whole text must be the answer, instead of its final answer (see `final_answer`)
    """

    def __init__(self, answers: Mapping[PromptKey | str, str | Sequence[str]], *, whole: bool = False) -> None:
        if not answers:
            raise ConfigError("there are no right answers to compare with")
        self.answers = {
            ((("user", key.strip()),) if isinstance(key, str) else key): ((value,) if isinstance(value, str) else tuple(value))
            for key, value in answers.items()
        }  # fmt: skip
        self.same = same_answer if whole else grade

    @classmethod
    def read(cls, path: str, *, whole: bool = False) -> Answer:
        """From a file of rows with `prompt` (text or messages) and `answer` (text, number, or a list of them).

        Raises DataError, with file and line, for a row without them and for a prompt that has two different answers.
        """
        answers: dict[PromptKey | str, tuple[str, ...]] = {}
        for row in stream(path):
            try:
                if "prompt" not in row.data or "answer" not in row.data:
                    raise DataError(f"has {columns(row.data)}; give 'prompt' and 'answer'")
                key, values = prompt_key(turns_of(row.data["prompt"], "prompt", "user")), _answers(row.data["answer"])
                if not key:
                    raise DataError("the prompt has no user message")
                if answers.setdefault(key, values) != values:
                    raise DataError("the same prompt stands above with another answer; give a list of those that count")
            except DataError as error:
                raise DataError(f"{row.place}: {error}") from error
        return cls(answers, whole=whole)

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return _judged(conversations, self._one)

    def _one(self, conversation: Conversation, answer: str) -> Score:
        expected = self.answers.get(prompt_key(conversation))
        if expected is None:
            return Score(0, "masked", reason="no right answer is known for this prompt")
        return Score(float(any(self.same(answer, right) for right in expected)))


def _answers(value: object) -> tuple[str, ...]:
    values: Iterable[object] = value if isinstance(value, list) else [value]
    found = []
    for item in values:
        if isinstance(item, bool) or not isinstance(item, str | int | float) or not str(item).strip():
            raise DataError(f"'answer' is {describe(item)}; write text, a number, or a list of them")
        found.append(str(item))
    if not found:
        raise DataError("'answer' is an empty list; write at least one")
    return tuple(found)


class Format:
    """1 where the whole answer, stripped of white space around it, matches the regular expression; else 0.

    A dot also matches line ends. A match that takes longer than a second is given up: status `error`.
    Raises ConfigError when the expression is not one.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self.pattern = regex.compile(pattern, regex.DOTALL)
        except regex.error as error:
            raise ConfigError(f"format '{pattern}' is not a regular expression: {error}") from error

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return _judged(conversations, self._one)

    def _one(self, _: Conversation, answer: str) -> Score:
        try:
            return Score(float(self.pattern.fullmatch(answer.strip(), timeout=_MATCH_SECONDS) is not None))
        except TimeoutError:
            return Score(0, "error", reason=f"matching the format took more than {_MATCH_SECONDS:g} s; simplify it")


class Length:
    """Minus the number of words or tokens by which an answer misses the range [low, high]; 0 inside it.

    unit    `words`: runs without white space; `tokens`: what `count` says, usually the policy's tokenizer
    count   tokens in a text, without special tokens; needed for `tokens` only

    The weight of this part in a sum is the price of one word or token. Raises ConfigError for an empty or negative range,
    and for tokens that nobody counts.
    """

    def __init__(self, unit: Unit, low: int, high: int, count: Callable[[str], int] | None = None) -> None:
        if unit not in get_args(Unit):
            raise ConfigError(f"length in '{unit}' is not known; choose words or tokens")
        if not 0 <= low <= high:
            raise ConfigError(f"length from {low} to {high} {unit} is no range; write the smaller number first, from 0")
        if unit == "tokens" and count is None:
            raise ConfigError("length in tokens needs a tokenizer, and there is none here; give the length in words")
        self.unit, self.low, self.high = unit, low, high
        self.count = count if unit == "tokens" and count is not None else _words

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return _judged(conversations, self._one)

    def _one(self, _: Conversation, answer: str) -> Score:
        n = self.count(answer)
        return Score(-float(max(self.low - n, 0, n - self.high)) + 0.0, tokens=n if self.unit == "tokens" else 0)


def _words(text: str) -> int:
    return len(text.split())


class LabGold:
    """The lab's gold reward of an answer to the last user message, in [0, 1]; see `guerdon.lab.gold`."""

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return _judged(conversations, self._one)

    def _one(self, conversation: Conversation, answer: str) -> Score:
        prompt = next((message["content"] for message in reversed(conversation) if message["role"] == "user"), "")
        return Score(gold(prompt, answer))
