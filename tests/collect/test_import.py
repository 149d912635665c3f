"""Questions come in from any format, once, with their labels dropped or kept as the known answer."""

from __future__ import annotations

import json

import pytest

from guerdon.cli import main
from guerdon.collect.settings import Settings
from guerdon.collect.store import Store
from guerdon.types import ConfigError

ROWS = [
    {"prompt": "p1", "completions": ["a", "b"], "models": ["m1", "m2"], "id": "one"},
    {"prompt": "p1", "completions": ["b", "a"]},  # the same question, sides swapped
    {"prompt": "p2", "completions": ["a", "a"]},
    {"prompt": "p3", "completions": ["a", "b", "c"]},
    {"prompt": "p4", "completions": ["a"]},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_the_commands_make_a_study_and_count_what_they_leave_out(folder, capsys):
    main(["collect", "create", "s"])
    capsys.readouterr()
    main(["collect", "import", "s", "q.jsonl"])
    assert capsys.readouterr().out == (
        "5 rows: 1 normal questions added, 1 in the study already, "
        "1 with another number of candidates than the settings say, 1 with fewer than two answers, 1 with identical answers\n"
    )
    main(["collect", "import", "s", "q.jsonl"])
    assert "0 normal questions added, 2 in the study already" in capsys.readouterr().out
    with Store.open("study.db") as store:
        (question,) = store.questions("s")
    assert (question.id, question.models, question.source) == ("one", ("m1", "m2"), "q")


def test_comparisons_become_questions_or_gold(folder):
    row = {"prompt": "p", "chosen": "good", "rejected": "bad", "why": "see the guidelines"}
    (folder / "c.jsonl").write_text(json.dumps(row) + "\n")
    for kind in ("normal", "training"):
        main(["collect", "create", kind])
        main(["collect", "import", kind, "c.jsonl", "--kind", kind])
    with Store.open("study.db") as store:
        assert store.gold("normal") == {}
        assert store.gold("training") == {"c.jsonl:1": (0.0, 1.0)}
        assert store.next("training", "a").arm == "training"


def test_settings_and_guidelines_come_from_files(folder, capsys):
    (folder / "s.yaml").write_text("overlap: 3\nattributes: [helpful, honest]\nrandom: 0.5\narms: [uncertain]\n")
    (folder / "g.md").write_text("# Judge\n")
    main(["collect", "create", "s", "--settings", "s.yaml", "--guidelines", "g.md"])
    with Store.open("study.db") as store:
        settings = store.study("s").settings
        assert (settings.overlap, settings.attributes, settings.arms) == (3, ("helpful", "honest"), ("uncertain",))
        assert store.guideline("s") == (1, "# Judge\n")
    with pytest.raises(SystemExit):
        main(["collect", "create", "s"])
    assert "there is a study 's' already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("random", 0.1, "0.2 to 1"),
        ("k", 10, "2 to 9"),
        ("repeat_after", 5, "fewer than 20"),
        ("gold", 0.9, "0 and 0.5"),
    ],
)
def test_settings_that_cannot_be_used_say_what_to_write(field, value, message):
    with pytest.raises(ConfigError, match=message):
        Settings(**{field: value})


def test_settings_survive_the_way_through_the_database():
    settings = Settings(attributes=("a",), arms=("d-optimal",), random=0.25, title="Größe")
    assert Settings.from_json(settings.to_json()) == settings
    with pytest.raises(ConfigError, match="no setting 'colour'"):
        Settings.from_dict({"colour": "red"})


def test_settings_are_versioned(light):
    light.create_study("s", Settings())
    assert light.change_settings("s", Settings(overlap=5)) == 2
    study = light.study("s")
    assert (study.version, study.settings.overlap) == (2, 5)


def test_two_questions_of_one_name_are_an_error(folder, capsys):
    rows = [{"prompt": p, "completions": ["a", "b"], "id": "x"} for p in "pq"]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["collect", "create", "s"])
    with pytest.raises(SystemExit):
        main(["collect", "import", "s", "t.jsonl"])
    assert "another question with the id 'x'" in capsys.readouterr().err
