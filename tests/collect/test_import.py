"""Questions come in from any format, once, with their labels dropped or kept as the known answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from guerdon.cli import main
from guerdon.collect.access import Access
from guerdon.collect.settings import Settings
from guerdon.collect.store import Store
from guerdon.commands.collect_start import serving_of
from guerdon.commands.listen import bound
from guerdon.data.export import export
from guerdon.types import ConfigError, Judgement, Question
from tests.collect.work import question

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


def test_a_question_has_at_most_nine_candidates(light):
    light.create_study("s", Settings(k=0))
    added = light.add_questions("s", [question(k, k) for k in (2, 9, 10)])
    assert (added.added, added.wrong_size) == (2, 1)


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


def test_no_study_has_the_address_of_the_page_that_makes_one(folder, capsys):
    with pytest.raises(SystemExit):
        main(["collect", "create", "new"])
    assert "cannot be called 'new'" in capsys.readouterr().err


def test_two_questions_of_one_name_are_an_error(folder, capsys):
    rows = [{"prompt": p, "completions": ["a", "b"], "id": "x"} for p in "pq"]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["collect", "create", "s"])
    with pytest.raises(SystemExit):
        main(["collect", "import", "s", "t.jsonl"])
    assert "another question with the id 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["judgements", "label-studio", "argilla", "lmarena"])
def test_our_own_exports_come_in_again_whatever_was_answered(folder, capsys, format):
    """Every question once, also where the first that was said of it is no label: a skip, a flag, a gold item."""
    plan = [("gold", "ranked"), ("random", "skip"), ("random", "flag"), ("random", "all_bad"), ("training", "ranked")]
    if format == "lmarena":  # has no place for skips and flags
        plan = [(arm, answer) for arm, answer in plan if answer not in ("skip", "flag")]
    questions, said = [], []
    for n, (arm, answer) in enumerate(plan):
        prompt = ({"role": "user", "content": f"p{n}"},)
        question = Question(prompt, tuple(({"role": "assistant", "content": f"{t}{n}"},) for t in "ab"), ("m", "n"))
        questions.append(replace(question, id=f"q{n}"))
        for rater, (one_arm, one) in {"r1": (arm, answer), "r2": ("random", "ranked")}.items():
            ranks = (1.0, 2.0) if one == "ranked" else ()
            said.append(
                Judgement(f"{rater}-{n}", rater, "human", questions[-1], (0, 1), one, ranks, shown_at=1e9,
                          submitted_at=1e9 + 9, arm=one_arm)
            )  # fmt: skip
    export(said, "out.jsonl", format)
    main(["collect", "create", "s"])
    main(["collect", "import", "s", "out.jsonl"])
    assert f"{len(plan)} normal questions added" in capsys.readouterr().out
    with Store.open("study.db") as store:
        found = {question.prompt[0]["content"]: question.completions for question in store.questions("s")}
    assert found == {question.prompt[0]["content"]: question.completions for question in questions}


def test_what_the_command_line_does_is_in_the_audit_log(folder):
    (folder / "g.md").write_text("# Judge\n")
    main(["collect", "create", "s", "--guidelines", "g.md"])
    main(["collect", "import", "s", "q.jsonl"])
    with Store.open("study.db") as store:
        events = [(event.person, event.action) for event in Access(store).events(study="s")]
    assert sorted(events) == [
        ("command line", action) for action in ("guidelines changed", "questions imported", "study begun")
    ]


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_is_none_is_refused(folder, port):
    with pytest.raises(ConfigError, match="1 to 65535"):
        bound("127.0.0.1", port)


def test_a_port_that_is_taken_is_told_before_an_address_is_printed(folder, capsys):
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            main(["collect", "start", "--port", str(port)])
    out, err = capsys.readouterr()
    assert (out, f"--port {port}: is taken" in err, (folder / "study.db").exists()) == ("", True, False)


def test_port_0_prints_the_port_it_got(folder):
    command = [sys.executable, "-m", "guerdon", "collect", "start", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[2]
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"{address}/login", timeout=5) as reply:
                    assert reply.status == 200
                break
            except urllib.error.URLError:  # bound, and soon listening
                time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert not address.endswith((":0", ":8600"))


@pytest.mark.parametrize("how", [{"insecure": True}, {"behind_proxy": "10.0.0.1"}])
def test_nobody_listens_wider_without_a_secret(monkeypatch, how):
    wide = {"host": "0.0.0.0", "port": 1, "public_url": "http://x.example", "certificate": None, "key": None,
            "proxy": how.get("behind_proxy"), "insecure": how.get("insecure", False)}  # fmt: skip
    monkeypatch.delenv("GUERDON_SECRET", raising=False)
    with pytest.raises(ConfigError, match="GUERDON_SECRET"):
        serving_of(**wide)
    monkeypatch.setenv("GUERDON_SECRET", "s" * 40)
    assert serving_of(**wide).origins == {"http://x.example"}
