"""Pools from files: N scored answers per prompt, one row per answer or one row per prompt, and what had to be left out.

In: a candidate table, rows with lists (`scores`, `completions`, `gold`), or the output of `guerdon score`, alone or
together with its input. Out: a `CandidateTable` in which every answer has a score, and gold if any has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.data.containers import stream
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.columns import read_rows
from guerdon.types import DataError

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Pool:
    """What was read.

    table     the answers that have all they need, rows of a prompt together
    prompts   text of each prompt by its id, where the file has it
    has_gold  whether gold values are known; if so, every row of the table has one
    dropped   answers (and rows of failed prompts) that were left out, by reason
    """

    table: CandidateTable
    prompts: dict[str, str]
    has_gold: bool
    dropped: dict[str, int]


def read_pool(
    path: Path | str, *, score: str | None = None, gold: str | None = None, data: Path | str | None = None
) -> Pool:
    """Read a pool of scored answers.

    score  field of the score: a number per row, or a list per prompt; default `score`, else `scores`
    gold   field of the gold value, in the same shape; default `gold`, which may be absent
    data   the file that `guerdon score` read to write `path`: its rows bring prompts, answers and gold

    Raises DataError naming file, row and remedy.
    """
    path = Path(path)
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path}: holds no rows; give a pool of scored answers")
    if data is not None:
        rows = _merged(path, rows, data)
    field = score or next((name for name in ("score", "scores") if name in rows[0]), "score")
    gold_field = gold or "gold"
    if gold is not None and not any(gold in row for row in rows):
        raise DataError(f"{path}: no row has the gold field '{gold}'; its columns are {', '.join(rows[0])}")
    dropped: Counter[str] = Counter()
    prompts: dict[str, str] = {}
    records: list[Record] = []
    for number, row in enumerate(rows, 1):
        where = f"{path} row {number}"
        if field not in row:
            raise DataError(f"{where}: no '{field}'; name the field of the score with --score")
        found = list(_answers(where, number, row, field, gold_field))
        if not found:
            dropped[f"prompts without scores ({row.get('status') or 'empty list'})"] += 1
        records += found
        if found and (text := _text(row.get("prompt"))):
            prompts[str(found[0]["prompt_id"])] = text
    return _pool(path, records, prompts, dropped)


def _merged(path: Path, rows: list[Record], data: Path | str) -> list[Record]:
    """Each scored row over the input row that its `index` names."""
    given = [row.data for row in stream(data)]
    merged = []
    for number, row in enumerate(rows, 1):
        index = row.get("index")
        if not isinstance(index, int) or not 0 <= index < len(given):
            raise DataError(
                f"{path} row {number}: 'index' is {index!r}, but {data} has {len(given)} rows; "
                "--data is the file that `guerdon score` read"
            )
        merged.append(given[index] | row)
    return merged


def _answers(where: str, number: int, row: Record, score: str, gold: str) -> Iterator[Record]:
    """The answers of one row: one, or as many as its score is long."""
    is_flat = not isinstance(row[score], list)
    scores = [row[score]] if is_flat else row[score]
    prompt = _prompt_id(where, number, row, is_flat)
    columns = {
        "gold": row.get(gold),
        "text": _first(row, "completions", "responses", "text", "completion", "response"),
        "members": row.get("members"),
        "source": _first(row, "sources", "source"),
        "completion_id": row.get("completion_id"),
        "chars": row.get("chars"),
    }
    given = {name: _one_each(where, name, values, len(scores), is_flat) for name, values in columns.items()}
    for i, value in enumerate(scores):
        part = {name: values[i] for name, values in given.items()}
        if part["completion_id"] is None:
            part["completion_id"] = i if len(scores) > 1 else number - 1
        yield _record(where, part | {"prompt_id": prompt, "score": value})


def _prompt_id(where: str, number: int, row: Record, is_flat: bool) -> str:
    """Answers belong together by `prompt_id`, else by the prompt's text; a row of lists may also stand alone."""
    found = _first(row, "prompt_id", "prompt")
    if found is None and is_flat:
        raise DataError(
            f"{where}: no 'prompt_id' or 'prompt'; answers to one prompt share it (or give one row per prompt, with lists)"
        )
    if found is None:
        found = _first(row, "id", "index")
    return _text(number - 1 if found is None else found)


