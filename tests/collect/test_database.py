"""The database: made and brought up to date, refused when it is of a newer version, backed up, and read by the other commands."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from guerdon.cli import main
from guerdon.collect.access import Access
from guerdon.collect.backup import backup
from guerdon.collect.database import parse, public
from guerdon.collect.schema import metadata
from guerdon.collect.store import Store
from guerdon.data.database import is_database, stream_database
from guerdon.data.read import load, source_name
from guerdon.types import ConfigError, DataError
from tests.collect.work import answer_all, answer_next, answered, study


def test_the_migrations_make_what_the_schema_says(store):
    def differences(db):
        return compare_metadata(MigrationContext.configure(db), metadata)

    assert store.read(differences) == []


def test_a_database_of_a_newer_version_is_refused(url):
    with Store.open(url) as store:
        store.write(lambda db: db.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(ConfigError, match=r"newer version of guerdon.*'9999'.*update guerdon"):
        Store.open(url)


def _of_form_1(url, names):
    with Store.open(url) as store:
        for name in names:
            Access(store).add(name, "rater", "correct horse battery")

        def back(db):
            db.execute(sa.text("UPDATE counter SET name = substr(name, 1, 60)"))
            db.execute(sa.text("DROP INDEX ix_person_folded"))
            db.execute(sa.text("ALTER TABLE person DROP COLUMN folded"))
            db.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))

        store.write(back)


def test_accounts_of_before_are_found_in_any_capitals(url):
    with Store.open(url) as store:
        study(store, 1)
        answer_next(store, "a" * 60)
    _of_form_1(url, ["Ärzte", "bob"])
    with Store.open(url) as store:
        assert store.counts("s").raters == {"a" * 60: 1}
        assert [Access(store).find(name).name for name in ("ÄRZTE", "BOB")] == ["Ärzte", "bob"]
        assert store.read(lambda db: compare_metadata(MigrationContext.configure(db), metadata)) == []


def test_two_accounts_of_one_name_stop_the_migration_and_are_told(tmp_path):
    url = str(tmp_path / "study.db")
    _of_form_1(url, ["Ärzte", "other"])
    with sqlite3.connect(url) as db:
        db.execute("UPDATE person SET name = 'ÄRZTE' WHERE name = 'other'")
    with pytest.raises(ConfigError, match=r"'Ärzte' and 'ÄRZTE'.*UPDATE person SET name = .* WHERE id = 2"):
        Store.open(url)
    with sqlite3.connect(url) as db:
        db.execute("UPDATE person SET name = 'other' WHERE id = 2")
    with Store.open(url) as store:
        assert Access(store).find("Other").name == "other"


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE invoices (id INTEGER)")
    with pytest.raises(ConfigError, match="invoices"):
        Store.open(str(path))
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_sqlite_writes_ahead_with_full_sync(tmp_path):
    with Store.open(str(tmp_path / "study.db")) as store:
        modes = store.read(lambda db: [db.scalar(sa.text(f"PRAGMA {p}")) for p in ("journal_mode", "synchronous")])
    assert modes == ["wal", 2]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://a/b", "mysql is not supported"),
        ("sqlite://", "in memory loses"),
        ("sqlite:////no/such/folder/study.db", "does not exist"),
        ("postgresql://me:secret@localhost:1/x", "cannot be opened"),
        ("://study", "is no database URL"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence_without_the_password(url, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Store.open(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        "user list",
        "user add ada",
        "user invite ada",
        "import demo questions.jsonl",
        "generate demo --prompts p.jsonl --model m --endpoint http://127.0.0.1:9/v1",
        "rate demo --model m",
        "prioritise demo --model m",
        "backup copy.db",
        "quality {url}",
        "export {url} --output out.jsonl",
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_mistyped_database_is_not_made(command, empty, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if empty:
        (tmp_path / "typo.db").touch()
    (tmp_path / "p.jsonl").write_text('{"prompt": "p"}\n')
    arguments = command.format(url="sqlite:///typo.db?study=demo").split()
    named = [] if "{url}" in command else ["--database", "typo.db"]
    with pytest.raises(SystemExit):
        main(["collect", *arguments, *named])
    assert "typo.db" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == ["p.jsonl"]


def test_an_empty_database_is_made_only_on_demand(url):
    with pytest.raises(ConfigError, match="no such database"):
        Store.open(url, make=False)
    Store.open(url).close()
    Store.open(url, make=False).close()


def test_the_study_in_a_url_is_for_readers():
    assert public(parse("sqlite:///a.db?study=s")) == "sqlite:///a.db"
    assert parse("postgresql://h/d?study=s").drivername == "postgresql+psycopg"
    assert is_database("sqlite:///a.db")
    assert not is_database("data/train.jsonl")


def test_the_reader_gives_what_stands_and_all_when_asked(store, url):
    study(store, 3, overlap=1)
    answer_next(store, "a", ranks=(0, 1), strength=2.0)
    back = store.undo("s", "a")
    store.submit(answered(back, ranks=(1, 0)), "s", assignment=back.id)
    answer_next(store, "a", answer="skip", rationale="unclear")
    address = f"{url}{'&' if '?' in url else '?'}study=s"
    standing = [row for _, row in stream_database(address)]
    assert [row["judgement"] for row in standing] == [j.id for j in store.current("s")]
    assert [row["judgement"] for _, row in stream_database(address + "&all=1")] == [j.id for j in store.judgements("s")]
    (changed, skipped) = standing
    assert (changed["ranks"], changed["answer"], changed["arm"]) == ([1.0, 0.0], "ranked", "random")
    assert changed["replaces"]
    assert (skipped["answer"], skipped["rationale"]) == ("skip", "unclear")
    (comparison,) = load(address).comparisons
    assert (comparison.ranks, comparison.annotator, comparison.prompt) == ((1.0, 0.0), "a", back.question.prompt)


def test_the_source_of_what_is_read_is_the_study_and_never_a_password():
    assert source_name("postgresql://me:secret@host/db?study=s") == "s"
    assert source_name("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


def test_the_reader_says_which_studies_there_are(light, tmp_path):
    study(light, 1)
    url = f"sqlite:///{tmp_path}/light.db"
    assert list(stream_database(url)) == []
    with pytest.raises(DataError, match=r"no study 'x' \(there are: s\)"):
        list(stream_database(f"{url}?study=x"))
    with pytest.raises(DataError, match="no file"):
        list(stream_database("sqlite:///nothing.db"))


def test_reading_needs_neither_sqlalchemy_nor_the_web():
    code = (
        "import sys, guerdon.data.read\n"
        "assert not {'sqlalchemy', 'alembic', 'fastapi', 'guerdon.collect'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_backup_is_whole_while_raters_work(light, tmp_path):
    study(light, 30)
    answer_all(light, "a", 10)
    size = backup(f"sqlite:///{tmp_path}/light.db", tmp_path / "copy.db")
    answer_all(light, "b", 10)
    assert size == (tmp_path / "copy.db").stat().st_size
    with Store.open(str(tmp_path / "copy.db")) as copy:
        assert len(list(copy.judgements("s"))) == copy.counts("s").judgements == 10
    assert not list(tmp_path.glob(".copy.db*"))


def test_a_backup_that_cannot_be_made_leaves_nothing(tmp_path):
    (tmp_path / "broken.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match="cannot be backed up"):
        backup(str(tmp_path / "broken.db"), tmp_path / "copy.db")
    with pytest.raises(ConfigError, match="no such database"):
        backup(str(tmp_path / "none.db"), tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.db"]


def test_a_backup_that_has_no_place_blames_the_place(light, tmp_path):
    study(light, 1)
    with pytest.raises(ConfigError, match=r"/proc/copy\.db: cannot be written"):
        backup(f"sqlite:///{tmp_path}/light.db", Path("/proc/copy.db"))


def test_a_database_that_cannot_be_written_can_be_looked_at(tmp_path):
    """As somebody without the right to write, which whoever runs the tests may have."""
    with Store.open(str(tmp_path / "study.db")) as store:
        study(store, 2, overlap=2)
        answer_all(store, "a")
    backup(str(tmp_path / "study.db"), tmp_path / "copy.db")
    before = sorted(path.name for path in tmp_path.iterdir())
    code = (
        "import os, sys; from guerdon.collect.access import Access; from guerdon.collect.store import Store\n"
        "refuse = os.access; os.access = lambda path, mode: mode != os.W_OK and refuse(path, mode)\n"
        "store = Store.open(sys.argv[1], make=False)\n"
        "print(len(list(store.judgements('s'))), Access(store).people())\n"
        "try: store.set_state('s', 'closed')\n"
        "except Exception as error: print(error.orig)\n"
    )
    for name in ("study.db", "copy.db"):  # with and without a log of its own
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.splitlines() == ["2 []", "attempt to write a readonly database"], done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_database_and_its_backups_are_for_their_owner_alone(light, tmp_path):
    study(light, 1)
    backup(f"sqlite:///{tmp_path}/light.db", tmp_path / "copy.db")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_backup_takes_no_file_s_place_unless_it_is_told_to_and_makes_no_folder(light, tmp_path):
    url, notes = f"sqlite:///{tmp_path}/light.db", tmp_path / "notes.txt"
    notes.write_text("of value")
    with pytest.raises(ConfigError, match=r"exists.*--overwrite"):
        backup(url, notes)
    assert notes.read_text() == "of value"
    with pytest.raises(ConfigError, match=r"folder .* does not exist"):
        backup(url, tmp_path / "new" / "copy.db")
    assert not (tmp_path / "new").exists()
    assert backup(url, notes, overwrite=True) == notes.stat().st_size > 1000
    with pytest.raises(ConfigError, match="is the database itself"):
        backup(url, tmp_path / "light.db", overwrite=True)


def test_postgresql_is_backed_up_by_its_own_tool(new_postgresql, tmp_path, monkeypatch):
    url = new_postgresql()
    Store.open(url).close()
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="pg_dump --format=custom"):
        backup(url, tmp_path / "copy.dump")
