"""Between the rater's browser and the store: a question as the screen shows it, an answer as a judgement.

The browser knows positions on the screen; the store knows candidates. Which candidate stood where is known here only, and
nothing that goes out says which kind of item it is (training apart), where an answer came from, or who judged it before.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from guerdon.collect.masking import mask
from guerdon.collect.records import Assignment, Feedback, Progress
from guerdon.collect.settings import Settings
from guerdon.collect.show import markup, plain
from guerdon.types import Answer, DataError, Judgement, Message

ANSWERS: tuple[Answer, ...] = ("ranked", "all_bad", "skip", "flag")
LONGEST_REASON, LONGEST_EDIT = 10_000, 200_000  # characters
WHO = {
    "user": "Person",
    "assistant": "Assistant",
    "system": "Instructions",
    "developer": "Instructions",
    "tool": "Tool",
}


def shown(assignment: Assignment, settings: Settings) -> dict[str, Any]:
    """A question for the screen: markup ready to be put in, answers in the order of the positions."""
    question = assignment.question
    asked = "\n".join(message["content"] for message in question.prompt if message["role"] == "user")
    answers = [question.completions[candidate] for candidate in assignment.order]
    return {
        "assignment": assignment.id,
        "training": assignment.arm == "training",
        "guideline": assignment.guideline,
        "expires": assignment.expires,
        "replaces": assignment.replaces,
        "prompt": [turn(message, asked, settings.mask) for message in question.prompt],
        "answers": [
            {
                "turns": [turn(message, asked, settings.mask) for message in answer],
                "text": hidden(answer[-1]["content"], asked, settings.mask),
            }
            for answer in answers
        ],
    }


def found_in(assignment: Assignment, settings: Settings) -> list[tuple[str, str]]:
    """(place, word) of every name of a model that the screen hides: `prompt` or `candidate:I`."""
    question = assignment.question
    asked = "\n".join(message["content"] for message in question.prompt if message["role"] == "user")
    parts = [("prompt", question.prompt)]
    parts += [(f"candidate:{i}", answer) for i, answer in enumerate(question.completions)]
    return [
        (place, found.word)
        for place, messages in parts
        for m in messages
        for found in mask(m["content"], m["content"] if m["role"] == "user" else asked, settings.mask).found
    ]


def turn(message: Message, asked: str, words: tuple[str, ...]) -> dict[str, str]:
    """One message: who speaks, and what, as inert markup. Names of models are masked in what is not the person's own."""
    role = message["role"]
    text = hidden(message["content"], message["content"] if role == "user" else asked, words)
    return {"role": role, "who": WHO.get(role, "Other"), "html": plain(text) if role == "tool" else markup(text)}


@lru_cache(maxsize=4096)
def hidden(text: str, asked: str, words: tuple[str, ...]) -> str:
    return mask(text, asked, words).text


def read(sent: Any, assignment: Assignment, rater: str, attributes: Collection[str]) -> Judgement:
    """What a browser sent, as a judgement on `assignment`. Raises DataError, in words for the rater.

    What the settings ask for is the screen's business: an answer given under settings that have changed since is an answer
    all the same, so only what cannot be read is refused. `attributes` are those of all versions of the settings.
    """
    if not isinstance(sent, dict):
        raise DataError("an answer is a JSON object")
    k = len(assignment.order)
    answer = sent.get("answer")
    if answer not in ANSWERS:
        raise DataError(f"the answer must be one of {', '.join(ANSWERS)}")
    ranks = _by_candidate(_numbers(sent.get("ranks"), k, "ranks"), assignment.order) if answer == "ranked" else ()
    return Judgement(
        id=_id(sent.get("id"), "id"),
        rater=rater,
        kind="human",
        question=assignment.question,
        order=assignment.order,
        answer=answer,
        ranks=ranks,
        strength=_strength(sent.get("strength")) if answer == "ranked" else None,
        attributes=_attributes(sent.get("attributes"), assignment.order, attributes),
        rationale=_text(sent.get("rationale"), LONGEST_REASON, "reason"),
        edited=_text(sent.get("edited"), LONGEST_EDIT, "edited answer") if answer == "ranked" else "",
        shown_at=_time(sent.get("shown_at")),
        first_input_at=_time(sent.get("first_input_at")),
        submitted_at=_time(sent.get("submitted_at")),
        guideline=assignment.guideline,
        replaces=_id(sent["replaces"], "replaces") if sent.get("replaces") else assignment.replaces,
        arm=assignment.arm,
        probability=assignment.probability,
    )


