"""What happened in a policy run and what to do next, in sentences; and the numbers to remember.

In: `Run`. Out: findings as (text, is_warning), the most pressing first, and tiles as (name, value, note).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from guerdon.diagnose.kl_fits import Fit
from guerdon.diagnose.monitor import Settings
from guerdon.diagnose.monitor_curve import far_signals
from guerdon.diagnose.run_files import Run

Finding = tuple[str, bool]
SPEAKING = ("length", "repetition", "list_rate", "bold_rate", "eos_rate", "entropy", "disagreement", "drift")
NAMES = {
    "length": "length in tokens",
    "repetition": "repetition",
    "list_rate": "share with a list",
    "bold_rate": "share with bold",
    "eos_rate": "share that ends",
    "entropy": "entropy in nats per token",
    "disagreement": "disagreement of the members",
    "drift": "distance from the reward's training answers",
}


def tiles_of(run: Run) -> list[tuple[str, str, str]]:
    """Reward and held-out from start to end, KL, and what the monitor said."""
    steps = f"{run.window} steps" if run.window > 1 else "step"
    tiles = [("Reward", change(run, "proxy"), f"means of the first and last {steps}")]
    if run.has_held_out:
        best = run.best_step
        note = f"highest about step {best}: {number(run.near(best, 'held_out'))}" if best is not None else "too early"
        tiles.append(("Held-out", change(run, "held_out"), note))
    else:
        tiles.append(("Held-out", "–", "no score came" if run.asked_held_out else "nothing was held out"))
    kl = f"nats per sequence; {number(run.end('kl_per_token'))} per token, at the end"
    tiles.append(("KL", number(run.end("kl")), kl))
    warned, stopped = run.first_with("warn", "stop"), run.first_with("stop")
    status = "stop" if stopped is not None else str(run.last.get("status") or "–")
    said = stopped if stopped is not None else warned
    tiles.append(("Monitor", status, f"first at step {said}" if said is not None else "no warning"))
    if status == "ok" and warned is not None:
        tiles[-1] = ("Monitor", "ok", f"after a warning at step {warned}")
    return tiles


def findings_of(run: Run) -> list[Finding]:
    """All that is to be said about one run."""
    fit = run.fit() if run.has_held_out else None
    found = [*_verdict(run), *_gain(run), *_kl(run, fit), *_answers(run), *_health(run)]
    return sorted(found, key=lambda one: not one[1])  # warnings first; the order within is kept


def compared(runs: list[Run]) -> list[Finding]:
    """What the runs say beside each other: which ends highest in held-out, and for how much KL."""
    held = [run for run in runs if run.has_held_out]
    if len(held) < 2:
        return []
    best = max(held, key=lambda run: run.end("held_out"))
    parts = [
        f"{run.name} ends at held-out {number(run.end('held_out'))} with reward {number(run.end('proxy'))} and "
        f"{number(run.end('kl'))} nats"
        for run in held
    ]
    most = max(held, key=lambda run: run.end("proxy"))
    text = "; ".join(parts) + f". Of these policies take that of {best.name}: held-out is what counts."
    if most is not best:
        text += f" {most.name} has the higher reward and the worse answers."
    return [(text, most is not best)]


def change(run: Run, name: str) -> str:
    return f"{number(run.start(name))} → {number(run.end(name))}"


def number(value: float) -> str:
    """Three significant figures, without an exponent where it can be helped."""
    if math.isnan(value):
        return "–"
    if abs(value) < 5e-4:
        return "0.000"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _verdict(run: Run) -> Iterator[Finding]:
    best, stopped, warned = run.best_step, run.first_with("stop"), run.first_with("warn", "stop")
    if not run.has_held_out and run.asked_held_out:
        yield (
            f"A held-out reward was given, but none of the {run.asked_held_out:,} scores asked of it came, so over-optimisation "
            "could not be seen. See to that reward and run again.",
            True,
        )
        return
    if not run.has_held_out:
        yield (
            "Nothing was held out, so the reward's own rise is all that is known, and over-optimisation cannot be seen. Run "
            "again with --held-out: a second reward model, a judge or a verifier.",
            True,
        )
        if warned is not None:
            yield f"The monitor warned at step {warned}: {run.last.get('reason') or ''}", True
        return
    if stopped is not None:
        reason = next(str(row.get("reason") or "") for row in run.rows if row.get("status") == "stop")
        yield f"The monitor said stop at step {stopped}: {reason} {_remedy(run)}", True
    elif run.last.get("status") == "warn":
        back = (
            f" Held-out was highest about step {best}; compare answers from there with the last ones." if best else ""
        )
        yield f"The monitor warns: {run.last.get('reason') or ''}{back}", True
    else:
        yield f"{run.last.get('reason') or 'The monitor has nothing to say.'} {_go_on(run)}".strip(), False


def _remedy(run: Run) -> str:
    best = run.best_step
    if best is None:
        return "Do not use the last policy."
    at = f"about step {best}, where KL was {number(run.near(best, 'kl'))} nats"
    if run.saved_step is not None and run.saved_step < int(run.last["step"]):
        return f"The saved policy is that of step {run.saved_step}; held-out was highest {at}."
    end = "The saved policy is the last one, from after the fall. " if run.saved_step is not None else ""
    return (
        f"Held-out was highest {at}. {end}Run again with --on-overopt rollback, a higher --beta, or "
        f"--kl-target {max(run.near(best, 'kl'), 0.1):.2g}; then label answers of this policy and train the reward on them."
    )


def _go_on(run: Run) -> str:
    rise, error = _rise(run, "held_out")
    if math.isnan(rise):
        return ""
    if rise >= 2 * error:
        return "The policy may be used, and more steps may help." if run.saved_step is not None else "Let it go on."
    return (
        f"But held-out has not clearly risen ({change(run, 'held_out')}): more reward has not been shown to mean better "
        "answers. Check more samples with --held-out-budget."
    )


def _gain(run: Run) -> Iterator[Finding]:
    planned, done = run.config.get("steps"), int(run.last["step"])
    if run.saved_step is None:
        of = f" of {planned:,}" if isinstance(planned, int) else ""
        yield f"The run is not finished: {done:,}{of} steps are shown. Go on with --resume.", False
    rise, error = _rise(run, "proxy")
    if rise < 2 * error:
        yield (
            f"The reward has not clearly risen ({change(run, 'proxy')}, less than two standard errors): take more steps, a "
            "higher --learning-rate or a lower --beta.",
            True,
        )


def _rise(run: Run, name: str) -> tuple[float, float]:
    """By how much the last steps lie above the first ones, a tenth of the run but at least five each, and its standard error
    from the spread between steps. Neither is known (NaN) in a run of fewer than ten steps.
    """
    values, size = run.series(name), max(run.window, 5)
    first, last = (part[np.isfinite(part)] for part in (values[:size], values[-size:]))
    if len(run.rows) < 2 * size or len(first) < 2 or len(last) < 2:
        return math.nan, math.nan
    error = math.sqrt(float(first.var(ddof=1)) / len(first) + float(last.var(ddof=1)) / len(last))
    return float(last.mean() - first.mean()), error


def _kl(run: Run, fit: Fit | None) -> Iterator[Finding]:
    if fit is None or fit.refusal:
        return
    kl, low, high = run.end("kl"), *fit.peak_kl_interval
    text = (
        f"The curve of Gao et al. puts the peak of held-out at {number(fit.peak_kl)} nats per sequence (95 % interval "
        f"{number(low)} to {number(high)}); the run ends at {number(kl)}."
    )
    if kl > fit.peak_kl:
        yield f"{text} It has gone too far: raise --beta, or set --kl-target {fit.peak_kl:.2g}.", True
    else:
        yield f"{text} There is room left.", False


def _answers(run: Run) -> Iterator[Finding]:
    rows = [
        {"proxy": math.nan if row.get("proxy") is None else row["proxy"], "signals": signals}
        for row in run.rows
        if (signals := {name: row[name] for name in SPEAKING if row.get(name) is not None})
    ]
    shifts = far_signals(rows, Settings().far)
    if shifts:
        order = sorted(shifts, key=lambda name: -abs(shifts[name]))[:4]
        parts = ", ".join(f"{NAMES[name]} {change(run, name)}" for name in order)
        yield (
            f"The answers have changed far beyond chance: {parts}. Read the samples below for what the reward pays for.",
            True,
        )


def _health(run: Run) -> Iterator[Finding]:
    masked, samples = int(np.nansum(run.series("masked"))), int(run.last.get("samples") or 0)
    if masked:
        yield (
            f"{masked:,} of {samples:,} samples had no reward and were left out; samples.jsonl gives the reason of each.",
            masked > 0.01 * samples,
        )
    if run.end("within_std") < 0.25 * run.start("within_std"):
        yield (
            f"Answers to one prompt now get nearly the same reward (standard deviation {change(run, 'within_std')}): there is "
            "little left to learn from; end the run, or raise --temperature.",
            True,
        )
    if run.end("explained_variance") < 0:
        yield (
            f"The value model explains less than nothing (explained variance {number(run.end('explained_variance'))}): give "
            "it --value-warmup steps, or use rloo, which needs none.",
            True,
        )
    if run.end("clip_fraction") > 0.3:
        share = 100 * run.end("clip_fraction")
        yield f"The ratio bound decides {share:.0f} % of the loss: lower --learning-rate or --updates.", True
