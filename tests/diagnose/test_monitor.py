"""The run monitor: its evidence against hand-worked numbers, its verdicts on runs whose truth is known."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest

from guerdon.diagnose.monitor import Monitor, Observation, Settings, _decide, _looks, _row, thresholds
from guerdon.diagnose.monitor_curve import far_signals
from guerdon.diagnose.monitor_evidence import (
    KINDS,
    Looks,
    Rules,
    best_look,
    noise_variance,
    smooth,
    weigh,
    within_prompts,
)
from guerdon.types import ConfigError


def looks_of(**columns) -> Looks:
    """Looks with ten scores of variance 1 each, unless told otherwise."""
    length = len(next(iter(columns.values())))
    base = {"n": np.full(length, 10.0), "within": np.ones(length), "kl": np.arange(length, dtype=float)}
    zeros = {field.name: np.zeros(length) for field in fields(Looks) if field.name not in base}
    return Looks(**base | zeros | {name: np.asarray(values, dtype=float) for name, values in columns.items()})


# evidence


def test_evidence_by_hand():
    """Twelve looks: the last four are compared with the first eight, the only earlier window that fits.

    Held-out: start 0, earlier 0.5, now 0.2. Proxy: start 0, earlier 1, now 3, so it rose by x = 2 of its rise until then.
    Scores: 40, 80, 40, each of variance 1 (jumps of the means say less: (10 + 5 + 3.2) / 21).
    """
    looks = looks_of(
        mean=[0] * 4 + [1] * 4 + [0.2] * 4,
        proxy=[0] * 4 + [2] * 4 + [3] * 4,
        groups=[6] * 12,
        cross=[0] * 8 + [-1.5] * 4,
        square=[2.25] * 12,
    )
    found = weigh(looks, Rules(tolerance=0.1, pace=0.4))
    fall = (0.5 - 0.2 - 0.1 * 0.5) / math.sqrt(0.1**2 / 40 + 0.9**2 / 80 + 1 / 40)
    stall = (0.4 * 0.5 - (0.2 - 0.5)) / math.sqrt(0.4**2 / 40 + 1.4**2 / 80 + 1 / 40)
    turn = 6 / math.sqrt(4 * 2.25)  # over 24 prompts; over 48, 6 / sqrt(18) is less
    assert (found.fall, found.stall, found.turn) == pytest.approx((fall, stall, turn))
    assert found.joint == pytest.approx((stall + turn) / math.sqrt(2))
    assert found.noise == 1


def test_nothing_can_be_compared_yet():
    found = weigh(looks_of(mean=[1.0] * 11), Rules())
    assert all(getattr(found, kind) == -math.inf for kind in KINDS)


@pytest.mark.parametrize("change", ["proxy still", "kl back"])
def test_no_fall_unless_the_policy_went_on(change):
    """Held-out that falls while the proxy rests, or while the policy returns to the reference, is no over-optimisation."""
    proxy = [0] * 4 + [2] * 4 + [1 if change == "proxy still" else 3] * 4
    kl = [0] * 4 + [2] * 4 + [0.5 if change == "kl back" else 3] * 4
    found = weigh(looks_of(mean=[0] * 4 + [1] * 4 + [0.2] * 4, proxy=proxy, kl=kl), Rules())
    assert found.fall == found.stall == -math.inf


def test_no_stall_before_a_plain_gain():
    """0.3 is below 2 standard errors of the gain, 2 sqrt(1/40 + 1/80) = 0.387; and one cannot stall before one has gained."""
    found = weigh(looks_of(mean=[0] * 4 + [0.6] * 4 + [0.3] * 4, proxy=[0] * 4 + [2] * 4 + [3] * 4), Rules())
    assert found.stall == -math.inf
    assert found.fall > -math.inf


def test_too_few_prompts_have_no_turn():
    looks = looks_of(groups=[1.9] * 12, cross=[-5] * 12, square=[1] * 12)
    assert weigh(looks, Rules()).turn == -math.inf


def moving(kl, covariance=-0.3, gain=0.5, spread=1.0):
    """Eight prompts a look with two answers each; held-out rose by `gain` and falls towards the policy by `covariance`."""
    looks, sums = len(kl), 8 * covariance  # a prompt of two answers has one degree of freedom
    return looks_of(
        mean=[0] * 4 + [gain] * (looks - 4), proxy=[0] * looks, kl=kl, path_groups=[8] * looks,
        path_freedom=[8] * looks, path_spread=[8 * spread] * looks, path=[sums] * looks, path_square=[8 * 0.25] * looks,
    )  # fmt: skip


def test_a_step_back_by_hand():
    """Eight looks, the last four against the four before: 32 prompts, D = -0.3, KL from 1 to 2.25, so log sqrt is log 1.5.

    Another such rise would cost 0.3 log 1.5 = 0.122, of which 0.1 x 0.5 is let pass; sum of squares 32 x 0.25.
    """
    found = weigh(moving([1.0] * 4 + [2.25] * 4), Rules(ahead=0.1))
    step = math.log(1.5)
    assert found.back == pytest.approx((0.3 * step - 0.1 * 0.5) / (step * math.sqrt(32 * 0.25) / 32))
    assert found.turn == -math.inf  # no proxy


@pytest.mark.parametrize("kl", [[2.0] * 4 + [1.5] * 4, [-0.01] * 4 + [2.0] * 4])
def test_no_step_back_is_asked_for_when_the_policy_rests_or_has_just_begun(kl):
    assert weigh(moving(kl), Rules()).back == -math.inf


def test_a_slow_policy_may_lose_what_is_let_pass():
    """At 1 % of KL a window, D = -0.3 costs 0.0015, below 0.025 x 0.5."""
    assert weigh(moving([1.0] * 4 + [1.01] * 4), Rules(ahead=0.025)).back < 0
    assert weigh(moving([1.0] * 4 + [1.01] * 4, gain=-0.2), Rules(ahead=0.025)).back > 0  # without a gain, nothing


def test_the_covariance_with_the_log_ratio_is_the_slope_of_gold_on_the_way_to_the_reference():
    """Over all answers of a softmax policy: dE[g]/dw of pi_ref^(1-w) pi^w at w = 1, by differences; and KL grows as w^2."""
    rng = np.random.default_rng(3)
    reference, policy, held_out = rng.normal(size=40), rng.normal(size=40), rng.random(40)
    ratio = policy - reference  # up to a constant, which no covariance sees

    def at(w):
        weights = np.exp(reference + w * ratio)
        return weights / weights.sum()

    def kl(w):
        return float(at(w) @ (np.log(at(w)) - np.log(at(0))))

    here = at(1)
    slope = (at(1 + 1e-5) - at(1 - 1e-5)) @ held_out / 2e-5
    assert here @ ((held_out - here @ held_out) * (ratio - here @ ratio)) == pytest.approx(slope, rel=1e-6)
    assert kl(2e-3) / kl(1e-3) == pytest.approx(4, rel=1e-2)


def on_course(rates, freedom, gain=0.0, square=0.25, **columns):
    """Looks whose held-out changes at these rates on the course, by so many degrees of freedom each, a square for each degree."""
    rates, freedom = np.array(rates), np.array(freedom, dtype=float)
    given = {"course_groups": freedom, "course_freedom": freedom, "course_spread": freedom, **columns}
    mean = np.repeat([0.0, gain], [4, len(rates) - 4])
    return looks_of(mean=mean, course=rates * freedom, course_square=square * freedom, **given)


def test_the_course_by_hand():
    """Sixteen looks, held-out 0.5 above the start: the only line is that of the last twelve, L = -0.3 all along and so in future
    too. With 8 degrees of freedom each it is read 7 looks from their middle, whose squares about it add up to 143."""
    found = weigh(on_course([-0.3] * 16, [8] * 16, gain=0.5), Rules(astray=0.1))
    error = math.sqrt(0.25 / 8 * (1 / 12 + 7**2 / 143))
    assert found.course == pytest.approx((0.3 - 0.1 * 0.5) / error)
    assert found.back == found.turn == -math.inf


def test_the_course_is_the_line_of_least_squares_read_further_on():
    """Against numpy's, with uneven degrees of freedom; the error against the spread of lines through noise of that size."""
    rng = np.random.default_rng(0)
    freedom, square = rng.integers(8, 40, 16), 0.25
    rates = 0.4 - 0.05 * np.arange(16) + 0.01 * rng.normal(size=16)
    found = weigh(on_course(rates, freedom, square=square), Rules())
    part = slice(-12, None)

    def ahead(rates):
        return np.polyval(np.polyfit(np.arange(-11, 1), rates[part], 1, w=np.sqrt(freedom[part])), 12 / 8)

    lines = [ahead(rng.normal(size=16) * np.sqrt(square / freedom)) for _ in range(4000)]
    assert found.course == pytest.approx(-ahead(rates) / np.std(lines), rel=0.04)


