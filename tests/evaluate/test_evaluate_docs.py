"""The pages name every number, column and key that the code produces."""

from dataclasses import fields
from pathlib import Path

from guerdon.evaluate.metrics import Evaluation, Slice
from guerdon.evaluate.table import ScoreTable

DOCS = Path(__file__).parents[2] / "docs"


def test_every_metric_and_column_is_defined():
    page = (DOCS / "evaluate.md").read_text(encoding="utf-8")
    names = [field.name for record in (Evaluation, Slice, ScoreTable) for field in fields(record)]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_key_of_a_scored_row_is_defined():
    page = (DOCS / "score.md").read_text(encoding="utf-8")
    keys = ("index", "id", "scores", "status", "reason", "tokens", "truncated")
    assert [key for key in keys if f"| `{key}` |" not in page] == []
