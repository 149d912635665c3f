"""Every spelling of a reward, and a sentence that names the part for every mistake."""

from __future__ import annotations

import json

import pytest
from tiny_models import chat

from guerdon.client import Client
from guerdon.optimize.reward_option import Part, parse_part, parse_rewards
from guerdon.optimize.verifiable import LabGold, Length
from guerdon.types import ConfigError, Score


class Loaded:
    def __init__(self, path):
        self.path = path

    def score(self, conversations):
        return [Score(1.0) for _ in conversations]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("runs/hh/model", ("model", "runs/hh/model", 1.0)),
        ("runs/a/model,runs/b/model", ("model", "runs/a/model,runs/b/model", 1.0)),
        ("http://127.0.0.1:8000", ("model", "http://127.0.0.1:8000", 1.0)),
        ("http://host/a?b=c:1", ("model", "http://host/a?b=c:1", 1.0)),
        ("model=runs/a/model:-0.5", ("model", "runs/a/model", -0.5)),
        ("model=http://127.0.0.1:8000:2", ("model", "http://127.0.0.1:8000", 2.0)),
        ("model=http://host/rm:2", ("model", "http://host/rm", 2.0)),
        ("length=words:10:60:0.1", ("length", "words:10:60", 0.1)),
        ("format=(?:a:b)+:1e-1", ("format", "(?:a:b)+", 0.1)),
        ("answer=a.jsonl:1.0", ("answer", "a.jsonl", 1.0)),
        ("exact=a.jsonl:1", ("exact", "a.jsonl", 1.0)),
        ("lab-gold", ("lab-gold", "", 1.0)),
        ("lab-gold:0", ("lab-gold", "", 0.0)),
    ],
)
def test_spellings(text, part):
    assert parse_part(text) == Part(*part)


def test_parts_together(tmp_path):
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"prompt": "q", "answer": "two words"}) + "\n")
    total = parse_rewards(
        ["model=runs/a:0.5", "model=runs/b:2", "length=words:3:9:0.1", f"answer={answers}:4", "lab-gold:0",
         "model=http://127.0.0.1:9:0", "length=tokens:0:3:0.01"],
        load=Loaded,
        connect=lambda url: Loaded(url),
        count_tokens=len,
    )  # fmt: skip
    assert total.weights == {"model": 0.5, "model-2": 2, "length": 0.1, "answer": 4, "lab-gold": 0, "model-3": 0, "length-2": 0.01}  # fmt: skip
    assert [total.scorers[n].path for n in ("model", "model-2", "model-3")] == ["runs/a", "runs/b", "http://127.0.0.1:9"]  # fmt: skip
    assert isinstance(total.scorers["lab-gold"], LabGold)
    assert total.score([chat("q", "two words")]) == pytest.approx([0.5 + 2 - 0.1 + 4 - 0.06])


def test_addresses_become_clients_unless_told_otherwise():
    total = parse_rewards(["http://127.0.0.1:8000"], load=Loaded)
    assert isinstance(total.scorers["model"], Client)
    assert isinstance(parse_rewards(["length=words:1:2:1"], load=Loaded).scorers["length"], Length)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no reward is given"),
        ([""], "reward '': is empty"),
        (["lab-gould"], "did you mean lab-gold"),
        (["runs/a/model:0.5"], "write model=runs/a/model:0.5"),
        (["lenght=words:1:2:1"], "'lenght=words:1:2:1': there is no part called 'lenght'; did you mean length=words"),
        (["colour=red:1"], "there is no part called 'colour'; write one of model="),
        (["model=runs/a/model"], "needs a value and a weight; write model=FOLDER_OR_URL:WEIGHT"),
        (["model=:1"], "needs a value and a weight"),
        (["answer=a.jsonl:much"], "'much' is no finite number"),
        (["format=a:nan"], "'nan' is no finite number"),
        (["lab-gold:"], "'' is no finite number"),
        (["model=http://host:8000"], "is :8000 the port or the weight"),
        (["length=words:10:0.1"], "'length=words:10:0.1': the length must be words:LOW:HIGH"),
        (["length=lines:1:2:0.1"], "must be words:LOW:HIGH or tokens"),
        (["length=words:9:2:0.1"], "length from 9 to 2 words is no range"),
        (["length=tokens:1:2:0.1"], "needs a tokenizer"),
        (["format=(:1"], "'format=\\(:1': format '\\(' is not a regular expression"),
        (["answer=nowhere.jsonl:1"], "'answer=nowhere.jsonl:1': nowhere.jsonl: no such file"),
        (["model=http://:1"], "port or the weight|is not the address"),
        (["lab-gold:0"], "no part with a weight other than 0"),
    ],
)
def test_mistakes_are_named(texts, message):
    with pytest.raises(ConfigError, match=message):
        parse_rewards(texts, load=Loaded)


def test_a_mistake_in_held_out_is_not_called_reward():
    with pytest.raises(ConfigError, match=r"^held-out 'lab-gould': is not known; did you mean lab-gold"):
        parse_rewards(["lab-gould"], load=Loaded, option="held-out")
