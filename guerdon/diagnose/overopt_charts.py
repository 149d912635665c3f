"""The pictures of over-optimisation: reward against gold by n, ensemble rules side by side, what winners share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.diagnose.draw import ACCENT, BAND, HALF, INK, MUTED, WARM, WIDE, draw, end_labels
from guerdon.diagnose.overopt import Ladder, Overoptimisation
from guerdon.diagnose.winners import Trait
from guerdon.evaluate.best_of_n import Curve, kl_nats
from guerdon.evaluate.columns import Floats, Ints


def ladder_chart(found: Overoptimisation) -> str:
    """Reward and gold of the best of n, both above a random answer in standard deviations within a prompt."""
    ends: list[tuple[float, str, str]] = []

    def line(axes: Any, part: Curve, name: str, color: str, scale: float, start: float, main: bool) -> None:
        mean, low, high = ((values - start) / scale for values in (part.mean, part.low, part.high))
        if main:
            axes.fill_between(found.n, low, high, color=color, alpha=0.16, linewidth=0)
        style = {"linewidth": 2.0, "marker": "o", "markersize": 4} if main else {"linewidth": 1.2, "dashes": (4, 3)}
        axes.plot(found.n, mean, color=color, **style)
        ends.append((float(mean[-1]), name, color))

    def paint(axes: Any) -> None:
        axes.axhline(0, color=MUTED, linewidth=1, dashes=(3, 3))
        ends.append((0.0, "random", MUTED))
        line(axes, found.reward.proxy, "reward", WARM, 1.0, 0.0, True)
        scale = found.gold_sd or 1.0
        if found.oracle is not None:
            line(axes, found.oracle, "gold's own pick", MUTED, scale, found.base[0], False)
        if found.length is not None:
            line(axes, found.length, "longest", BAND, scale, found.base[0], False)
        if found.reward.lift is not None:
            line(axes, found.reward.lift, "gold", ACCENT, scale, 0.0, True)
            _mark_peak(axes, found, scale)
        _log_axis(axes, found.n, with_kl=True)
        axes.set_ylabel("above a random answer, SD")
        axes.grid(axis="y")
        end_labels(axes, ends)

    gold = found.reward.gold
    spoken = f"Best of 1 to {found.n[-1]}: the reward rises to {found.reward.proxy.mean[-1]:.2f} standard deviations"
    if gold is not None and found.reward.peak is not None:
        spoken += (
            f"; gold goes from {gold.mean[0]:.3g} to {gold.mean[-1]:.3g}, highest at best of {found.reward.peak.n}"
        )
    return draw(spoken, WIDE, 408, (58, 118, 54, 48), paint)


def rule_panels(found: Overoptimisation) -> list[tuple[str, str]]:
    """(name, picture) per ensemble rule: its gold against that of the average single member, one scale for all."""
    curves = [ladder.gold for ladder in (*found.ensemble, *found.members) if ladder.gold is not None]
    singles = [ladder.gold.mean for ladder in found.members if ladder.gold is not None]
    if not curves or not singles:
        return []
    average = np.mean(singles, axis=0)
    values = [
        part[np.isfinite(part)] for one in curves for part in (one.mean, one.low, one.high)
    ]  # one scale: small multiples are read against each other
    low, high = (
        min(float(part.min()) for part in values if len(part)),
        max(float(part.max()) for part in values if len(part)),
    )
    pad = 0.06 * ((high - low) or 1.0)
    return [(rule.name, _rule_panel(found.n, rule, average, (low - pad, high + pad))) for rule in found.ensemble]


def winner_chart(traits: Sequence[Trait]) -> str:
    """How far the winner's properties lie from those of a random answer, in standard deviations, with intervals."""
    rows = np.arange(len(traits))[::-1]
    ends = [x for trait in traits for x in (0.0, trait.sd_low, trait.sd_high, trait.change_sd) if math.isfinite(x)]
    pad = 0.08 * ((max(ends) - min(ends)) or 1.0)

    def paint(axes: Any) -> None:
        axes.set(xlim=(min(ends) - pad, max(ends) + pad), ylim=(-0.7, len(traits) - 0.3), yticks=[])
        axes.set_xlabel("winner against a random answer, SD")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.axvline(0, color=INK, linewidth=1)
        across = axes.get_yaxis_transform()
        for y, trait in zip(rows, traits, strict=True):
            color = WARM if trait.sd_low > 0 or trait.sd_high < 0 else MUTED
            axes.plot([trait.sd_low, trait.sd_high], [y, y], color=color, linewidth=5, alpha=0.35)
            axes.plot([trait.change_sd], [y], "o", color=color, markersize=7)
            axes.annotate(
                trait.name[:40], (0, y), (-12, 0), across, "offset pixels", ha="right", va="center", color=INK
            )
            axes.annotate(_change(trait), (1, y), (12, 0), across, "offset pixels", va="center", color=INK)

    spoken = "; ".join(f"{trait.name}: {_change(trait)}" for trait in traits)
    return draw(f"Random answer against winner: {spoken}", WIDE, 70 + 28 * len(traits), (280, 150, 12, 46), paint)