def test_a_rate_that_sinks_is_seen_before_it_is_below_zero():
    found = weigh(on_course(0.2 - 0.005 * np.arange(40), [200] * 40), Rules())
    assert found.course > 0


def test_a_rate_that_has_levelled_off_is_no_evidence():
    """Gain used up with a time constant of 8 looks: the line through them sinks below 0, the rate never does."""
    steps = np.arange(40)
    rates = 0.1 / 8 * 7 * np.exp(-steps / 8)
    line = np.polyfit(np.arange(-23, 1), rates[-24:], 1)
    assert np.polyval(line, 3) < 0
    assert weigh(on_course(rates, [200] * 40, square=1e-4), Rules()).course == 0


@pytest.mark.parametrize("constant", [2, 4, 8, 16])
@pytest.mark.parametrize("noise", [0.003, 0.012])
def test_runs_that_gain_what_there_is_are_seldom_stopped(constant, noise):
    """200 runs whose gain is used up with such a time constant, in steps; the policy of late is 7 steps behind on average, and the
    noise of a rate is that of the lab's runs."""
    rng, steps, late = np.random.default_rng(100 + constant), np.arange(120), [0.0]
    gold = 0.1 * (1 - np.exp(-steps / constant))
    for now in gold:
        late.append(late[-1] + (now - late[-1]) / 8)
    rates = gold - late[:-1] + noise * rng.normal(size=(200, 120))
    freedom = np.full(rates.shape, 224.0)
    columns = {field.name: np.zeros(rates.shape) for field in fields(Looks)} | {
        "n": np.full(rates.shape, 256.0), "mean": np.broadcast_to(gold, rates.shape), "within": np.ones(rates.shape), "course_groups": freedom / 7,
        "course_freedom": freedom, "course_spread": freedom, "course": rates * freedom, "course_square": (noise * freedom) ** 2,
    }  # fmt: skip
    stopped = first_stops(Looks(**columns), ["course"]) < 120
    assert stopped.mean() <= 0.05


