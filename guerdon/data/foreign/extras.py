"""What other formats have no column for, kept beside a row so that it is read back exactly.

LMArena votes, Label Studio tasks and Argilla records have room for further columns or metadata. What they cannot say in
their own words (order shown, times, arm, probability, attributes, ...) goes there under the name `guerdon`. A row that
another tool made has none, and is read from its own columns alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from guerdon.data.containers import describe
from guerdon.data.fields import Data
from guerdon.data.judgements import answer_row, judgement_of
from guerdon.types import DataError, Judgement, Question

KEY = "guerdon"


def extras_of(judgement: Judgement) -> dict[str, Any]:
    """Everything about a judgement but the texts of its question."""
    return {
        "judgement": judgement.id,
        "rater": judgement.rater,
        "kind": judgement.kind,
        "order": list(judgement.order),
        **answer_row(judgement),
    }


def judgement_from(extras: object, question: Question) -> Judgement:
    """The judgement of `extras_of`. Raises DataError for anything else."""
    if not isinstance(extras, Mapping) or not {"judgement", "rater", "answer"} <= extras.keys():
        raise DataError(f"{KEY!r} is {describe(extras)} that this program did not write; remove it")
    return judgement_of(
        extras, question, str(extras["judgement"]), str(extras["rater"]), extras.get("kind"), extras.get("order")
    )


def require_agreement(shown: object, expected: object, what: str) -> None:
    """Raise DataError where a row was edited after it was written, and says two things now."""
    if shown != expected:
        raise DataError(
            f"{what} is {shown!r} but the {KEY!r} part says {expected!r}; undo the edit, or remove the {KEY!r} part to "
            "read the row by itself"
        )


def name_uuid(name: str) -> str:
    """`name` itself where it is a UUID, else the UUID that stands for it (version 5)."""
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def text_column(data: Data, names: tuple[str, ...]) -> str | None:
    """The first of these columns that is there."""
    return next((name for name in names if data.get(name) is not None), None)
