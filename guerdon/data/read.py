"""Comparisons in: `read` streams them, `load` collects them. Rows without a usable preference are counted, never lost.

In: paths or hub ids. Out: `Comparison`s, with the number of rows seen and, by reason, of rows kept out. A row whose
structure cannot be read stops the reading with a DataError that names file, line and remedy.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guerdon.data.containers import Row, kind_of, stream
from guerdon.data.database import is_database, source_of
from guerdon.data.formats import FORMATS, Format, named, recognise
from guerdon.data.judgements import from_row
from guerdon.data.labels import How, Raters, labels_of
from guerdon.data.messages import Unusable
from guerdon.data.votes import question_key
from guerdon.types import Comparison, DataError, Judgement, Question

MAX_ANSWER = 1_000_000  # characters; longer answers are logs and dumps, which no context window holds
SAMPLE = 8  # rows of each file that its format is recognised from
EXAMPLES = 5  # places kept for each reason

_SPLIT_NAMES = ("train", "training", "test", "valid", "validation", "val", "dev", "eval", "data")


def read_judgements(path: str | os.PathLike[str]) -> Iterator[Judgement]:
    """Stream the judgements of a file, a folder or a database URL, in our own form or one that `FORMATS` has a `judge` for.

    Raises DataError, with file and line, for a row that is no judgement.
    """
    for _, group in itertools.groupby(stream(path), key=lambda row: row.file):
        rows = iter(group)
        first = list(itertools.islice(rows, SAMPLE))
        judge = _judge_of(first)
        for row in itertools.chain(first, rows):
            try:
                yield from judge(row.data)
            except (DataError, Unusable) as error:
                raise DataError(f"{row.place}: {error}") from None


def _judge_of(rows: Sequence[Row]) -> Callable[[Mapping[str, Any]], list[Judgement]]:
    """How the rows of a file are read. In our own form judgements share the texts of their questions."""
    known: dict[str, Question] = {}
    for name, form in FORMATS.items():
        if form.judge and 2 * sum(form.fits(row.data) for row in rows) > len(rows):
            return form.judge if name != "judgements" else lambda data: [from_row(data, known)]
    raise DataError(
        f"{rows[0].place}: is no judgement; a judgement has 'judgement', 'rater', 'question' and 'answer', or is a row of "
        "LMArena, Label Studio or Argilla"
    )


@dataclass
class Reader:
    """An iterable of comparisons that keeps count while it is read; each new iteration starts from zero.

    rows      raw rows seen
    dropped   rows kept out, by reason: `empty answer`, `identical answers`, `answer too long`, `no label`,
              `margin not finite`, `fewer than two answers`; of judgements also `skip`, `flag`, `all bad`, `replaced`,
              `delivered twice`, `judged by a model`, `gold item`, `attention item`, `training item`
    examples  the first few places (`file:line`) for each reason
    formats   the format of each file
    place     file and line of the comparison that was given last
    labels, raters  what is made of judgements, and of whose (see `labels.py`); other formats are labels already

    Judgements are given last, and their labels made, when all files are read: one file can replace what another holds.
    """

    path: str
    format: str | None = None
    source: str = ""
    max_answer: int = MAX_ANSWER
    rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    place: tuple[str, int] = ("", 0)
    labels: How = "raw"
    raters: Raters = "human"

    def __iter__(self) -> Iterator[Comparison]:
        self.rows, self.dropped, self.examples, self.formats = 0, {}, {}, {}
        judged: list[tuple[Judgement, Row]] = []
        for file, group in itertools.groupby(stream(self.path), key=lambda row: row.file):
            rows = iter(group)
            first = list(itertools.islice(rows, SAMPLE))
            name = self.format or recognise(first)
            self.formats[file] = name
            form = named(name)
            if form.judge:
                judged += self._judge(itertools.chain(first, rows), form.judge)
            else:
                yield from self._convert(itertools.chain(first, rows), form)
        if judged:
            yield from self._label(judged)

    def _judge(
        self, rows: Iterator[Row], judge: Callable[[Mapping[str, Any]], list[Judgement]]
    ) -> Iterator[tuple[Judgement, Row]]:
        known: dict[bytes, Question] = {}
        for row in rows:
            self.rows += 1
            try:
                found = judge(row.data)
            except Unusable as reason:
                self._drop(str(reason), row.place)
                continue
            except DataError as error:
                raise DataError(f"{row.place}: {error}") from None
            if not found:
                self._drop("no label", row.place)
            for judgement in found:
                question = known.setdefault(question_key(judgement.question), judgement.question)
                # one copy of each question's texts, and of the row only its place
                yield (
                    replace(judgement, question=question) if question == judgement.question else judgement,
                    row._replace(data={}),
                )

    def _label(self, judged: list[tuple[Judgement, Row]]) -> Iterator[Comparison]:
        made = labels_of([judgement for judgement, _ in judged], self.labels, self.raters)
        for reason, count in made.left_out.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        rows = {judgement.id: row for judgement, row in reversed(judged)}
        for comparison, ids in made.labels:
            row = rows[ids[0]]
            try:
                check_answers(comparison, self.max_answer)
            except Unusable as reason:
                self._drop(str(reason), row.place)
            else:
                self.place = (row.file, row.line)
                yield replace(comparison, source=comparison.source or self.source)

    def _convert(self, rows: Iterator[Row], form: Format) -> Iterator[Comparison]:
        for row in rows:
            self.rows += 1
            try:
                comparison = form.convert(row.data)
                check_answers(comparison, self.max_answer)
            except Unusable as reason:
                self._drop(str(reason), row.place)
            except DataError as error:
                raise DataError(f"{row.place}: {error}") from None
            else:
                self.place = (row.file, row.line)
                who = comparison.annotator if comparison.annotator is not None else _annotator(row)
                yield replace(comparison, source=self._source(row), id=self._id(row), annotator=who)

    def _source(self, row: Row) -> str:
        given = row.data.get("source")
        return given if isinstance(given, str) else self.source

    def _id(self, row: Row) -> str:
        given = row.data.get("id")
        if isinstance(given, str | int) and not isinstance(given, bool):
            return str(given)
        return f"{_label(row.file, self.path)}:{row.line}"

    def _drop(self, reason: str, place: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        places = self.examples.setdefault(reason, [])
        if len(places) < EXAMPLES:
            places.append(place)


@dataclass(frozen=True)
class Dataset:
    """All comparisons of some paths in memory, with what was seen on the way.

    `rows`, `dropped` and `examples` are as in `Reader`, summed over the paths; `sources` counts comparisons by source.
    """

    comparisons: list[Comparison]
    rows: int
    dropped: dict[str, int]
    examples: dict[str, list[str]]
    sources: dict[str, int]


def read(
    path: str | Path,
    *,
    format: str | None = None,
    source: str | None = None,
    max_answer: int = MAX_ANSWER,
    labels: How = "raw",
    raters: Raters = "human",
) -> Reader:
    """Stream the comparisons of a file, a folder or a hub set.

    `format` names one of `formats.FORMATS` (default: recognised from the first rows of each file); `source` is for rows
    that carry none (default: `source_name`); `max_answer` is in characters, rows with a longer answer are kept out.
    `labels` and `raters` say what is made of judgements: one comparison for each (`raw`), or for each question by
    `majority` or by the rater model (`soft`); of human raters, models, or both.
    Raises ConfigError for an unknown format at once, DataError for unreadable files and rows while iterating.
    """
    if format is not None:
        named(format)
    name = source_name(path) if source is None else source
    return Reader(str(path), format, name, max_answer, labels=labels, raters=raters)


def load(
    paths: Sequence[str | Path] | str | Path,
    *,
    format: str | None = None,
    labels: How = "raw",
    raters: Raters = "human",
) -> Dataset:
    """Read all comparisons of some paths into memory, see `read`. Raises DataError when a path holds no usable one."""
    comparisons: list[Comparison] = []
    rows, dropped = 0, Counter[str]()
    examples: dict[str, list[str]] = {}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        reader = read(path, format=format, labels=labels, raters=raters)
        before = len(comparisons)
        comparisons += reader
        if len(comparisons) == before:
            raise DataError(f"{path}: {explain_empty(reader)}")
        rows += reader.rows
        dropped.update(reader.dropped)
        for reason, places in reader.examples.items():
            examples[reason] = (examples.get(reason, []) + places)[:EXAMPLES]
    sources = dict(Counter(comparison.source for comparison in comparisons))
    return Dataset(comparisons, rows, dict(dropped), examples, sources)


def explain_empty(reader: Reader) -> str:
    """Why nothing was left, for an error message."""
    reasons = ", ".join(f"{reason}: {count}" for reason, count in reader.dropped.items())
    return f"no usable comparison in {reader.rows} rows ({reasons}); repair these rows or give other data"


def source_name(path: str | Path) -> str:
    """The file's stem or the folder's name; the folder's also for a file that is only named `train`, `test`, ..."""
    if is_database(str(path)):
        return source_of(str(path))
    file = Path(path)
    if kind_of(file) is None:
        return file.resolve().name if file.is_dir() else str(path)
    stem = Path(file.name.removesuffix(".gz")).stem
    return (file.resolve().parent.name or stem) if stem.lower() in _SPLIT_NAMES else stem


def check_answers(comparison: Comparison, max_answer: int = MAX_ANSWER) -> None:
    """Raise Unusable when an answer is empty (its last message blank) or too long, or when two are the same."""
    answers = comparison.completions
    if not all(answer[-1]["content"].strip() for answer in answers):
        raise Unusable("empty answer")
    if any(len(message["content"]) > max_answer for answer in answers for message in answer):
        raise Unusable("answer too long")
    if any(first == second for first, second in itertools.combinations(answers, 2)):
        raise Unusable("identical answers")


def _annotator(row: Row) -> str | None:
    given = row.data.get("annotator")
    return given if isinstance(given, str) else None


def _label(file: str, path: str) -> str:
    """The file's name, or its path inside the folder that was given."""
    inside = Path(file).is_relative_to(path) and file != str(Path(path))
    return Path(file).relative_to(path).as_posix() if inside else Path(file).name