@pytest.mark.parametrize(("looks", "prompts", "is_read"), [(16, 63, False), (16, 64, True), (15, 640, False)])
def test_a_course_of_few_prompts_or_looks_is_not_read(looks, prompts, is_read):
    """The shortest line is through 12 looks, and the four of the start come before it."""
    last = np.full(looks, 5.0)
    last[-1] = prompts - 5 * 11
    assert (weigh(on_course([-9.0] * looks, last), Rules()).course > 0) == is_read


def test_a_course_on_which_held_out_rises_is_no_evidence():
    assert -math.inf < weigh(on_course([0.25] * 16, [8] * 16), Rules()).course < 0


def test_rounding_errors_of_a_policy_that_rests_are_no_road():
    """Log-ratios of some 1e-6 nats, all against held-out: what float32 leaves of two equal policies. At 2e-3 nats they count."""
    assert weigh(moving([1.0] * 4 + [2.25] * 4, spread=0.9e-6), Rules()).back == -math.inf
    assert weigh(moving([1.0] * 4 + [2.25] * 4, spread=1.1e-6), Rules()).back > 0
    monitor, moved = Monitor(), Monitor()
    rng = np.random.default_rng(0)
    for step in range(20):
        held_out, ratios, numbers = answers_of(rng, -0.9)
        lists = (step, step, step, held_out, (), numbers)
        still = monitor.observe(Observation(*lists, ratios=1e-6 * ratios, course=1e-6 * ratios))
        plain = moved.observe(Observation(*lists, ratios=1e-3 * ratios, course=1e-3 * ratios))
    assert still.evidence["course"] == still.evidence["back"] == -math.inf
    assert plain.evidence["course"] > -math.inf
    assert plain.evidence["back"] > -math.inf


def test_each_kind_counts_the_answers_that_it_knows():
    """Ratios are known of all eight prompts, the course of four of them, a reward of none; each as if it came alone."""
    rng = np.random.default_rng(0)
    both, path, course = Monitor(), Monitor(), Monitor()
    for step in range(20):
        held_out, ratios, numbers = answers_of(rng, -0.5)
        late = np.where(numbers < 4, ratios, math.nan)
        lists = (step, step, step, held_out, (), numbers)
        seen = both.observe(Observation(*lists, ratios=ratios, course=late))
        alone = path.observe(Observation(*lists, ratios=ratios))
        few = course.observe(Observation(*lists, course=late))
        found = seen.evidence
        assert found.get("back") == alone.evidence.get("back")
        assert found.get("course") == few.evidence.get("course")
        assert (found.get("course", -math.inf) == -math.inf) == (
            step + 1 < 20
        )  # 64 prompts, of four a step, in a line's looks


