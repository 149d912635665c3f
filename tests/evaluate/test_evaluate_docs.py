"""The pages name every number, column and key that the code produces."""

from dataclasses import fields
from pathlib import Path

from guerdon.evaluate.abstain import Threshold
from guerdon.evaluate.agreement import Agreement
from guerdon.evaluate.calibration import Temperature
from guerdon.evaluate.compare import Difference, ModelComparison, Standing
from guerdon.evaluate.metrics import Evaluation, Slice
from guerdon.evaluate.sheet import Band, Calibration
from guerdon.evaluate.table import ScoreTable
from guerdon.evaluate.trivial import Baseline, LengthControl

DOCS = Path(__file__).parents[2] / "docs"


def test_every_metric_and_column_is_defined():
    page = (DOCS / "evaluate.md").read_text(encoding="utf-8")
    records = (
        Evaluation,
        Slice,
        ScoreTable,
        Baseline,
        LengthControl,
        Calibration,
        Temperature,
        Threshold,
        Band,
        Agreement,
    )
    names = [field.name for record in records for field in fields(record)]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_number_of_a_comparison_is_defined():
    page = (DOCS / "compare.md").read_text(encoding="utf-8")
    names = [field.name for record in (ModelComparison, Standing, Difference) for field in fields(record)]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_key_of_a_scored_row_is_defined():
    page = (DOCS / "score.md").read_text(encoding="utf-8")
    keys = ("index", "id", "scores", "status", "reason", "tokens", "truncated")
    assert [key for key in keys if f"| `{key}` |" not in page] == []
