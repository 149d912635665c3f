"""Questions in, judgements out: the upload and the download of a study."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

from guerdon.collect.bring import bring
from guerdon.collect.records import QUESTION_KINDS
from guerdon.collect.web.gate import Visit
from guerdon.collect.web.sign_in import sentence
from guerdon.types import ConfigError, DataError, GuerdonError, Judgement

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
    return visit.page("export.html", counts=visit.store.counts(visit.study))


def download(visit: Visit) -> Response:
    """All judgements as JSON lines, streaming: raw events, or those that stand."""
    only_current = visit.request.query_params.get("which") == "current"
    source = visit.store.current(visit.study) if only_current else visit.store.judgements(visit.study)
    visit.site.access.note(visit.person.name, "judgements exported", visit.study, current=only_current)
    name = f"{visit.study}{'-current' if only_current else ''}.judgements.jsonl"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_lines(source), media_type="application/x-ndjson", headers=headers)


def _lines(judgements: Iterator[Judgement]) -> Iterator[str]:
    for judgement in judgements:
        row = asdict(judgement)
        row = {name: None if value != value else value for name, value in row.items()}  # NaN is no JSON
        yield json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