def answers_of(rng, relation, n=8, prompts=8):
    """Held-out scores and log-ratios of n answers to each prompt with the given correlation within prompts."""
    ratio, other = rng.normal(size=(2, prompts, n))
    held_out = 0.25 * (relation * ratio + math.sqrt(1 - relation**2) * other) + 0.2 * rng.normal(size=(prompts, 1))
    return held_out.ravel(), 2.5 * ratio.ravel(), np.arange(prompts).repeat(n)


def turning(seeds, gain, turns, prompts=8, steps=120):
    """(looks of all seeds, true gold). Gold rises by `gain` (0.25 is one SD of an answer) to step 50 and then falls, or stays;
    KL grows as step^2, so that the mixing weight w is the step, and the correlation is the one that this slope asks for.
    """
    at = np.arange(steps)
    gold = gain * np.where((at < 50) | turns, 1 - ((at - 50) / 50) ** 2, 1.0)
    slope = np.where((at < 50) | turns, gain * 2 * (1 - at / 50) * at / 50, 0.0)
    relation, runs = np.clip(slope / (0.25 * 2.5), -0.9, 0.9), []
    for seed in seeds:
        rng, rows = np.random.default_rng(seed), []
        for step in range(steps):
            held_out, ratios, numbers = answers_of(rng, relation[step], prompts=prompts)
            kl, held_out = 0.01 * step**2, gold[step] + held_out
            seen = Observation(step, kl, 0.02 * step, held_out, (), numbers, ratios=ratios, course=0.1 * ratios)
            rows.append(_row(seen))
        runs.append(_looks(rows))
    return Looks(*(np.stack([getattr(run, part.name) for run in runs]) for part in fields(Looks))), gold


def first_stops(looks, kinds):
    """Of each run, the first look at which one of these kinds of evidence stops it; the number of looks where none does."""
    limits, stop = thresholds(Settings(steps=looks.count)), np.full(len(looks.n), looks.count)
    for count in range(8, looks.count + 1):
        found = weigh(looks.until(count), Rules())
        is_over = np.any([getattr(found, kind) >= limits[kind] for kind in kinds], axis=0)
        stop = np.where(is_over & (stop == looks.count), count - 1, stop)
    return stop


def test_a_planted_fall_is_seen_in_time_and_ahead_of_the_level():
    """Gain of one SD of an answer, 128 scores a look: a tenth of it is lost at step 66. (With 64, half are in time.)"""
    looks, gold = turning(range(12), gain=0.25, turns=True, prompts=16)
    ahead, level = first_stops(looks, ["back"]), first_stops(looks, ["fall", "stall"])
    assert gold[65] > 0.9 * gold.max() > gold[67]
    assert ((ahead > 40) & (ahead < 66)).mean() >= 0.9
    assert np.median(ahead) < np.median(level)


def test_where_held_out_only_levels_off_a_step_back_is_seldom_asked_for():
    """The worst of benign runs: the slope is exactly 0 for 70 looks while KL grows, and every look is one more chance."""
    looks, _ = turning(range(100, 160), gain=0.1, turns=False)
    assert (first_stops(looks, ["back"]) < looks.count).mean() <= 0.05


def test_where_held_out_only_levels_off_the_course_seldom_stops_a_run():
    """The same runs, whose slope along the course is exactly 0 from step 50 on."""
    looks, _ = turning(range(200, 260), gain=0.1, turns=False)
    assert (first_stops(looks, ["course"]) < looks.count).mean() <= 0.05


def test_a_planted_fall_is_seen_on_the_course_in_time():
    """As for the step back: a tenth of the gain is lost at step 66. The log-ratio to the late policy is a tenth as large."""
    looks, _ = turning(range(12), gain=0.25, turns=True, prompts=16)
    ahead, level = first_stops(looks, ["course"]), first_stops(looks, ["fall", "stall"])
    assert ((ahead > 40) & (ahead < 66)).mean() >= 0.9
    assert np.median(ahead) < np.median(level)


def evidence_of(**known):
    """Shares of the thresholds; nothing is known of the others."""
    limits = thresholds(Settings())
    return {kind: known[kind] * limits[kind] if kind in known else -math.inf for kind in KINDS}


def test_other_signs_do_not_halve_what_a_step_back_needs():
    """Log-ratios and far signals both follow how far the policy has moved: they are no independent witnesses."""
    assert _decide(evidence_of(back=0.7, fall=0), Settings(), True)[:2] == ("warn", None)
    assert _decide(evidence_of(back=0, fall=0.7), Settings(), True)[:2] == ("stop", "fall")


def test_other_signs_halve_nothing_where_the_course_is_known():
    assert _decide(evidence_of(fall=0.7, course=0), Settings(), True)[:2] == ("warn", None)
    assert _decide(evidence_of(fall=1.1, course=0), Settings(), False)[:2] == ("stop", "fall")