def _rule_panel(n: Ints, rule: Ladder, average: Floats, limits: tuple[float, float]) -> str:
    gold = rule.gold
    assert gold is not None

    def paint(axes: Any) -> None:
        axes.grid(axis="y")
        axes.plot(n, average, color=MUTED, linewidth=1.2, dashes=(4, 3))
        axes.fill_between(n, gold.low, gold.high, color=ACCENT, alpha=0.16, linewidth=0)
        axes.plot(n, gold.mean, "o-", color=ACCENT, linewidth=1.8, markersize=3.5)
        axes.set_ylim(*limits)
        _log_axis(axes, n, with_kl=False)
        end_labels(axes, [(float(gold.mean[-1]), "rule", ACCENT), (float(average[-1]), "single", MUTED)])

    spoken = f"Rule {rule.name}: gold {gold.mean[-1]:.3g} at best of {n[-1]}, average single member {average[-1]:.3g}"
    return draw(spoken, HALF, 230, (52, 52, 10, 44), paint)


def _mark_peak(axes: Any, found: Overoptimisation, scale: float) -> None:
    peak, fit = found.reward.peak, found.reward.fit
    assert peak is not None
    at = (peak.gold - found.base[0]) / scale
    axes.plot([peak.n], [at], "o", color=ACCENT, markersize=10, markerfacecolor="none", markeredgewidth=1.8)
    text = f"gold peaks at {peak.n}" if peak.fall > 0 else "gold still rising"
    is_left = peak.n < found.n[-1] ** 0.5  # left half of a log axis: the text runs to the right
    side, shift = ("left", 8) if is_left else ("right", -2)
    axes.annotate(
        text, (peak.n, at), (shift, -40), "data", "offset pixels", ha=side, va="top", color=ACCENT, fontsize=12
    )
    if fit is not None and not fit.refusal:
        d = np.sqrt(found.kl)
        axes.plot(found.n, d * (fit.alpha - fit.beta * d) / scale, color=ACCENT, linewidth=1, dashes=(1, 2))


def _log_axis(axes: Any, n: Ints, with_kl: bool) -> None:
    """n on a log scale, powers of two and the largest as labels, KL in nats above them."""
    axes.set_xscale("log", base=2)
    powers = [int(x) for x in n if x & (x - 1) == 0]
    step = math.ceil(len(powers) / (9 if with_kl else 6))
    ticks = powers[::step]
    if n[-1] / ticks[-1] >= 1.35:
        ticks.append(int(n[-1]))
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("best of n")
    axes.margins(x=0.02)
    if with_kl:
        top = axes.secondary_xaxis("top")
        top.set_xticks(ticks, [f"{kl:.1f}" for kl in kl_nats(np.array(ticks))])
        top.set_xticks([], minor=True)
        top.tick_params(length=0, pad=3)
        top.spines["top"].set_visible(False)
        top.set_xlabel("log n − (n−1)/n, nats", labelpad=7)


def _change(trait: Trait) -> str:
    if trait.name == "length":
        return f"{trait.random:,.0f} → {trait.winner:,.0f}"
    return f"{100 * trait.random:.1f} → {100 * trait.winner:.1f} %"
