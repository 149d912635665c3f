"""After a crash, `guerdon train --output RUN --resume` is enough; and a refused start leaves nothing behind."""

from __future__ import annotations

import pytest
from test_fit import politeness

from guerdon.cli import main
from guerdon.commands import train as command
from guerdon.data.write import write_jsonl
from guerdon.train import loop


def test_resume_needs_only_the_output(tmp_path, make_backbone, monkeypatch, capsys):
    write_jsonl(tmp_path / "data.jsonl", politeness(60))
    make_backbone(tmp_path / "base")
    start = f"train --data {tmp_path}/data.jsonl --model {tmp_path}/base --output {tmp_path}/run --batch-size 8 --seed 5 --probes 0 --save-every 2"

    class Crash(Exception):
        pass

    def crash(*args, **options):
        if args[0].step == 4:
            raise Crash
        return loop_replace(*args, **options)

    loop_replace = loop.replace
    monkeypatch.setattr(
        loop, "replace", lambda *a, **o: crash(*a, **o) if hasattr(a[0], "step") else loop_replace(*a, **o)
    )
    with pytest.raises(Crash):
        main(start.split())
    monkeypatch.setattr(loop, "replace", loop_replace)
    assert not (tmp_path / "run" / "run.json").exists()
    capsys.readouterr()
    main(["train", "--output", f"{tmp_path}/run", "--resume"])
    assert "resumed after step 4" in capsys.readouterr().out
    assert (tmp_path / "run" / "run.json").exists()


def test_other_options_than_the_run_was_started_with_are_still_refused(tmp_path, make_backbone, capsys):
    write_jsonl(tmp_path / "data.jsonl", politeness(30))
    make_backbone(tmp_path / "base")
    main(
        f"train --data {tmp_path}/data.jsonl --model {tmp_path}/base --output {tmp_path}/run --batch-size 8 --max-steps 1 --probes 0".split()
    )
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(SystemExit):
        main(["train", "--output", f"{tmp_path}/run", "--resume", "--seed", "9"])
    assert "--seed" in capsys.readouterr().err


@pytest.mark.parametrize("extra", ["--model nowhere/at/all", "--resume"])
def test_a_refused_start_leaves_no_empty_folder(tmp_path, extra, capsys):
    with pytest.raises(SystemExit):
        main(f"train --data {tmp_path}/none.jsonl --output {tmp_path}/run {extra}".split())
    assert not (tmp_path / "run").exists()


def test_parse_reads_the_saved_run_only_with_resume(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 7\n")
    assert command.parse(["--output", str(tmp_path), "--resume"]).seed == 7
    assert command.parse([f"--output={tmp_path}"]).seed == 0
