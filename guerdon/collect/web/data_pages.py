"""Questions in, judgements out: the upload and the download of a study."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, get_args

from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

from guerdon.collect.bring import bring
from guerdon.collect.database import public
from guerdon.collect.records import QUESTION_KINDS
from guerdon.collect.web.gate import Visit
from guerdon.collect.web.sign_in import sentence
from guerdon.data.export import JUDGED, LABELLED, export
from guerdon.data.judgements import to_row
from guerdon.data.labels import How, Raters
from guerdon.types import ConfigError, DataError, GuerdonError

EXPORTED = "judgements exported"  # in the log
ENDINGS = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")


def import_page(visit: Visit) -> Response:
    return visit.page("import.html", kinds=QUESTION_KINDS, result=None, counts=visit.store.counts(visit.study))


def upload(visit: Visit) -> Response:
    """Read an uploaded file of questions; what was added before a bad row stays, and is left out the next time."""
    try:
        result = _bring(visit)
    except GuerdonError as error:
        counts = visit.store.counts(visit.study)
        return visit.page("import.html", 400, kinds=QUESTION_KINDS, result=None, counts=counts, problem=sentence(error))
    visit.site.access.note(visit.person.name, "questions imported", visit.study, **result)
    return visit.page("import.html", kinds=QUESTION_KINDS, result=result, counts=visit.store.counts(visit.study))


def _bring(visit: Visit) -> dict[str, Any]:
    file, kind = visit.form.get("file"), visit.text("kind") or "normal"
    if not isinstance(file, UploadFile) or not file.filename:
        raise ConfigError("choose a file first")
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if file.filename.lower().endswith(e)), None)
    if ending is None:
        raise ConfigError(f"the name of the file must end in {', '.join(ENDINGS)}")
    chosen = next((known for known in QUESTION_KINDS if known == kind), None)
    if chosen is None:
        raise ConfigError(f"questions are {', '.join(QUESTION_KINDS)}")
    stem = "".join(
        letter for letter in Path(file.filename).name.removesuffix(ending) if letter.isalnum() or letter in "-_"
    )
    with tempfile.TemporaryDirectory(prefix="guerdon-") as folder:
        path = Path(folder) / f"{stem[:60] or 'upload'}{ending}"
        with path.open("wb") as target:
            shutil.copyfileobj(file.file, target)
        try:
            found, added = bring(visit.store, visit.study, str(path), chosen)
        except (DataError, ConfigError) as error:
            raise DataError(str(error).replace(f"{folder}/", "")) from None
    dropped = {str(reason): count for reason, count in found.dropped.items()}
    return {"kind": kind, "rows": found.rows, "dropped": dropped} | asdict(added)


def export_page(visit: Visit) -> Response:
    return _export_page(visit)


def _export_page(visit: Visit, status: int = 200, problem: str = "") -> Response:
    """Every format, the command that writes the same file, and what was exported before with what was left out of it."""
    url = visit.store.database.engine.url.update_query_dict({"study": visit.study})
    events = visit.site.access.events(500, study=visit.study)
    return visit.page(
        "export.html",
        status,
        counts=visit.store.counts(visit.study),
        formats=(*LABELLED, *JUDGED[1:]),
        address=public(url),
        exported=[event for event in events if event.action == EXPORTED][:10],
        problem=problem,
    )


def download(visit: Visit) -> Response:
    """A study in any format, as `guerdon collect export` writes it, or the page again with the reason why it cannot be."""
    asked = visit.request.query_params
    format, current = asked.get("format", "judgements"), asked.get("which") == "current"
    source = visit.store.current(visit.study) if current else visit.store.judgements(visit.study)
    name = f"{visit.study}{'-current' if current else ''}.{format}.jsonl"
    if format == "judgements":  # as it comes out of the database, however much it is
        lines: Iterator[str] | BinaryIO = (json.dumps(to_row(j), ensure_ascii=False) + "\n" for j in source)
        visit.site.access.note(visit.person.name, EXPORTED, visit.study, format=format, current=current)
    else:
        with tempfile.TemporaryDirectory(prefix="guerdon-") as folder:
            path = Path(folder) / "export.jsonl"
            try:
                done = export(
                    source, path, format, labels=_one_of(get_args(How), asked.get("labels")),
                    raters=_one_of(get_args(Raters), asked.get("raters")),
                    skip_unsupported="skip_unsupported" in asked, pairs="pairs" in asked,
                    drop=asked.getlist("drop"), round_strength="round_strength" in asked,
                )  # fmt: skip
            except GuerdonError as error:
                return _export_page(visit, 400, sentence(error))
            lines = path.open("rb")  # read to its end after its name is gone
        left = {"left_out": done.left_out, "skipped": done.skipped}
        visit.site.access.note(visit.person.name, EXPORTED, visit.study, format=format, rows=done.rows, **left)
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


def _one_of(known: tuple[Any, ...], asked: str | None) -> Any:
    return asked if asked in known else known[0]