@pytest.mark.parametrize("kind", ["stall", "joint"])
def test_that_held_out_stopped_following_only_warns_where_the_course_is_known(kind):
    assert _decide(evidence_of(**{kind: 1.5}), Settings(), False)[:2] == ("stop", kind)
    assert _decide(evidence_of(**{kind: 1.5}, course=-1), Settings(), False)[:2] == ("warn", kind)
    assert _decide(evidence_of(**{kind: 1.5}, course=1.2), Settings(), False)[:2] == ("stop", "course")


def test_runs_on_leading_axes_are_runs_alone():
    rng = np.random.default_rng(0)
    looks = [looks_of(mean=rng.normal(size=60), proxy=np.arange(60) / 10, groups=[6] * 60, cross=rng.normal(size=60),
                      square=rng.random(60)) for _ in range(3)]  # fmt: skip
    stacked = Looks(*(np.stack([getattr(one, name) for one in looks]) for name in Looks.__dataclass_fields__))
    together = weigh(stacked, Rules())
    for i, one in enumerate(looks):
        alone = weigh(one, Rules())
        assert all(getattr(together, kind)[i] == pytest.approx(getattr(alone, kind)) for kind in (*KINDS, "noise"))


def test_noise_variance_by_hand():
    """Scores of variance 1 and 3, pooled by n - 1: (9 + 3 x 19) / 28. Jump: 6^2 / (1/10 + 1/20) = 240."""
    looks = looks_of(n=[10, 20], mean=[0, 6], within=[1, 3])
    within = (9 * 1 + 19 * 3) / 28
    assert noise_variance(looks) == pytest.approx((10 * within + 240) / (10 + 1))
    assert noise_variance(looks_of(n=[10, 20], within=[1, 3])) == pytest.approx(within)


def test_noise_of_one_score_a_step_comes_from_the_steps():
    """One score has no variance of its own; it must not count as a score without noise."""
    means = np.random.default_rng(0).normal(0, 2, 400)
    assert noise_variance(looks_of(n=[1] * 400, mean=means, within=[0] * 400)) == pytest.approx(4, rel=0.15)
    three = looks_of(n=[1, 1, 1], mean=[0, 2, 1], within=[0, 0, 0])
    assert noise_variance(three) == pytest.approx((4 / 2 + 1 / 2) / 2)
    mixed = looks_of(n=[1, 11], mean=[0, 0], within=[0, 5])
    assert noise_variance(mixed) == pytest.approx(5)


def test_noise_sees_what_a_steps_prompts_have_in_common():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 1, 300)  # of a step's prompts: variance 1 on means that scores alone would move by 1/10
    noise = noise_variance(looks_of(mean=shared + rng.normal(size=300) / math.sqrt(10)))
    assert noise == pytest.approx(10 * 1 + 1, rel=0.2)


def test_within_prompts_by_hand():
    """Prompt 7: held-out 1, 3 and proxy 0, 4 give (-1)(-2) + 1 x 2 = 4. Prompt 2: -(0.5 + 0.5) = -1. Prompt 5 is alone."""
    found = within_prompts(np.array([1, 5, 3, 9, 6.0]), np.array([0, 1, 4, 9, 0.0]), np.array([7, 2, 7, 5, 2]))
    assert found == (2, 2, pytest.approx(8 + 0.5), pytest.approx(4 - 0.5), pytest.approx(16 + 0.25))


def test_smooth_by_hand():
    looks = looks_of(n=[4, 4, 8], mean=[0, 1, 5])
    near, far = math.exp(-0.5), math.exp(-2)
    curve, support = smooth(looks, 1.0)
    weight = 4 + 4 * near + 8 * far
    assert curve[0] == pytest.approx((4 * near * 1 + 8 * far * 5) / weight)
    assert support[0] == pytest.approx(weight**2 / (4 + 4 * near**2 + 8 * far**2))
    assert smooth(looks_of(n=[3, 3], mean=[2, 2]), 1e6)[1] == pytest.approx([6, 6])


@pytest.mark.parametrize(("count", "width"), [(1, 2.0), (5, 2.0), (400, 8.0), (3, 50.0)])
def test_smooth_is_the_whole_kernel_to_rounding(count, width):
    rng = np.random.default_rng(count)
    looks = looks_of(n=rng.integers(1, 60, count), mean=rng.normal(size=count))
    at = np.arange(count)
    weight = np.exp(-0.5 * ((at[:, None] - at[None]) / width) ** 2) * looks.n
    curve, support = smooth(looks, width)
    assert curve == pytest.approx((weight @ looks.mean) / weight.sum(1), abs=1e-12)
    assert support == pytest.approx(weight.sum(1) ** 2 / (weight**2 / looks.n).sum(1))


