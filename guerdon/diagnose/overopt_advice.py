"""What an over-optimisation measurement asks for, in sentences: what was found, what it means, what to do.

In: `Overoptimisation`. Out: `Advice`, warnings first. `docs/overopt.md` lists the rules.
"""

from __future__ import annotations

from collections.abc import Iterator

from guerdon.diagnose.advice import Advice
from guerdon.diagnose.overopt import Overoptimisation

STRIKING = 0.5  # standard deviations by which winners differ before it is worth a sentence


def advise(found: Overoptimisation) -> list[Advice]:
    """What to make of a pool."""
    advice = [
        *_optimising(found),
        *_against_length(found),
        *_ensemble(found),
        *_winners(found),
        *_tail(found),
        *_fit(found),
    ]
    return sorted(advice, key=lambda one: not one.is_warning)


def _optimising(found: Overoptimisation) -> Iterator[Advice]:
    n, gold, peak = int(found.n[-1]), found.reward.gold, found.reward.peak
    if found.reward.proxy.mean[-1] == 0:
        yield Advice("The reward gives all answers to a prompt the same score: there is nothing to optimise.", True)
    if gold is None or peak is None or found.reward.regret is None:
        yield Advice(
            "No gold values: the table shows how fast the reward rises, and hacking cannot be seen without gold. Have "
            "the answers judged by something the reward was not trained on (raters, a held-out reward model, a judge).",
            True,
        )
        return
    regret, most = found.reward.regret.mean[-1], found.reward.regret.high[-1]
    values = f"{_number(gold.mean[-1])} against {_number(found.base[0])}"
    if peak.is_significant and peak.n > 1:
        yield Advice(
            f"Gold is highest at best of {peak.n} (95 % interval {peak.n_low} to {peak.n_high}) and then falls by "
            f"{_number(peak.fall)} (p = {peak.p:.3f}) while the reward keeps rising: beyond this the reward is hacked. "
            f"Pick the best of about {peak.n}, stop training a policy early, or train on fresh comparisons of the winners.",
            True,
        )
        if gold.mean[-1] <= found.base[0]:
            yield Advice(f"At best of {n} its winners are worth less than random answers ({values}).", True)
    elif most >= 1:  # the paired interval of regret holds chance
        yield Advice(
            f"The best of {n} by this reward is not shown to be worth more than a random answer ({values}). "
            "Do not optimise it.",
            True,
        )
    elif peak.fall > 0:
        yield Advice(
            f"Gold is highest at best of {peak.n}; the later fall of {_number(peak.fall)} may be chance "
            f"(p = {peak.p:.2f}). More optimisation is not shown to help: best of {peak.n} costs less."
        )
    else:
        yield Advice(
            f"Gold still rises at best of {n}, the largest that these pools allow: no over-optimisation in this range. "
            "A policy trained by reinforcement goes further than best-of-n; look again with larger pools."
        )
    if found.reward.lift is not None:
        gain, low, high = (
            float(part[-1]) for part in (found.reward.lift.mean, found.reward.lift.low, found.reward.lift.high)
        )
        yield Advice(
            f"Best of {n} gains {_number(gain)} gold over a random answer to the same prompt "
            f"(95 % interval {_number(low)} to {_number(high)})."
        )
    if regret < 1:
        yield Advice(
            f"At best of {n} it gains {100 * (1 - regret):.0f} % of what picking by gold itself would gain; "
            "the rest is what a better reward could still win."
        )


def _against_length(found: Overoptimisation) -> Iterator[Advice]:
    if found.length_gap is None:
        return
    gap, low, high = found.length_gap
    span = f"{_number(low)} to {_number(high)}"
    if low > 0:
        yield Advice(f"It knows more than length: {_number(gap)} gold above picking the longest answer ({span}).")
    else:
        yield Advice(
            f"It is not shown to beat a ruler: gold {_number(gap)} above picking the longest of {found.n[-1]} ({span}). "
            "Train against length, or with more data, and measure on more prompts.",
            True,
        )


def _ensemble(found: Overoptimisation) -> Iterator[Advice]:
    rules = [ladder for ladder in found.ensemble if ladder.gain is not None]
    if not rules:
        return
    best = max(rules, key=lambda ladder: ladder.gain[0] if ladder.gain else 0.0)
    gain, low, high = best.gain or (0.0, 0.0, 0.0)
    span = f"95 % interval {_number(low)} to {_number(high)}"
    if low > 0:
        yield Advice(
            f"The ensemble helps: at best of {found.n[-1]}, rule {best.name} gains {_number(gain)} gold over the average "
            f"single member ({span}). Optimise that; it was picked as the best of {len(rules)} rules, so expect a little less."
        )
    else:
        yield Advice(
            f"No rule is shown to beat the average single member in gold (best: {best.name}, {_number(gain)}, {span}). "
            "Members that share data and base share their errors; vary the base or the data."
        )


def _winners(found: Overoptimisation) -> Iterator[Advice]:
    striking = [one for one in found.winners if one.sd_low > STRIKING or one.sd_high < -STRIKING]
    style = [one for one in striking if not one.name.startswith("from ")]
    if style:
        what = ", ".join(
            f"{one.name} {_amount(one.name, one.random)} to {_amount(one.name, one.winner)}" for one in style
        )
        yield Advice(
            f"What the winners have in common, random answer to winner: {what}. If gold does not ask for this, "
            "it is what the reward will be hacked with: probe it, and add comparisons that differ in nothing else."
        )
    sources = [one for one in striking if one.name.startswith("from ") and one.change > 0]
    if sources:
        share = sum(one.winner for one in sources)
        yield Advice(
            f"{100 * share:.0f} % of the winners come {', '.join(one.name for one in sources)}: the reward may know the "
            "writer rather than the answer. Measure again within one writer."
        )


def _tail(found: Overoptimisation) -> Iterator[Advice]:
    tail = found.tail
    if tail is not None and tail.low > tail.laplace:
        yield Advice(
            f"The reward's error has a heavy tail (Hill index {tail.hill:.2f}, {tail.low:.2f} to {tail.high:.2f}; "
            f"exponential tails have {tail.laplace:.2f}): a KL penalty alone is no guarantee. Clip or squash the reward, "
            "or take the worst case of an ensemble.",
            True,
        )


def _fit(found: Overoptimisation) -> Iterator[Advice]:
    fit = found.reward.fit
    if fit is None:
        return
    if fit.refusal:
        yield Advice(f"The best-of-n form of Gao et al. gives no peak. {fit.refusal}")
    else:
        low, high = fit.peak_kl_interval
        where = "inside" if fit.peak_kl <= found.kl[-1] else "beyond"
        yield Advice(
            f"The best-of-n form of Gao et al. puts the peak of gold at {fit.peak_kl:.2f} nats ({low:.2f} to {high:.2f}), "
            f"{where} the {found.kl[-1]:.2f} nats measured here."
        )


def _amount(name: str, value: float) -> str:
    return f"{value:,.0f} characters" if name == "length" else f"{100 * value:.0f} %"


def _number(value: float) -> str:
    return f"{value:.3g}"
