"""The page of a policy run: its numbers are those of the files, and what is missing, unfinished or masked does not stop it."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from policy_folders import metrics, sample, write_run

from guerdon.cli import main
from guerdon.diagnose.monitor import Monitor, Observation, Settings
from guerdon.diagnose.monitor_curve import fit_steps
from guerdon.diagnose.run_charts import smoothed
from guerdon.diagnose.run_files import read_runs
from guerdon.diagnose.run_page import write_run_page
from guerdon.diagnose.run_text import findings_of, number, tiles_of
from guerdon.types import DataError


def page_of(tmp_path: Path, *runs: Path) -> str:
    write_run_page(runs, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def text_of(html: str) -> str:
    """What a reader sees, without pictures and style."""
    html = re.sub(r"<(style|svg).*?</\1>", " ", html, flags=re.DOTALL)
    html = re.sub(r'<span class="flag">(.*?)</span>', r"\1", html)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)))


def warnings_of(run: Path) -> list[str]:
    return [text for text, is_warning in findings_of(read_runs([run])[0]) if is_warning]


def test_tiles_are_the_numbers_of_the_file(tmp_path):
    run = write_run(tmp_path / "run", [metrics(step) for step in range(1, 41)], saved_step=40)
    assert [tile[:2] for tile in tiles_of(read_runs([run])[0])] == [
        ("Reward", "0.250 → 3.85"),  # means of steps 1-4 and 37-40
        ("Held-out", "0.525 → 0.885"),
        ("KL", "9.62"),  # 38.5 / 4 = 9.625
        ("Monitor", "ok"),
    ]
    text = text_of(page_of(tmp_path, run))
    assert "0.250 → 3.85" in text
    assert "PPO: 40 steps, 160 answers; a nat of KL costs 0.05." in text
    assert "Held-out follows the proxy. The policy may be used" in text
    assert not warnings_of(run)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.000"), (-0.4531, "-0.453"), (9.625, "9.62"), (31.64, "31.6"), (594.5, "594"), (1234.0, "1,234")],
)
def test_numbers_are_short(value, shown):
    assert number(value) == shown


def test_nothing_is_fetched_and_texts_are_escaped(tmp_path):
    answers = [sample(1, 0, "<script>alert(1)</script> a", 1.0), sample(1, 0, "b", 0.5)]
    html = page_of(tmp_path, write_run(tmp_path / "run", [metrics(step) for step in range(1, 13)], answers))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert not re.search(r'(?:src|href)="(?!#)|url\((?!#)|@import|<link|<iframe', html)
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html


def test_a_stop_is_the_first_finding_and_says_where_to_go_back_to(tmp_path):
    reason = "Held-out has fallen by 0.2."
    rows = [
        metrics(step, status="ok" if step < 20 else "warn" if step < 25 else "stop", reason=reason, best_step=12)
        for step in range(1, 41)
    ]
    run = write_run(tmp_path / "run", rows, saved_step=40)
    first = findings_of(read_runs([run])[0])[0]
    assert first[1]
    assert first[0].startswith(
        f"The monitor said stop at step 25: {reason} Held-out was highest about step 12, where KL was 3.00"
    )
    assert "The saved policy is the last one" in first[0]
    assert tiles_of(read_runs([run])[0])[3] == ("Monitor", "stop", "first at step 25")
    html = page_of(tmp_path, run)
    for mark in ("warning", "stop", "held-out highest", "saved policy"):
        assert f">{mark}</text>" in html
    rolled = write_run(tmp_path / "rolled", rows, saved_step=11)
    assert "The saved policy is that of step 11" in findings_of(read_runs([rolled])[0])[0][0]


def test_an_unfinished_run_has_a_page_though_its_last_line_is_torn(tmp_path):
    run = write_run(tmp_path / "run", [metrics(step) for step in range(1, 13)])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "prox')
    text = text_of(page_of(tmp_path, run))
    assert "The run is not finished: 12 of 40 steps are shown. Go on with --resume." in text
    assert "none yet" in text


def test_a_broken_line_is_named(tmp_path):
    run = write_run(tmp_path / "run", [metrics(1)])
    (run / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: is not a row"):
        read_runs([run])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_run_of_few_steps_has_a_page(tmp_path, steps):
    assert "Reward" in text_of(
        page_of(tmp_path, write_run(tmp_path / "run", [metrics(s) for s in range(1, steps + 1)]))
    )


def test_without_held_out_the_page_says_what_it_cannot_see(tmp_path):
    nothing = {"held_out": None, "held_out_n": 0, "held_out_std": None, "best_step": None}
    run = write_run(tmp_path / "run", [metrics(step, **nothing) for step in range(1, 21)], [sample(1, 0, "a", 1.0)])
    text = text_of(page_of(tmp_path, run))
    assert "Nothing was held out" in warnings_of(run)[0]
    assert "nothing was held out" in text
    assert "not checked" in text


def test_masked_samples_are_counted_and_a_step_without_a_reward_has_no_number(tmp_path):
    rows = [metrics(step, masked=1) for step in range(1, 21)]
    rows[9] |= {"proxy": None, "proxy_std": None, "within_std": None, "masked": 4}
    answers = [sample(1, 0, "good", 1.0), sample(1, 0, "bad", None), sample(20, 0, "nothing", None)]
    run = write_run(tmp_path / "run", rows, answers)
    text = text_of(page_of(tmp_path, run))
    assert "23 of 80 samples had no reward" in warnings_of(run)[0]
    assert "23 answers without a reward" in text
    assert "Step 20: no answer has a reward." in text
    assert "nan" not in text


def test_answers_are_the_middle_and_the_highest_with_all_that_was_measured(tmp_path):
    answers = [sample(1, 0, f"answer {i}", float(i), held_out=i / 10, parts={"rm": i, "short": -1.0}) for i in range(5)]
    answers += [sample(1, 0, "best but unchecked", 9.0)]
    text = text_of(page_of(tmp_path, write_run(tmp_path / "run", [metrics(1)], answers)))
    assert (
        "Middle reward reward 2.00 held-out 0.200 · KL 0.250 nats · 7 tokens question 0 answer 2 rm 2.00 short -1.00"
        in text
    )
    assert "Highest reward reward 4.00 held-out 0.400 · KL 0.250 nats · 7 tokens question 0 answer 4" in text
    assert "unchecked" not in text


def test_a_held_out_reward_that_never_answered_is_not_taken_for_none(tmp_path):
    nothing = {"held_out": None, "held_out_n": 0, "held_out_asked": 4, "best_step": None, "status": "warn"}
    run = write_run(tmp_path / "run", [metrics(step, **nothing) for step in range(1, 31)], saved_step=30)
    (found,) = [text for text, _ in findings_of(read_runs([run])[0]) if "held-out reward" in text.lower()]
    assert found.startswith("A held-out reward was given, but none of the 120 scores asked of it came")
    assert ("Held-out", "–", "no score came") in tiles_of(read_runs([run])[0])


def test_two_runs_share_charts_and_the_better_in_held_out_is_named(tmp_path):
    careful = write_run(tmp_path / "careful", [metrics(step) for step in range(1, 41)], [sample(1, 0, "a", 1.0)], 40)
    hacked = [metrics(step, proxy=0.2 * step, held_out=0.5 - 0.01 * step, kl=4.0 * step) for step in range(1, 31)]
    greedy = write_run(tmp_path / "greedy", hacked, [sample(1, 0, "b", 1.0)], 30, beta=0.0)
    text = text_of(html := page_of(tmp_path, careful, greedy))
    assert (
        "Of these policies take that of careful: held-out is what counts. greedy has the higher reward and the worse"
        in text
    )
    assert "What does it answer? · careful" in text
    assert "What does it answer? · greedy" in text
    assert html.count('<dl class="tiles">') == 2
    assert re.search(r"Held-out, watched: careful: from 0\.525 to 0\.885; greedy: from 0\.48 to 0\.21", html)
    assert "KL costs nothing" in text


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    paths = [write_run(tmp_path / parent / "ppo", [metrics(1)]) for parent in ("a", "b")]
    assert [run.name for run in read_runs(paths)] == ["a/ppo", "b/ppo"]


def planted_rows():
    """Gold d (1 - 0.5 log d) above 0.2, whose peak lies at d = exp(1), KL e^2 = 7.39 nats."""
    rng = np.random.default_rng(0)
    for step in range(1, 121):
        kl = 0.2 * step
        d = kl**0.5
        gold = 0.2 + (d * (1 - 0.5 * np.log(d)) if step > 4 else 0.0) + 0.01 * float(rng.normal())
        yield metrics(step, kl=kl, sqrt_kl=d, held_out=gold, held_out_n=64)


def test_the_fitted_peak_is_the_planted_one_and_is_marked(tmp_path):
    run = write_run(tmp_path / "run", list(planted_rows()))
    fit = read_runs([run])[0].fit()
    assert fit.refusal == ""
    assert fit.peak_kl == pytest.approx(np.exp(2), rel=0.05)
    html = page_of(tmp_path, run)
    assert f">estimated peak, {fit.peak_kl:.1f} nats</text>" in html
    assert "It has gone too far" in text_of(html)


def test_the_fit_is_that_of_the_monitor():
    monitor, rng = Monitor(Settings(steps=60)), np.random.default_rng(1)
    seen = [(48, 0.3 * step, rng.normal(0.1 * step**0.5, 0.3, size=48)) for step in range(1, 61)]
    for step, (_, kl, gold) in enumerate(seen, 1):
        verdict = monitor.observe(Observation(step, kl, 0.1 * step, held_out=gold))
    n, kl = (np.array([row[i] for row in seen], dtype=float) for i in (0, 1))
    assert fit_steps(n, kl, np.array([row[2].mean() for row in seen])) == verdict.fit


def test_smoothing_is_a_running_mean_that_passes_over_gaps():
    values = np.array([1.0, np.nan, 3.0, 4.0])
    assert smoothed(values) == pytest.approx([1.0, 2.0, 3.5, 3.5])


def test_a_beta_that_never_moves_has_no_chart_and_ppo_extras_only_where_there_are_any(tmp_path):
    html = page_of(tmp_path, write_run(tmp_path / "a", [metrics(step) for step in range(1, 5)]))
    assert "Beta, reward per nat" not in html
    assert "How does PPO do?" not in html
    rows = [metrics(step, beta=0.05 * step, explained_variance=-0.5) for step in range(1, 5)]
    run = write_run(tmp_path / "b", rows)
    html = page_of(tmp_path, run)
    assert "Beta, reward per nat" in html
    assert "How does PPO do?" in html
    assert any("explained variance -0.500" in text for text in warnings_of(run))


def test_the_command_writes_into_the_first_folder(tmp_path, capsys):
    run = write_run(tmp_path / "run", [metrics(1)])
    main(["diagnose", "run", str(run)])
    assert capsys.readouterr().out.strip() == f"page: {run}/report.html"
    assert (run / "report.html").is_file()
    main(["diagnose", "run", str(run), str(run), "--output", f"{tmp_path}/both.html", "--title", "Side by side"])
    assert "<h1>Side by side</h1>" in (tmp_path / "both.html").read_text()


def test_a_folder_that_is_no_policy_run_is_one_sentence(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    for folder, said in ((tmp_path, "holds no step of a policy run"), (tmp_path / "none", "no metrics.jsonl")):
        with pytest.raises(SystemExit):
            main(["diagnose", "run", str(folder)])
        assert said in capsys.readouterr().err
