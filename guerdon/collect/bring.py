"""Import: questions out of any file that `guerdon` reads, with the labels they may carry dropped or kept apart as known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from guerdon.collect.records import Added, QuestionKind
from guerdon.collect.store import Store
from guerdon.data.containers import Row, stream
from guerdon.data.formats import FORMATS, named
from guerdon.data.messages import Unusable, answer_of, turns_of
from guerdon.data.read import MAX_ANSWER, check_answers, source_name
from guerdon.types import Comparison, DataError, Question


@dataclass
class Questions:
    """The questions of a path, with the known ranks of those that carried any; counts grow while it is read.

    rows     rows seen
    dropped  rows kept out, by reason
    ranks    question id -> ranks, lower is better
    why      question id -> the row's `why`: feedback after a training item
    """

    path: str
    format: str | None = None
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    ranks: dict[str, tuple[float, ...]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Question]:
        source = source_name(self.path)
        for row in stream(self.path):
            self.rows += 1
            try:
                question, ranks = self._read(row)
            except Unusable as reason:
                self.dropped[str(reason)] += 1
                continue
            except DataError as error:
                raise DataError(f"{row.place}: {error}") from None
            given = row.data.get("source")
            given = given if isinstance(given, str) else question.source or source
            question = replace(question, source=given, id=question.id or _id(row))
            if ranks:
                self.ranks[question.id] = ranks
            if isinstance(why := row.data.get("why"), str):
                self.why[question.id] = why
            yield question

    def _read(self, row: Row) -> tuple[Question, tuple[float, ...]]:
        data = row.data
        if self.format is None and "completions" in data and "ranks" not in data and "context" not in data:
            return _bare(data), ()
        name = self.format or next((name for name, form in FORMATS.items() if form.fits(data)), None)
        if name is None:
            raise DataError("no question: write 'prompt' and 'completions', or rows of a format in docs/data.md")
        judge = named(name).judge
        if judge is not None:  # its questions, whether or not a label can be made of what was said of them
            judged = judge(data)
            if not judged:
                raise Unusable("no judgement")
            ranks = next((judgement.ranks for judgement in judged if judgement.ranks), ())
            return _checked(judged[0].question), ranks
        comparison = named(name).convert(data)
        check_answers(comparison, MAX_ANSWER)
        return Question(
            comparison.prompt, comparison.completions, _models(data, len(comparison.completions))
        ), comparison.ranks


def _bare(data: Mapping[str, object]) -> Question:
    """Candidates nobody has judged: `prompt` and `completions`, with `models` where it is known who wrote them."""
    given = data["completions"]
    if not isinstance(given, list) or len(given) < 2:
        raise Unusable("fewer than two answers")
    completions = tuple(answer_of(answer, "completions") for answer in given)
    return _checked(
        Question(turns_of(data.get("prompt"), "prompt", "user"), completions, _models(data, len(completions)))
    )


def _checked(question: Question) -> Question:
    """The question, when its answers can be judged. Raises Unusable."""
    ranks = (0.0,) * len(question.completions)
    check_answers(Comparison(question.prompt, question.completions, ranks), MAX_ANSWER)
    return question


def _models(data: Mapping[str, object], k: int) -> tuple[str, ...]:
    models = data.get("models") or ()
    if not isinstance(models, list | tuple) or len(models) not in (0, k):
        raise DataError(f"'models' must list {k} names, one for each completion")
    return tuple(map(str, models))


def _id(row: Row) -> str:
    given = row.data.get("id")
    if isinstance(given, str | int) and not isinstance(given, bool):
        return str(given)
    return f"{row.file.rsplit('/', 1)[-1]}:{row.line}"


def bring(
    store: Store, name: str, path: str, kind: QuestionKind = "normal", format: str | None = None
) -> tuple[Questions, Added]:
    """Add the questions of a path to a study. Ranks they carry are dropped for ordinary questions, and needed for the others.

    Raises DataError for a row that cannot be read, ConfigError for a question whose known answer is missing; questions
    before it stay, and are duplicates when the import is run again.
    """
    found = Questions(path, format)
    gold = None if kind == "normal" else found.ranks
    return found, store.add_questions(name, found, gold=gold, why=found.why, kind=kind)
