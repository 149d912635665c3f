"""Models on the same pairs: lined up by id, differences that are paired, groups that follow from the tests."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from test_metrics import change, make_table, random_table

from guerdon.cli import main
from guerdon.evaluate.compare import align, compare
from guerdon.evaluate.compare_render import render_comparison
from guerdon.evaluate.intervals import bootstrap_means, prompt_bootstrap
from guerdon.evaluate.metrics import evaluate
from guerdon.evaluate.paired import mcnemar, sign_flip
from guerdon.types import ConfigError, DataError


def noisy(truth, sd, rng):
    """Scores for pairs whose first answer is better by `truth`."""
    return [[gap, 0.0] for gap in truth + rng.normal(scale=sd, size=len(truth))]


@pytest.fixture(scope="module")
def models():
    """Four models on 600 pairs of 200 prompts: strong, strong too, weak, and a coin."""
    rng = np.random.default_rng(0)
    truth = rng.exponential(size=600)
    prompts = [str(i // 3) for i in range(600)]
    ranks = [[1, 2]] * 600
    chars = rng.integers(1, 99, size=(600, 2))
    sds = {"strong": 0.8, "other": 0.85, "weak": 3.0, "coin": 1000.0}
    return {name: make_table(noisy(truth, sd, rng), ranks, prompts, chars) for name, sd in sds.items()}


def test_each_model_has_the_accuracy_and_interval_of_its_own_evaluation(models):
    found = compare(models)
    assert [one.name for one in found.models][-1] == "coin"
    for one in found.models:
        e = evaluate(models[one.name])
        assert one.accuracy == pytest.approx(e.accuracy)
        assert (one.low, one.high) == pytest.approx((e.accuracy_low, e.accuracy_high), abs=0.01)
        assert one.half_width == pytest.approx((one.high - one.low) / 2, rel=0.1)


def test_groups_follow_from_the_corrected_tests(models):
    found = compare(models)
    letters = {one.name: set(one.groups.split()) for one in found.models}
    for one in found.differences:
        assert bool(letters[one.first] & letters[one.second]) == (not one.is_significant)
        assert one.is_significant == (one.p_holm < 0.05)
        assert one.p_holm >= one.p
        assert one.difference >= 0
    assert letters["strong"] & letters["other"]
    assert not letters["strong"] & letters["coin"]
    assert (found.models[-1].best_rank, found.models[-1].worst_rank) == (4, 4)
    assert {(one.best_rank, one.worst_rank) for one in found.models[:2]} == {(1, 2)}


def test_differences_match_tests_on_the_raw_outcomes(models):
    one = next(d for d in compare(models).differences if {d.first, d.second} == {"strong", "weak"})
    right = {name: models[name].pairs().margin > 0 for name in (one.first, one.second)}
    delta = right[one.first].astype(float) - right[one.second]
    b, c = int((delta > 0).sum()), int((delta < 0).sum())
    assert (one.only_first, one.only_second) == (b, c)
    assert one.mcnemar == pytest.approx(stats.binomtest(b, b + c).pvalue)
    assert one.mcnemar_mid == mcnemar(b, c)[1]
    assert one.p == sign_flip(delta, models["strong"].pairs().group)
    assert one.discordance == pytest.approx((b + c) / 600)
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert one.smallest == pytest.approx(z * (one.design_effect * one.discordance / 600) ** 0.5)
    alone = sum(x.var() / 600 for x in right.values())  # without clustering; prompts can only widen it
    assert z * alone**0.5 <= one.smallest_unpaired <= 1.3 * z * alone**0.5


def test_the_paired_interval_against_scipy():
    """One pair per prompt: scipy's paired percentile bootstrap of the difference, within Monte Carlo error."""
    rng = np.random.default_rng(1)
    one = (rng.random(800) < 0.7).astype(float)
    two = np.where(rng.random(800) < 0.7, one, rng.random(800) < 0.6).astype(float)
    means = bootstrap_means(np.stack([one, two], axis=1), np.arange(800), resamples=20_000)
    expected = stats.bootstrap(
        (one, two), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, vectorized=True,
        n_resamples=20_000, method="percentile", rng=np.random.default_rng(2),
    )  # fmt: skip
    low, high = np.quantile(means[:, 0] - means[:, 1], [0.025, 0.975])
    interval = expected.confidence_interval
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=0.003)
    assert np.std(means[:, 0] - means[:, 1]) == pytest.approx(expected.standard_error, rel=0.03)
    alone = prompt_bootstrap(one - two, np.arange(800), resamples=20_000)
    assert (low, high) == pytest.approx(alone, abs=0.003)