def lesson(feedback: Feedback, order: Sequence[int]) -> dict[str, Any]:
    """What a training item teaches, in positions."""
    return {
        "right": feedback.right,
        "ranks": [feedback.ranks[candidate] for candidate in order],
        "html": markup(feedback.why) if feedback.why else "",
    }


def standing(progress: Progress) -> dict[str, Any]:
    """Where a rater stands, for the line on top."""
    return {
        "standing": progress.standing,
        "state": progress.state,
        "items": progress.items,
        "left": to_go(progress),
        "training_done": progress.training_done,
        "training_total": progress.training_total,
    }


def to_go(progress: Progress) -> int:
    """About how many questions are left, in fives: an item that does not count would give itself away otherwise."""
    return -(-progress.left // 5) * 5


def number_of(sent: Any) -> int:
    """The assignment that an answer names. Raises DataError."""
    number = sent.get("assignment") if isinstance(sent, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**31:
        raise DataError("the answer names no question")
    return number


def _by_candidate(values: Sequence[float], order: Sequence[int]) -> tuple[float, ...]:
    found = [0.0] * len(order)
    for position, candidate in enumerate(order):
        found[candidate] = values[position]
    return tuple(found)


def _numbers(values: Any, k: int, what: str) -> list[float]:
    if not isinstance(values, list) or len(values) != k or not all(map(_is_number, values)):
        raise DataError(f"{what} must be {k} numbers")
    return [float(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6  # NaN is not below


def _strength(value: Any) -> float | None:
    if value is None:
        return None
    if value not in (1, 2, 3):
        raise DataError("how much better must be 1, 2 or 3")
    return float(value)


def _attributes(sent: Any, order: Sequence[int], known: Collection[str]) -> Mapping[str, tuple[float | None, ...]]:
    if sent is None:
        return {}
    if not isinstance(sent, dict) or not sent.keys() <= set(known):
        raise DataError(f"the ratings must name attributes of this study: {', '.join(known) or 'it has none'}")
    found: dict[str, tuple[float | None, ...]] = {}
    for name, values in sent.items():
        if not (isinstance(values, list) and len(values) == len(order)):
            raise DataError(f"each attribute needs {len(order)} ratings")
        if not all(value is None or (_is_number(value) and 1 <= value <= 10) for value in values):
            raise DataError("a rating is a number from 1 to 10, or missing")
        place = {candidate: position for position, candidate in enumerate(order)}
        rated = [values[place[candidate]] for candidate in range(len(order))]
        if any(value is not None for value in rated):
            found[name] = tuple(None if value is None else float(value) for value in rated)
    return found


def _text(value: Any, most: int, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"the {what} must be text")
    if len(value) > most:
        raise DataError(f"the {what} has {len(value)} characters; at most {most} are kept")
    return value.encode("utf-8", "replace").decode().replace("\x00", "")


def _id(value: Any, what: str) -> str:
    if (
        not isinstance(value, str)
        or not 8 <= len(value) <= 64
        or not value.replace("-", "").isalnum()
        or not value.isascii()
    ):
        raise DataError(f"{what} must be a UUID")
    return value


def _time(value: Any) -> float:
    """Seconds since 1970 by the rater's clock; NaN when it is no time of this century."""
    sane = isinstance(value, int | float) and not isinstance(value, bool) and 946_684_800 < value < 4_102_444_800
    return float(value) if sane else math.nan