def _one_each(where: str, name: str, values: Any, count: int, is_flat: bool) -> list[Any]:
    """One value per score. A row with one score may hold the value itself, and one source may stand for all."""
    is_list = isinstance(values, list)
    if is_flat or values is None:
        return [values] * count
    if count == 1 and (not is_list or (name == "members" and not any(isinstance(value, list) for value in values))):
        return [values]
    if name == "source" and not is_list:
        return [values] * count
    if not is_list:
        raise DataError(f"{where}: '{name}' is {values!r}; write a list with one value per score")
    if len(values) != count and count:
        raise DataError(f"{where}: {count} scores but {len(values)} values of {name}; give one each")
    return list(values)


def _record(where: str, row: Record) -> Record:
    """One answer with every column checked."""
    members, text = row["members"], row["text"]
    if members is not None and not isinstance(members, list):
        raise DataError(f"{where}: 'members' is {members!r}; write a list with the reward of each member")
    return {
        "prompt_id": row["prompt_id"],
        "completion_id": row["completion_id"],
        "score": _number(where, "score", row["score"]),
        "gold": _number(where, "gold", row["gold"]),
        "chars": _number(where, "chars", row["chars"]) if text is None else float(len(_text(text))),
        "source": row["source"] or "",
        "members": None if members is None else [_number(where, "members", value) for value in members],
        "text": _text(text),
    }


def _first(row: Record, *names: str) -> Any:
    """The value of the first of these fields that is there."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def _pool(path: Path, records: list[Record], prompts: dict[str, str], dropped: Counter[str]) -> Pool:
    if not records:
        raise DataError(f"{path}: no row has a score; score the answers again")
    widths = Counter(None if record["members"] is None else len(record["members"]) for record in records)
    if len(widths) > 1:
        raise DataError(f"{path}: 'members' differs in length between rows; give every answer one per member")
    column = {name: [record[name] for record in records] for name in records[0]}
    table = CandidateTable.build(
        column["prompt_id"],
        column["score"],
        completion=column["completion_id"],
        gold=column["gold"],
        chars=column["chars"],
        source=column["source"],
        members=None if None in widths else column["members"],
        text=column["text"],
    )
    has_gold = bool(np.isfinite(table.gold).any())
    for reason, bad in _incomplete(table, has_gold):
        if bad.any():
            dropped[reason] += int(bad.sum())
    keep = ~np.logical_or.reduce([bad for _, bad in _incomplete(table, has_gold)])
    if not keep.any():
        raise DataError(f"{path}: no answer has all of score, gold and members; nothing is left to measure")
    return Pool(table.where(keep), prompts, has_gold, dict(dropped))


def _incomplete(table: CandidateTable, has_gold: bool) -> Iterator[tuple[str, Any]]:
    """Why rows are left out; a row counts under the first reason that holds."""
    no_score = ~np.isfinite(table.score)
    yield "answers without a score", no_score
    no_member = ~np.isfinite(table.members).all(axis=1) & ~no_score
    yield "answers without the score of a member", no_member
    if has_gold:
        yield "answers without gold", ~np.isfinite(table.gold) & ~no_score & ~no_member


def _number(where: str, name: str, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: '{name}' is {value!r}; write a number, or null where there is none")
    return float(value)


def _text(value: Any) -> str:
    """A text, or the turns of a message list one below the other."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\n\n".join(str(turn.get("content", "")) if isinstance(turn, dict) else str(turn) for turn in value)
    return "" if value is None else str(value)