def test_a_model_against_itself():
    table = random_table()
    (one,) = compare({"a": table, "b": table}).differences
    assert (one.difference, one.low, one.high, one.p, one.mcnemar) == (0, 0, 0, 1, 1)
    assert not one.is_significant


def test_swapped_names_and_row_order_change_nothing(models):
    order = np.random.default_rng(4).permutation(600)
    rows = np.stack([2 * order, 2 * order + 1], axis=1).ravel()
    shuffled = {
        name: change(table, **{c: getattr(table, c)[rows] for c in table.__dataclass_fields__ if c != "gold"})
        for name, table in reversed(models.items())
    }
    one, two = compare(models), compare(shuffled)
    assert [(m.name, m.accuracy, m.groups) for m in one.models] == [(m.name, m.accuracy, m.groups) for m in two.models]
    assert [d.p for d in one.differences] == [d.p for d in two.differences]
    mixed = compare({"strong": models["strong"], "weak": shuffled["weak"]})
    assert mixed.n == 600
    assert mixed.differences[0].p == next(d.p for d in one.differences if {d.first, d.second} == {"strong", "weak"})


def test_only_common_scored_pairs_are_compared():
    one = make_table([[1, 0], [1, 0], [0, 1], [1, 1]], [[1, 2], [1, 2], [1, 2], [1, 1]])
    two = make_table([[1, 0], [np.nan, 0], [1, 0]], [[1, 2], [1, 2], [1, 2]])
    found = compare({"one": one, "two": two})
    assert (found.n, found.left_out, found.unscored) == (2, 1, 1)
    assert found.models[0].name == "two"


def test_ids_that_occur_twice_are_told_apart_by_their_turn():
    one = make_table([[1, 0], [0, 1]], [[1, 2], [1, 2]])
    one = change(one, comparison=np.array(["x"] * 4, dtype=object))
    aligned, left_out = align({"one": one, "two": change(one, score=-one.score)})
    assert left_out == 0
    assert (aligned["one"].score == -aligned["two"].score).all()


def test_what_cannot_be_compared_is_said():
    table = random_table(20)
    with pytest.raises(ConfigError, match="at least two"):
        compare({"a": table})
    with pytest.raises(DataError, match="other ranks"):
        compare({"a": table, "b": change(table, rank=3 - table.rank)})
    other = change(table, comparison=np.array([f"z{c}" for c in table.comparison], dtype=object))
    with pytest.raises(DataError, match="same data"):
        compare({"a": table, "b": other})


def test_the_record_is_plain_json_and_rendered(models):
    found = compare(models)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {"models", "differences", "n", "prompts", "left_out", "unscored", "baselines", "level"} == record.keys()
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(render_comparison(found))
    text = console.file.getvalue()
    assert "4 models on 600 decided pairs from 200 prompts" in text
    assert all(name in text for name in (*models, "longer", "random", "constant"))
    assert "1 – 2" in text


def test_the_command(models, tmp_path, capsys):
    for name, table in models.items():
        table.write(tmp_path / f"{name}.v1.jsonl")
    paths = [str(tmp_path / f"{name}.v1.jsonl") for name in models]
    main(["compare", *paths, "--json", str(tmp_path / "c.json")])
    record = json.loads((tmp_path / "c.json").read_text())
    assert {one["name"] for one in record["models"]} == {f"{name}.v1" for name in models}
    assert record["differences"] == compare(
        {f"{name}.v1": table for name, table in models.items()}
    ).to_dict()["differences"]  # fmt: skip
    main(["compare", *paths[:2], "--names", "A", "B"])
    assert " A " in capsys.readouterr().out
    for wrong, message in (
        (["--names", "A"], "1 names for 2"),
        (["--level", "95"], "level"),
        (["--names", "A", "A"], "same"),
    ):
        with pytest.raises(SystemExit):
            main(["compare", *paths[:2], *wrong])
        assert message in capsys.readouterr().err