def test_best_look_is_the_earliest_that_is_as_good():
    curve, error = np.array([0.0, 0.9, 1.0, 0.5]), np.full(4, 0.3)
    assert best_look(curve, error, 0.0) == 2
    assert best_look(curve, error, 0.5) == 1  # 1.0 - 0.5 x 0.3 = 0.85
    assert best_look(curve, error, 0.3) == 2  # 0.91


# verdicts


def run_of(shape, seed=0, steps=120, n=48, gain=0.5, signals=None):
    """Observations of a run whose gold at time t in [0, 1] is gain x shape(t), each score with a standard deviation of 0.25."""
    rng = np.random.default_rng(seed)
    t = np.arange(steps) / (steps - 1)
    gold, slope = gain * shape(t), np.gradient(shape(t), t)
    for step in range(steps):
        proxies = rng.normal(size=n)
        relation = np.clip(0.2 * slope[step], -0.4, 0.4)
        held_out = gold[step] + 0.25 * (relation * proxies + math.sqrt(1 - relation**2) * rng.normal(size=n))
        yield Observation(
            step=step + 1,
            kl=30 * t[step],
            proxy=float(shape_of_proxy(t[step])) + 0.01 * rng.normal(),
            held_out=held_out,
            proxies=proxies,
            prompts=np.arange(n) // 2,
            signals=signals(step) if signals else {"length": 20 + 0.3 * rng.normal()},
        )


def shape_of_proxy(t):
    return 0.7 * (1 - np.exp(-4 * t)) + 0.3 * t


def hump(t):
    return np.where(t < 0.4, np.sin(t / 0.4 * np.pi / 2), 1 - 1.5 * (t - 0.4))


def level(t):
    return 1 - np.exp(-4 * t)


def verdicts(monitor, observations):
    return [monitor.observe(one) for one in observations]


