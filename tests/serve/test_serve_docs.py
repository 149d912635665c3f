"""The page on serving names every field, option in it and metric."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from guerdon.options import flag
from guerdon.serve import schemas
from guerdon.serve.config import ServeConfig
from guerdon.serve.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")


def test_every_field_of_a_score_is_defined():
    names = [*schemas.Scored.model_fields, *schemas.ScoreReply.model_fields, *schemas.BestOfNReply.model_fields]
    names += [*schemas.ScoreRequest.model_fields, *schemas.Load.model_fields]
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_every_metric_is_defined():
    families = [family.name for family in Metrics().registry.collect()]
    assert [name for name in families if name not in PAGE] == []


def test_options_on_the_page_exist():
    known = {flag(field.name) for field in fields(ServeConfig)} | {
        "--help",
        "--config",
        "--admin",
        "--calibrate",
        "--no-sharing",
    }
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= known
