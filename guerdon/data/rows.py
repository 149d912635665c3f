"""Rows to be scored: conversations out of prompts with one or N completions, whole conversations, or preference rows.

In: any file, folder or hub set that `containers` reads. Out: one `ScoreRow` per raw row, in order, in constant memory.
A row that cannot be scored says why instead of stopping the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from guerdon.data.containers import Row, columns, describe, stream
from guerdon.data.formats import FORMATS, recognise
from guerdon.data.messages import (
    Messages,
    Unusable,
    is_transcript,
    messages_of,
    text_of,
    transcript_of,
    turns_of,
)
from guerdon.types import Conversation, DataError, Judgement

_ONE = ("completion", "response")
_MANY = ("completions", "responses")
_WHOLE = ("messages", "conversation")


class ScoreRow(NamedTuple):
    """`index` counts rows from 0 over all files; `problem` is set, and `conversations` empty, when none can be made."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    raw: dict[str, Any]
    conversations: list[Conversation]
    problem: str | None


class _UnknownColumns(DataError):
    """A row whose columns are those of no format."""


def stream_conversations(path: str | os.PathLike[str]) -> Iterator[ScoreRow]:
    """One `ScoreRow` per row. Raises DataError for files that cannot be read; see the page `data` for the columns."""
    for index, row in enumerate(stream(path)):
        try:
            yield ScoreRow(index, row.data, conversations_of(row), None)
        except (DataError, Unusable) as error:
            yield ScoreRow(index, row.data, [], str(error))


def load_prompts(paths: Sequence[str | os.PathLike[str]]) -> list[Conversation]:
    """The different prompts of files, folders or hub sets, in order: what a policy is asked.

    A row with `prompt` gives that; any other row what `conversations_of` finds, without the answer. Raises DataError, with
    file and line, for a row that has no prompt and when there is none at all.
    """
    found: dict[tuple[tuple[str, str], ...], Conversation] = {}
    for path in paths:
        for row in stream(path):
            try:
                prompt = prompt_of(row)
            except (DataError, Unusable) as error:
                raise DataError(f"{row.place}: {error}") from error
            found.setdefault(tuple((m["role"], m["content"]) for m in prompt), prompt)
    if not found:
        raise DataError(f"{', '.join(map(str, paths)) or 'no file'}: holds no prompt")
    return list(found.values())


def prompt_of(row: Row) -> Conversation:
    """The prompt of one row: its `prompt`, or what `conversations_of` finds without the answer.

    Raises DataError or Unusable when there is none.
    """
    try:
        prompt = _prompt(row.data) if row.data.get("prompt") is not None else conversations_of(row)[0][:-1]
    except _UnknownColumns:
        raise DataError(
            f"no prompt in the columns {columns(row.data)}; give prompt, messages, or a row of comparisons"
        ) from None
    if not prompt:
        raise DataError("holds no prompt; give a column `prompt`")
    return prompt


def conversations_of(row: Row) -> list[Conversation]:
    """The conversations of one row, in the order of its completions, or chosen before rejected.

    Raises DataError or Unusable when the row has none.
    """
    data = row.data
    whole, one, many = (_present(data, names) for names in (_WHOLE, _ONE, _MANY))
    if many is not None and not _is_ranked(data[many]):
        return _joined(_prompt(data), _list(data[many], many), many)
    if one is not None:
        return _joined(_prompt(data), [data[one]], one)
    if whole is not None:
        return [_conversation(data[whole], whole)]
    # A preference row. Its margin does not matter here, so a bad one must not keep the row from being scored.
    data = {name: value for name, value in data.items() if name != "margin"}
    try:
        form = FORMATS[recognise([row])]
    except DataError:
        raise _UnknownColumns(
            f"nothing to score in the columns {columns(data)}; give prompt with completion or completions, messages, "
            "or chosen with rejected"
        ) from None
    if form.judge:
        return _asked(form.judge(data))
    return form.convert(data).conversations()


def _asked(judgements: Sequence[Judgement]) -> list[Conversation]:
    """The candidates of a row of judgements, whatever was answered."""
    if not judgements:
        raise DataError("holds no judgement; give a row with one")
    question = judgements[0].question
    return [question.prompt + completion for completion in question.completions]


def _present(data: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if data.get(name) is not None), None)


def _is_ranked(value: object) -> bool:
    """NeMo keeps each completion in an object with its rank; `formats.nemo` reads those."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "completion" in value[0]


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{name!r} is {'an empty list' if value == [] else describe(value)}; write a list of completions"
        )
    return value


def _prompt(data: Mapping[str, Any]) -> Messages:
    prompt = data.get("prompt")
    if is_transcript(prompt) and str(prompt).rstrip().endswith("Assistant:"):
        return transcript_of(str(prompt), "prompt")[:-1]  # the last turn is the empty one the completion fills
    return turns_of(prompt, "prompt", "user")


def _joined(prompt: Messages, completions: list[Any], name: str) -> list[Conversation]:
    answers = [_answer(value, name) for value in completions]
    return [
        answer if prompt and len(answer) > len(prompt) and answer[: len(prompt)] == prompt else prompt + answer
        for answer in answers
    ]


def _answer(value: object, name: str) -> Messages:
    """An empty text is an answer here: a policy may well give one, and it has a score."""
    if isinstance(value, str):
        return ({"role": "assistant", "content": text_of(value, name)},)
    answer = messages_of(value, name)
    if not answer:
        raise DataError(f"{name!r} holds an empty message list; write at least one message")
    return answer


def _conversation(value: object, name: str) -> Messages:
    if is_transcript(value):
        return transcript_of(str(value), name)
    return _answer(value, name)