@pytest.mark.parametrize("seed", range(4))
def test_a_run_whose_held_out_falls_is_stopped(seed):
    said = verdicts(Monitor(Settings(steps=120)), run_of(hump, seed))
    last = said[-1]
    assert last.status == "stop"
    assert 48 < last.stopped_at <= 120
    assert last.warned_at <= last.stopped_at
    at_stop = said[last.stopped_at - 1]
    assert [one.status == "stop" for one in said] == [one.step >= last.stopped_at for one in said]
    gold = 0.5 * hump(np.arange(120) / 119)
    assert gold[at_stop.best_step - 1] > 0.95 * gold.max()
    assert last.lost_interval[0] < last.lost < last.lost_interval[1]
    assert last.lost == pytest.approx(gold.max() - gold[-8:].mean(), abs=0.1)
    assert last.gain == pytest.approx(gold.max(), abs=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_levels_off_with_its_proxy_is_not(seed, monkeypatch):
    monkeypatch.setitem(globals(), "shape_of_proxy", level)
    assert all(one.status != "stop" for one in verdicts(Monitor(Settings(steps=120)), run_of(level, seed)))


def test_without_kl_a_fall_is_seen_and_no_curve_is_fitted():
    run = [replace(one, kl=math.nan) for one in run_of(hump)]
    last = verdicts(Monitor(Settings(steps=120)), run)[-1]
    with_kl = verdicts(Monitor(Settings(steps=120)), run_of(hump))[-1]
    assert (last.status, last.stopped_at) == (with_kl.status, with_kl.stopped_at)  # its KL rises with every step
    assert (last.fit, last.peak_kl) == (None, None)
    assert with_kl.fit is not None


def test_steps_without_kl_are_passed_over_where_others_have_it():
    run = list(run_of(hump))
    holes = [replace(one, kl=math.nan if i % 3 == 0 else one.kl) for i, one in enumerate(run)]
    kept = [one for i, one in enumerate(run) if i % 3]
    a, b = (verdicts(Monitor(Settings(steps=120)), part)[-1] for part in (holes, kept))
    assert (a.status, a.evidence, a.best_step) == (b.status, b.evidence, b.best_step)


def test_stop_stays_with_its_reason():
    run = list(run_of(hump))
    monitor = Monitor(Settings(steps=120))
    stopped = next(one for one in verdicts(monitor, run) if one.status == "stop")
    for step in range(121, 190):  # held-out is back, and better than ever
        verdict = monitor.observe(Observation(step, 31, 2, [0.9, 1.1] * 24))
    assert (verdict.status, verdict.reason, verdict.stopped_at) == ("stop", stopped.reason, stopped.step)
    assert verdict.best_step > 121


def test_a_restored_monitor_says_the_same():
    settings = Settings(steps=120, stop={"fall": 4.5}, rules=Rules(tolerance=0.05))
    run = list(run_of(hump, 1))
    run[30] = Observation(31, math.nan, math.nan, signals={"length": None})  # nothing could be scored
    whole = verdicts(Monitor(settings), run)
    monitor = Monitor(settings)
    again = []
    for one in run:
        again.append(monitor.observe(one))
        if one.step % 40 == 7:
            monitor = Monitor.restore(json.loads(json.dumps(monitor.state(), allow_nan=False)))
    assert [one.to_dict() for one in again] == [one.to_dict() for one in whole]
    assert whole[-1].status == "stop"
    json.dumps(whole[-1].to_dict(), allow_nan=False)


def test_state_of_another_version_is_refused():
    with pytest.raises(ConfigError, match="version 0"):
        Monitor.restore(Monitor().state() | {"version": 0})


@pytest.mark.parametrize("step", [3, 2])
def test_steps_out_of_order_are_refused(step):
    monitor = Monitor()
    monitor.observe(Observation(3, 0, 0))
    with pytest.raises(ConfigError, match=f"step 3 and then {step}"):
        monitor.observe(Observation(step, 0, 0))


@pytest.mark.parametrize("other", [{"proxies": [1.0]}, {"prompts": [1]}, {"ratios": [1.0]}, {"course": [1.0]}])
def test_lists_of_unequal_length_are_refused(other):
    with pytest.raises(ConfigError, match="step 4: held_out, proxies, ratios, course and prompts differ in length"):
        Monitor().observe(Observation(4, 0, 0, [1.0, 2.0], **other))


def test_a_run_of_no_steps_is_refused():
    with pytest.raises(ConfigError, match="0 steps"):
        Settings(steps=0)


def test_empty_and_unscored_steps_change_nothing():
    """Steps without a usable score between scored ones leave evidence, best step and noise as they are."""
    plain, holed = Monitor(Settings(steps=60)), Monitor(Settings(steps=60))
    for one in run_of(hump, 2, steps=60):
        said = plain.observe(one)
        seen = Observation(
            2 * one.step, one.kl, one.proxy, [*one.held_out, math.nan], [*one.proxies, 1], [*one.prompts, 0]
        )
        got = holed.observe(seen)
        empty = Observation(2 * one.step + 1, one.kl, one.proxy, *([[math.nan] * 3] * 2 if one.step % 2 else []))
        idle = holed.observe(empty)
        assert got.evidence == idle.evidence == said.evidence
        assert got.lost == pytest.approx(said.lost, nan_ok=True)
        assert got.best_step == (None if said.best_step is None else 2 * said.best_step)


def test_one_score_a_step_is_enough_to_run_and_not_to_cry():
    rng = np.random.default_rng(0)
    stops = 0
    for _ in range(10):
        said = verdicts(Monitor(Settings(steps=60)), (Observation(s, s, s / 10, [rng.normal()]) for s in range(60)))
        stops += said[-1].status == "stop"
        assert all(math.isfinite(one.lost) for one in said[1:])
    assert stops == 0


def test_scores_that_do_not_come_are_a_warning_and_no_scores_asked_for_are_not():
    monitor = Monitor()
    lists = [([], 0), ([], 8), ([math.nan] * 3, 0), ([0.5] * 8, 8), ([0.5] * 8, 0), ([], 8), ([], 0)]
    said = [monitor.observe(Observation(s, s, s, held, asked=asked)) for s, (held, asked) in enumerate(lists)]
    assert [one.silent for one in said] == [0, 1, 2, 0, 0, 1, 1]
    assert [one.status for one in said] == ["ok", "warn", "warn", "ok", "ok", "warn", "warn"]
    assert said[0].reason.startswith("There are no held-out scores")
    assert said[2].reason.startswith("No held-out score came in 2 steps")
    assert said[5].reason.startswith("No held-out score came in this step")
    blind = monitor.observe(Observation(9, 9, math.nan, [], asked=8))  # no reward: held-out is not to blame
    assert blind.silent == 1


def drifting(step):
    return {"length": 20 + (step % 2) + (30 if step >= 40 else 0)}


def test_without_held_out_signs_warn_and_never_stop():
    monitor = Monitor()
    said = [monitor.observe(Observation(s, s, s / 10, signals=drifting(s))) for s in range(200)]
    assert {one.status for one in said[:40]} == {"ok"}
    assert said[-1].status == "warn"
    assert said[0].reason.startswith("There are no held-out scores")
    assert "length by" in said[-1].reason
    assert "cannot be told" in said[-1].reason
    assert said[-1].best_step is said[-1].stopped_at is None
    assert 40 <= said[-1].warned_at <= 44


def test_far_signals_by_hand():
    """First ten lengths: 9 and 11 in turn, mean 10, SD sqrt(10 / 9). Last five: 20, so (20 - 10) / SD away."""
    rows = [{"proxy": i, "signals": {"length": 9 + 2 * (i % 2) if i < 15 else 20, "flat": 1.0}} for i in range(20)]
    shift = 10 / math.sqrt(10 / 9)
    assert far_signals(rows, 6) == {"length": pytest.approx(shift)}
    assert far_signals(rows, 10) == {} == far_signals(rows[:19], 6)
    assert far_signals([row | {"proxy": -row["proxy"]} for row in rows], 6) == {}  # the proxy does not rise
    unscored = {"proxy": math.nan, "signals": {}}  # a step without a reward does not blind it
    assert far_signals([*rows[:3], unscored, *rows[3:]], 6) == {"length": pytest.approx(shift)}


def test_other_signs_halve_what_is_needed_only_while_they_are_far():
    """Each verdict against its own evidence: the thresholds as they are in a calm run, half of them from step 44 on."""
    settings = Settings(steps=120, stop={"turn": 99, "joint": 99})
    limits, first = thresholds(settings), {}
    for name, signals in (("calm", lambda step: drifting(0)), ("far", drifting)):
        for verdict in verdicts(Monitor(settings), run_of(hump, 3, signals=signals)):
            shares = [verdict.evidence[kind] / limits[kind] for kind in KINDS] if verdict.evidence else [-1]
            is_far = name == "far" and verdict.step > 44
            if verdict.status == "stop":
                assert max(shares) >= (0.5 if is_far else 1)
                first[name] = verdict.step
                break
            if name == "calm" or is_far:
                assert max(shares) < (0.5 if is_far else 1)
                warned = max(shares) >= settings.warn * (0.5 if is_far else 1)
                assert verdict.status == ("warn" if warned or is_far else "ok")
    assert first["far"] < first["calm"]


def test_an_alert_asks_for_more_scores():
    settings = Settings(steps=120, budget=48, boost=3)
    limits = thresholds(settings)
    asked = []
    for verdict in verdicts(Monitor(settings), run_of(hump, 1)):
        shares = [verdict.evidence[kind] / limits[kind] for kind in KINDS] if verdict.evidence else [-1]
        assert verdict.wanted == (144 if max(shares) >= settings.alert else 48)
        asked.append(verdict.wanted)
    assert (asked[0], asked[-1]) == (48, 144)


def test_a_longer_run_needs_more_evidence():
    short, long = thresholds(Settings(steps=100)), thresholds(Settings(steps=400))
    assert all(long[kind] == pytest.approx(short[kind] + 0.3) for kind in KINDS)
    assert thresholds(Settings(stop={"fall": 9}))["fall"] == 9


def test_1_96_would_stop_benign_runs():
    """A look at every step, several kinds of evidence: what is right for one look is passed by most runs that level off."""
    rng, runs, steps = np.random.default_rng(5), 100, 120
    t = np.broadcast_to(np.arange(steps) / (steps - 1), (runs, steps))
    cross = rng.normal(size=(runs, steps)) * math.sqrt(24)
    known = {
        "n": np.full(t.shape, 48.0),
        "mean": 0.25 * level(t) + 0.25 / math.sqrt(48) * rng.normal(size=t.shape),
        "within": np.full(t.shape, 0.25**2),
        "proxy": level(t) + 0.003 * rng.normal(size=t.shape),
        "kl": 30 * t,
        "groups": np.full(t.shape, 24.0),
        "cross": cross,
        "square": np.full(t.shape, 24.0),
    }
    looks = Looks(**{field.name: known.get(field.name, np.zeros(t.shape)) for field in fields(Looks)})
    limits = np.array([thresholds(Settings(steps=steps))[kind] for kind in KINDS])[:, None]
    crossed, stopped = np.zeros(runs, bool), np.zeros(runs, bool)
    for count in range(12, steps + 1):
        found = weigh(looks.until(count), Rules())
        evidence = np.stack([getattr(found, kind) for kind in KINDS])
        crossed |= (evidence > 1.96).any(0)
        stopped |= (evidence > limits).any(0)
    assert crossed.mean() > 0.5
    assert stopped.mean() <= 0.05
