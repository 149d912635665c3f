"""Judgements as files: one self-contained event per line, written whole or not at all, read back exactly.

In: `Judgement`s. Out: JSON Lines, gzipped when the name ends in .gz; and back. Nothing is aggregated here: skips, flags
and judgements that were later replaced are all in the file, as they happened. `labels.py` makes comparisons of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from guerdon.data.containers import describe
from guerdon.data.fields import Data, answers_of, need, need_list, number
from guerdon.data.messages import Unusable, messages_of, turns_of
from guerdon.data.write import compact, opened
from guerdon.files import replacing
from guerdon.types import Answer, Arm, DataError, Judgement, Question, RaterKind

TIMES = ("shown_at", "first_input_at", "submitted_at")


def write_judgements(path: str | Path, judgements: Iterable[Judgement]) -> int:
    """Write judgements in the order given, replacing the file; returns how many.

    Nothing is left behind when one cannot be written. Raises DataError for a value that JSON cannot hold (infinity, half
    a surrogate pair), naming the judgement, and ConfigError when the disk refuses.
    """
    target, count = Path(path), 0
    with replacing(target) as temporary, opened(temporary, target.suffix == ".gz") as file:
        for judgement in judgements:
            file.write(_line(judgement))
            count += 1
    return count


def is_judgement(data: Data) -> bool:
    """True for a row as `to_row` makes it."""
    return all(name in data for name in ("judgement", "rater", "question", "answer"))


def to_row(judgement: Judgement) -> dict[str, Any]:
    """The JSON object of a judgement; what was not asked or not recorded is left out."""
    row: dict[str, Any] = {
        "judgement": judgement.id,
        "rater": judgement.rater,
        "kind": judgement.kind,
        "question": question_row(judgement.question),
        "order": list(judgement.order),
    }
    return row | answer_row(judgement)


def answer_row(judgement: Judgement) -> dict[str, Any]:
    """Everything that the rater and the study added to the question: the part of a row that fits beside other formats."""
    row: dict[str, Any] = {"answer": judgement.answer}
    if judgement.ranks:
        row["ranks"] = list(judgement.ranks)
    if judgement.strength is not None:
        row["strength"] = judgement.strength
    if judgement.attributes:
        row["attributes"] = {name: list(values) for name, values in judgement.attributes.items()}
    row |= {name: text for name in ("rationale", "edited", "replaces") if (text := getattr(judgement, name))}
    row |= {name: time for name in TIMES if not math.isnan(time := getattr(judgement, name))}
    if judgement.guideline:
        row["guideline"] = judgement.guideline
    row["arm"] = judgement.arm
    if judgement.probability is not None:
        row["probability"] = judgement.probability
    return row


def question_row(question: Question) -> dict[str, Any]:
    """The JSON object of a question. One user message is written as text, and so is one assistant message."""
    row: dict[str, Any] = {"id": question.id}
    if question.source:
        row["source"] = question.source
    row["prompt"] = compact(question.prompt, "user")
    row["completions"] = [compact(answer, "assistant") for answer in question.completions]
    if question.models:
        row["models"] = list(question.models)
    return row


def from_row(data: Data, cache: dict[str, Question] | None = None) -> Judgement:
    """The judgement of a row. Raises DataError when something is missing or of the wrong kind.

    `cache` lets judgements of one question share its texts in memory.
    """
    raw = need(data, "question")
    if not isinstance(raw, Mapping):
        raise DataError(f"'question' is {describe(raw)}; write an object with 'prompt' and 'completions'")
    if cache is None:
        question = question_of(raw)
    else:
        key = json.dumps(raw)
        question = cache[key] if key in cache else cache.setdefault(key, question_of(raw))
    return judgement_of(
        data, question, _text(data, "judgement"), _text(data, "rater"), data.get("kind", "human"), data.get("order")
    )


def judgement_of(data: Data, question: Question, id: str, rater: str, kind: object, order: object) -> Judgement:
    """A judgement from its parts and from an `answer_row`. Raises DataError when one is of the wrong kind."""
    return Judgement(
        id=id,
        rater=rater,
        kind=_one_of(kind, "kind", get_args(RaterKind)),
        question=question,
        order=tuple(_whole(item, "order") for item in _list(order, "order")),
        answer=_one_of(data.get("answer"), "answer", get_args(Answer)),
        ranks=tuple(_number(item, "ranks") for item in _list(data.get("ranks"), "ranks")),
        strength=number(data.get("strength"), "strength"),
        attributes=_attributes(data.get("attributes")),
        rationale=_text(data, "rationale", ""),
        edited=_text(data, "edited", ""),
        shown_at=_time(data, "shown_at"),
        first_input_at=_time(data, "first_input_at"),
        submitted_at=_time(data, "submitted_at"),
        guideline=_whole(data.get("guideline") or 0, "guideline"),
        replaces=_text(data, "replaces", ""),
        arm=_one_of(data.get("arm", "given"), "arm", get_args(Arm)),
        probability=number(data.get("probability"), "probability"),
    )


def question_of(data: Data) -> Question:
    """The question of an object as `question_row` makes it, or of any row with `prompt` and `completions`.

    Raises DataError when it cannot be asked: a missing column, an empty or a single completion.
    """
    try:
        return Question(
            prompt=_prompt(data.get("prompt")),
            completions=answers_of(need_list(data, "completions"), "completions"),
            models=tuple(str(model) for model in _list(data.get("models"), "models")),
            source=_text(data, "source", ""),
            id=_text(data, "id", ""),
        )
    except Unusable as reason:
        raise DataError(f"question {data.get('id', '')!r}: {reason}; give at least two answers with text") from None


def _prompt(value: object) -> Any:
    return messages_of(value, "prompt") if isinstance(value, list | tuple) else turns_of(value, "prompt", "user")


def _text(data: Data, name: str, default: str | None = None) -> str:
    value = data.get(name, default) if default is not None else need(data, name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise DataError(f"{name!r} is {describe(value)}; write text")
    return value


def _list(value: object, name: str) -> list[Any] | tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise DataError(f"{name!r} is {describe(value)}; write a list")
    return value


def _number(value: object, name: str) -> float:
    found = number(value, name)
    if found is None:
        raise DataError(f"{name!r} holds null; write a number for each candidate")
    return found


def _whole(value: object, name: str) -> int:
    found = _number(value, name)
    if found != int(found):
        raise DataError(f"{name!r} is {found}; write a whole number")
    return int(found)


def _time(data: Data, name: str) -> float:
    found = number(data.get(name), name)
    return math.nan if found is None else found


def _attributes(value: object) -> dict[str, tuple[float | None, ...]]:
    if not isinstance(value, Mapping | None):
        raise DataError(f"'attributes' is {describe(value)}; write an object of lists, one rating per candidate")
    return {
        str(name): tuple(number(rating, f"attributes.{name}") for rating in _list(ratings, f"attributes.{name}"))
        for name, ratings in (value or {}).items()
    }


def _one_of(value: object, name: str, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise DataError(f"{name!r} is {value!r}; write one of {', '.join(allowed)}")
    return value


def _line(judgement: Judgement) -> bytes:
    try:
        return json.dumps(to_row(judgement), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError as error:  # UnicodeEncodeError is one too
        cause = "half a surrogate pair" if isinstance(error, UnicodeEncodeError) else "a number that is not finite"
        raise DataError(f"judgement {judgement.id}: holds {cause}, which cannot be written") from None
