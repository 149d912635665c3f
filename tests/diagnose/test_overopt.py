"""Planted over-optimisation is found, its absence is not called over-optimisation, and the page and table say so."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
from inspect import signature
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from benchmarks.pools import alpaca_eval
from guerdon.aggregate import combine, parse_rule
from guerdon.cli import main
from guerdon.commands.overopt import overopt
from guerdon.diagnose.kl_fits import Fit
from guerdon.diagnose.overopt import RULES, Ladder, Overoptimisation, Peak, overoptimisation
from guerdon.diagnose.overopt_advice import advise
from guerdon.diagnose.winners import LAPLACE, NORMAL, Example, Tail, Trait, tail_index, traits
from guerdon.evaluate.best_of_n import Curve, best_of_n
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.pools import Pool
from guerdon.types import ConfigError, DataError


def pool_of(score, gold, **columns):
    """(prompts, candidates) arrays as a pool."""
    prompts, candidates = score.shape
    names = np.repeat(np.arange(prompts), candidates)
    has_gold = gold is not None
    table = CandidateTable.build(names, score.ravel(), gold=gold.ravel() if has_gold else None, **columns)
    return Pool(table, {}, has_gold, {})


def planted(seed=0, prompts=300, candidates=64, hacked=0.03):
    """A reward that follows gold but for a few answers that fool it: they score highest and are worth little."""
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=(prompts, candidates))
    score = gold + 0.5 * rng.normal(size=gold.shape)
    fools = rng.random(gold.shape) < hacked
    return np.where(fools, 6 + score, score), np.where(fools, gold - 2, gold)


def test_planted_hacking_is_found():
    found = overoptimisation(pool_of(*planted()), resamples=500)
    peak = found.reward.peak
    assert 4 <= peak.n <= 16
    assert peak.n_low <= peak.n <= peak.n_high
    assert peak.is_significant
    assert peak.fall > peak.fall_low > 0
    assert (np.diff(found.reward.proxy.mean) > 0).all()
    first = advise(found)[0]
    assert first.is_warning
    assert f"Gold is highest at best of {peak.n}" in first.text
    assert any("worth less than random answers" in one.text for one in advise(found))


def test_an_honest_reward_is_not_accused():
    found = overoptimisation(pool_of(*planted(hacked=0)), resamples=500)
    assert found.reward.peak.n == 64
    assert not found.reward.peak.is_significant
    assert not [one for one in advise(found) if one.is_warning]
    assert "Gold still rises" in advise(found)[0].text


def test_a_reward_that_knows_nothing_is_rarely_said_to_fall():
    """Flat truth: the peak is chance, and choosing it must not count as evidence."""
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        score, gold = rng.normal(size=(2, 80, 32))
        peak = overoptimisation(pool_of(score, gold), resamples=200, seed=seed).reward.peak
        alarms += peak.is_significant
    assert alarms <= 18  # 5 % of 200 is 10


def test_a_reward_against_gold_is_refused():
    score, gold = planted(hacked=0)
    texts = [one.text for one in advise(overoptimisation(pool_of(-score, gold), resamples=200)) if one.is_warning]
    assert any("not shown to be worth more than a random answer" in text for text in texts)


def test_numbers_by_hand():
    score, gold = np.array([[1.0, 2, 3], [1, 1, 5]]), np.array([[0.0, 6, 3], [1, 3, 2]])
    found = overoptimisation(pool_of(score, gold), resamples=50)
    assert found.n.tolist() == [1, 2, 3]
    # best of 2: picks 6, 3, 3 of the first prompt; 2 (a tie of 1 and 3), 2, 2 of the second
    assert found.reward.gold.mean == pytest.approx([2.5, 3.0, 2.5])
    assert found.oracle.mean == pytest.approx([2.5, (15 / 3 + 8 / 3) / 2, 4.5])
    assert found.reward.regret.mean[1:] == pytest.approx([(23 / 6 - 3) / (23 / 6 - 2.5), 1.0])
    assert math.isnan(found.reward.regret.mean[0])
    within = np.concatenate([[-1, 0, 1], np.array([1, 1, 5]) - 7 / 3])
    spread = within.std()
    assert found.reward.proxy.mean == pytest.approx([0, (2 / 3 + 4 / 3) / 2 / spread, (1 + 8 / 3) / 2 / spread])
    assert (found.reward.peak.n, found.reward.peak.fall) == (2, pytest.approx(0.5))


def test_differences_are_paired():
    """A member that equals the reward has the same interval, and its gain over itself is nothing."""
    score, gold = planted(hacked=0)
    members = np.stack([score.ravel()] * 3, axis=1)
    found = overoptimisation(pool_of(score, gold, members=members), resamples=200)
    for ladder in (*found.ensemble, *found.members):
        assert ladder.gain == pytest.approx((0, 0, 0), abs=1e-12)
        assert ladder.gold.low == pytest.approx(found.reward.gold.low)
    assert [ladder.name for ladder in found.ensemble] == ["mean", "min", "mean-std:1", "mean-var:0.5"]


def test_permuting_members_changes_no_gold_curve():
    rng = np.random.default_rng(2)
    score, gold = planted(prompts=40)
    members = score.reshape(-1, 1) + rng.normal(size=(score.size, 4))
    rules = ("mean", "min", "mean-std:1", "mean-var:0.5", "quantile:0.25")
    for standardised in (False, True):
        options = {"rules": rules, "standardised": standardised, "resamples": 50}
        found = overoptimisation(pool_of(score, gold, members=members), **options)
        other = overoptimisation(pool_of(score, gold, members=members[:, [2, 0, 3, 1]]), **options)
        for one, two in zip(found.ensemble, other.ensemble, strict=True):
            assert np.array_equal(one.gold.mean, two.gold.mean), one.name
            assert one.gain == pytest.approx(two.gain, abs=1e-12)


def test_independent_members_help_and_the_worst_case_resists_planted_fools():
    rng = np.random.default_rng(3)
    gold = rng.normal(size=(200, 32))
    noise = 2.0 * rng.normal(size=(gold.size, 4))
    noise[rng.random(noise.shape) < 0.05] += 8  # each member has holes of its own
    members = gold.reshape(-1, 1) + noise
    pool = pool_of(members[:, 0].reshape(gold.shape), gold, members=members)
    found = overoptimisation(pool, resamples=300)
    gains = {ladder.name: ladder.gain for ladder in found.ensemble}
    assert all(gain[1] > 0 for gain in gains.values())
    assert gains["min"][0] > gains["mean"][0]
    assert any("The ensemble helps" in one.text for one in advise(found))
    expected = best_of_n(combine(members, parse_rule("min")), gold.ravel(), pool.table.starts(), found.n)[:, :, 0]
    assert found.ensemble[1].gold.mean == pytest.approx(expected.mean(0))


def test_small_pools_are_set_aside_and_counted():
    sizes = [20] * 38 + [3, 1]
    rng = np.random.default_rng(4)
    names = np.repeat(np.arange(40), sizes)
    table = CandidateTable.build(names, rng.normal(size=len(names)), gold=rng.normal(size=len(names)))
    found = overoptimisation(Pool(table, {}, True, {"answers without gold": 4}), resamples=50)
    assert (found.n[-1], found.prompts) == (3, 39)  # the smallest 5 % is one of the two
    assert found.left_out == {"answers without gold": 4, "prompts with fewer than 3 candidates": 1}
    wider = overoptimisation(Pool(table, {}, True, {}), largest=20, resamples=50)
    assert (wider.n[-1], wider.prompts, wider.candidates) == (20, 38, 760)
    with pytest.raises(ConfigError, match="no prompt has 21 candidates; the largest pool has 20"):
        overoptimisation(Pool(table, {}, True, {}), largest=21)
    with pytest.raises(ConfigError, match="must be 2 or more, got 1"):
        overoptimisation(Pool(table, {}, True, {}), largest=1)
    with pytest.raises(DataError, match="needs 2 or more"):
        overoptimisation(Pool(table.where(slice(None, None, 20)), {}, True, {}))


def test_without_gold_there_is_a_ladder_and_a_warning():
    found = overoptimisation(pool_of(planted(prompts=20)[0], None), resamples=50)
    assert not found.has_gold
    assert (found.reward.gold, found.oracle, found.tail, found.examples) == (None, None, None, ())
    assert [one.is_warning for one in advise(found)] == [True]
    assert "hacking cannot be seen without gold" in advise(found)[0].text


def test_one_prompt_gives_estimates_without_intervals():
    found = overoptimisation(pool_of(*planted(prompts=1)), resamples=50)
    assert np.isnan(found.reward.gold.low).all()
    assert math.isnan(found.reward.peak.p)
    assert not found.reward.peak.is_significant
    assert "too few prompts" in found.reward.fit.refusal
    json.dumps(found.to_dict(), allow_nan=False)


def test_traits_of_the_winner_by_enumeration():
    rng = np.random.default_rng(5)
    score = rng.integers(4, size=(3, 6)).astype(float)
    texts = [f"{'**bold**' * int(x)} {'# head' * int(y)}\n- item"[: int(z)] for x, y, z in rng.integers(1, 25, (18, 3))]
    table = pool_of(score, None, text=texts, source=["a", "b"] * 9).table
    found = {trait.name: trait for trait in traits(table, 3, resamples=50)}
    assert set(found) == {"length", "with a list", "with bold text", "with a heading", "from a", "from b"}
    lengths = np.array([len(text) for text in texts]).reshape(3, 6)
    picks = []
    for p in range(3):
        for subset in combinations(range(6), 3):
            best = score[p, list(subset)].max()
            picks.append(lengths[p][score[p] == best].mean())
    assert found["length"].winner == pytest.approx(np.mean(picks))
    assert found["length"].random == pytest.approx(lengths.mean())
    assert found["from a"].change == pytest.approx(-found["from b"].change)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("- one\n- two", "with a list"),
        ("1. one", "with a list"),
        ("a **b** c", "with bold text"),
        ("## A", "with a heading"),
    ],
)
def test_marks_are_seen(text, name):
    table = pool_of(np.array([[1.0, 0.0]]), None, text=[text, "plain - 1.5 * 2 # text"]).table
    found = {trait.name: trait for trait in traits(table, 2)}
    assert (found[name].random, found[name].winner) == (0.5, 1.0)
    assert sum(trait.winner for trait in found.values() if trait.name != "length") == 1


def test_tail_constants_are_those_of_the_distributions():
    for law, constant in ((stats.norm, NORMAL), (stats.laplace, LAPLACE)):
        u = law.ppf(0.95)
        value = integrate.quad(lambda x, law=law: law.sf(x) / x, u, np.inf)[0] / 0.05  # E log(x / u) by parts
        assert value == pytest.approx(constant, abs=1e-5)


@pytest.mark.parametrize("freedom", [None, 3.0, 2.0])
def test_tail_index_tells_light_from_heavy(freedom):
    rng = np.random.default_rng(6)
    gold = rng.normal(size=(400, 50))
    error = rng.normal(size=gold.shape) if freedom is None else rng.standard_t(freedom, size=gold.shape)
    found = tail_index(pool_of(gold + error, gold).table, resamples=300)
    assert found.low < found.hill < found.high
    if freedom is None:
        assert found.hill == pytest.approx(NORMAL, abs=0.02)
    else:
        assert found.low > LAPLACE
    assert tail_index(pool_of(gold[:4], gold[:4] * 0).table) is None


def test_real_pool_under_length(real_data):
    table = alpaca_eval(real_data)
    found = overoptimisation(Pool(table.with_score(table.chars), {}, True, {}), resamples=500, examples=2)
    published = {1: 10.54, 2: 15.22, 4: 21.84, 8: 30.88, 16: 40.69, 32: 45.69, 48: 44.81}
    at = [found.n.tolist().index(n) for n in published]
    assert 100 * found.reward.gold.mean[at] == pytest.approx(list(published.values()), abs=0.005)
    assert np.array_equal(found.reward.gold.mean, found.length.mean)
    assert found.reward.peak.n == 32
    assert not found.reward.peak.is_significant  # 0.88 points with a standard error of 0.6
    assert found.reward.fit.refusal
    assert found.winners[0].name == "length"
    assert found.winners[0].low > 1000
    assert len(found.examples) == 2


def write_pool(path, **changes):
    score, gold = planted(prompts=30, candidates=16)
    rng = np.random.default_rng(7)
    words = ["<script>alert(1)</script>", "**b**", "- x\n- y", "plain"]
    texts = [words[i] * int(k) for i, k in zip(rng.integers(4, size=480), rng.integers(1, 40, 480), strict=True)]
    members = score.reshape(-1, 1) + rng.normal(size=(480, 3))
    table = pool_of(score, gold, text=texts, members=members, source=["p", "q<i>"] * 240).table
    replace(table, **changes).write(path)


def test_command_writes_json_and_page(tmp_path, capsys):
    pool, out, page = tmp_path / "pool.jsonl", tmp_path / "o.json", tmp_path / "o.html"
    write_pool(pool)
    main(["diagnose", "overopt", str(pool), "--json", str(out), "--html", str(page), "--resamples", "100"])
    printed = capsys.readouterr().out
    assert "480 answers to 30 prompts, best of 1 to 16" in printed
    assert "mean-var:0.5" in printed
    result = json.loads(out.read_text())
    assert len(result["reward"]["gold"]["mean"]) == len(result["n"])
    html = page.read_text()
    assert html.count("<svg") == 2 + 4  # ladder, winners, and one per rule
    assert "<script" not in html.replace("&lt;script", "")
    assert not re.search(r'(?:src|href)="?https?:', html)
    assert "Where does it pick worst?" in html
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL).lower().replace("finance", "")


def test_command_without_gold_makes_a_page_too(tmp_path, capsys):
    pool, page = tmp_path / "pool.jsonl", tmp_path / "o.html"
    write_pool(pool, gold=np.full(480, np.nan))
    main(["diagnose", "overopt", str(pool), "--html", str(page), "--resamples", "50"])
    assert "cannot be seen without gold" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
    assert "The reward alone" in page.read_text()


def test_command_offers_the_rules_that_are_measured_by_default():
    assert signature(overopt).parameters["rules"].default == RULES


def test_command_names_what_is_wrong(tmp_path, capsys):
    pool = tmp_path / "pool.jsonl"
    write_pool(pool)
    with pytest.raises(SystemExit):
        main(["diagnose", "overopt", str(pool), "--rules", "best"])
    assert "ensemble rule 'best' is not known" in capsys.readouterr().err


def test_every_key_of_the_result_is_defined():
    page = (Path(__file__).parents[2] / "docs" / "overopt.md").read_text(encoding="utf-8")
    records = (Overoptimisation, Ladder, Curve, Peak, Fit, Trait, Tail, Example)
    names = {field.name for record in records for field in fields(record)}
    assert sorted(name for name in names if f"`{name}`" not in page) == []
