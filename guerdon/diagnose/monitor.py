"""Watches a policy while it is optimised, and says when to stop and what to go back to.

In: one `Observation` per step. Out: a `Verdict` per step. Nothing here draws random numbers or reads a clock: the verdicts
follow from the observations, so a run that is killed and resumed gets the same ones.

    monitor = Monitor(Settings(steps=200))
    verdict = monitor.observe(Observation(step=1, kl=0.02, proxy=0.4, held_out=gold, proxies=rewards, prompts=numbers))
    if verdict.status == "stop": roll back to verdict.best_step

`docs/monitor.md` defines every number and says how the thresholds were found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from guerdon.diagnose.kl_fits import Fit
from guerdon.diagnose.monitor_curve import far_signals, fit_steps, summary
from guerdon.diagnose.monitor_evidence import (
    KINDS,
    Looks,
    Products,
    Rules,
    weigh,
    within_prompts,
)
from guerdon.diagnose.monitor_text import explain
from guerdon.evaluate.columns import Floats, Ints
from guerdon.types import ConfigError

Status = Literal["ok", "warn", "stop"]
NOTHING = (math.nan, math.nan)
VERSION = 4


@dataclass(frozen=True)
class Settings:
    """How the monitor decides.

    steps      planned length of the run, in steps that have held-out scores; a longer run is looked at more often, so its
               thresholds are higher
    rules      what counts as a fall and as a stall
    stop       kind of evidence -> threshold that takes the place of the calibrated one
    warn       share of its threshold at which evidence is a warning
    alert      share of its threshold at which more held-out scores are asked for
    budget     held-out scores per step that the run can afford at all times
    boost      times the budget that is asked for once there is an alert
    slack      standard errors of held-out that `best_step` may give away to be earlier
    far        standard deviations that count as far, for signals without held-out scores
    corroborated  share of its threshold that evidence needs while such signals are far: two independent witnesses. Not so for
                  `back`: log-ratios and signals both follow how the policy moves; and for no kind where `course` is known
    """

    steps: int = 250
    rules: Rules = field(default_factory=Rules)
    stop: Mapping[str, float] = field(default_factory=dict)
    warn: float = 0.75
    alert: float = 0.45
    budget: int = 48
    boost: int = 4
    slack: float = 0.5
    far: float = 6.0
    corroborated: float = 0.5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"the monitor's planned length is {self.steps} steps; give at least 1")


@dataclass(frozen=True)
class Observation:
    """What is known after a step.

    step      number of the step, rising from observation to observation
    kl        nats per sequence between policy and reference, on the step's samples; NaN when not known
    proxy     mean reward of the step, KL not included
    held_out  held-out or gold scores of a random part of the step's samples; may be empty, NaN was not scored
    proxies   rewards of the same samples, in the same order
    prompts   which samples answer the same prompt (any integers), in the same order; None when not known
    signals   other means of the step that need no held-out score (length, repetition, entropy, disagreement, ...)
    ratios    log pi - log pi_ref of the same samples, nats, in the same order; () when not known
    course    log pi - log pi_late of the same samples, nats: to the policy of some steps ago, or its mean of late; () when
              not known
    asked     samples whose held-out score was asked for, where some did not come and are not in `held_out`
    """

    step: int
    kl: float
    proxy: float
    held_out: Sequence[float] | Floats = ()
    proxies: Sequence[float] | Floats = ()
    prompts: Sequence[int] | Ints | None = None
    signals: Mapping[str, float | None] = field(default_factory=dict)
    ratios: Sequence[float] | Floats = ()
    course: Sequence[float] | Floats = ()
    asked: int = 0


@dataclass(frozen=True)
class Verdict:
    """What the monitor says after a step.

    status     ok, warn or stop; stop stays once it is said
    reason     one sentence
    step       the step it was said after
    best_step  where smoothed held-out was highest: the policy to go back to; None without held-out scores
    gain       held-out at `best_step` above the start; NaN without
    lost       held-out at `best_step` minus now; above 0 is a loss; NaN without
    lost_interval  its 95 % interval, for this step alone
    peak_kl    KL at the peak of the fitted curve, nats; None when it must not be read
    fit        Gao's curve fitted so far, with its reason for refusing; None before there are enough points
    evidence   kind -> standardised evidence now
    wanted     held-out scores to give to the next observation: `Settings.budget`, or `boost` times it after an alert; more
               or fewer (or none) are no error, only a slower or faster test
    stopped_at first step with `stop`, or None
    warned_at  first step with `warn` or `stop`, or None
    silent     steps in a row, up to now, that asked for held-out scores and got none
    """

    status: Status
    reason: str
    step: int
    best_step: int | None = None
    gain: float = math.nan
    lost: float = math.nan
    lost_interval: tuple[float, float] = NOTHING
    peak_kl: float | None = None
    fit: Fit | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    wanted: int = 0
    stopped_at: int | None = None
    warned_at: int | None = None
    silent: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what is not known is null."""
        return dict(_plain(asdict(self)))


class Monitor:
    """The state of the test. `observe` after every step; `state` and `restore` around a kill."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._rows: list[dict[str, Any]] = []
        self._warned_at: int | None = None
        self._stopped_at: int | None = None
        self._stop_reason = ""

    def observe(self, observation: Observation) -> Verdict:
        """Take in a step and judge the run so far. Raises ConfigError when steps do not rise or lengths differ."""
        if self._rows and observation.step <= self._rows[-1]["step"]:
            raise ConfigError(
                f"the monitor saw step {self._rows[-1]['step']} and then {observation.step}; observe steps in order, once each"
            )
        self._rows.append(_row(observation))
        return self._judge()

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, as plain JSON."""
        return {
            "version": VERSION,
            "settings": asdict(self.settings),
            "rows": _plain(self._rows),
            "warned_at": self._warned_at,
            "stopped_at": self._stopped_at,
            "stop_reason": self._stop_reason,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Monitor:
        """The monitor that `state` was taken from. Raises ConfigError when it is of another version."""
        if state.get("version") != VERSION:
            raise ConfigError(f"monitor state has version {state.get('version')}, this one reads {VERSION}; start anew")
        settings = dict(state["settings"])
        monitor = cls(Settings(**{**settings, "rules": Rules(**settings["rules"])}))
        monitor._rows = [
            {name: math.nan if part is None else part for name, part in row.items()} for row in state["rows"]
        ]
        monitor._warned_at, monitor._stopped_at = state["warned_at"], state["stopped_at"]
        monitor._stop_reason = state["stop_reason"]
        return monitor

    def _judge(self) -> Verdict:
        step = int(self._rows[-1]["step"])
        scored, has_kl = _scored(self._rows)
        shifts = far_signals(self._rows, self.settings.far)
        silent = _silent(self._rows)
        if len(scored) < 2:
            status: Status = "warn" if shifts or silent else "ok"
            reason = explain(status, None, {}, shifts, silent, is_blind=not scored)
            self._note(status, step, reason)
            return Verdict(status, reason, step, wanted=self.settings.budget, warned_at=self._warned_at, silent=silent)
        looks = _looks(scored)
        found = weigh(looks, self.settings.rules)
        curve = summary(looks, found, self.settings.slack)
        evidence = {kind: float(getattr(found, kind)) for kind in KINDS}
        status, kind, share = _decide(evidence, self.settings, bool(shifts))
        status = "warn" if silent and status == "ok" else status
        reason = explain(status, kind, curve, shifts, silent)
        self._note(status, step, reason)
        if self._stopped_at is not None:
            status, reason = "stop", self._stop_reason
        fit = fit_steps(looks.n, looks.kl, looks.mean) if has_kl else None
        return Verdict(
            status=status,
            reason=reason,
            step=step,
            best_step=int(scored[int(curve["best"])]["step"]),
            gain=curve["gain"],
            lost=curve["lost"],
            lost_interval=(curve["lost_low"], curve["lost_high"]),
            peak_kl=None if fit is None or fit.refusal else fit.peak_kl,
            fit=fit,
            evidence=evidence,
            wanted=self.settings.budget * (self.settings.boost if share >= self.settings.alert else 1),
            stopped_at=self._stopped_at,
            warned_at=self._warned_at,
            silent=silent,
        )

    def _note(self, status: Status, step: int, reason: str) -> None:
        if status != "ok" and self._warned_at is None:
            self._warned_at = step
        if status == "stop" and self._stopped_at is None:
            self._stopped_at, self._stop_reason = step, reason


CALIBRATED = {
    "fall": 4.0,
    "stall": 4.1,
    "turn": 3.5,
    "joint": 3.5,
    "back": 3.4,
    "course": 3.9,
}  # 200 looks; see benchmarks/monitor_simulation.md

WARNING = ("stall", "joint")  # no reason to stop where `course` is known: whether held-out still rises is measured then


def thresholds(settings: Settings) -> dict[str, float]:
    """Evidence at which each kind stops a run of `settings.steps` looks."""
    more = 0.15 * math.log2(settings.steps / 200)
    return {kind: value + more for kind, value in CALIBRATED.items()} | dict(settings.stop)


def _decide(evidence: Mapping[str, float], settings: Settings, is_far: bool) -> tuple[Status, str | None, float]:
    """Status, the kind of evidence that it rests on, and the largest share of a threshold."""
    is_measured = evidence["course"] > -math.inf
    ease = settings.corroborated if is_far and not is_measured else 1.0
    limits = {kind: limit * (1 if kind == "back" else ease) for kind, limit in thresholds(settings).items()}
    shares = {kind: evidence[kind] / limit for kind, limit in limits.items()}
    stopping = {kind: share for kind, share in shares.items() if not (is_measured and kind in WARNING)}
    strongest, share = max(shares, key=shares.__getitem__), max(shares.values())
    if max(stopping.values()) >= 1:
        return "stop", max(stopping, key=stopping.__getitem__), share
    if share >= settings.warn:
        return "warn", strongest, share
    return ("warn" if is_far else "ok"), None, share


def _scored(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], bool]:
    """Steps with held-out scores, and whether their KL is known. Where it is known at some, the others are passed over; where
    it is known at none, the number of the step stands in for it: the policy is taken to move on with every step.
    """
    scored = [row for row in rows if row["n"] > 0]
    known = [row for row in scored if math.isfinite(row["kl"])]
    return (known, True) if known else ([{**row, "kl": float(i)} for i, row in enumerate(scored)], False)


def _silent(rows: Sequence[Mapping[str, Any]]) -> int:
    """Steps in a row, up to now, that asked for held-out scores and got none; steps that asked for none are passed over."""
    asked = [row for row in reversed(rows) if row["asked"]]
    return next((i for i, row in enumerate(asked) if row["n"]), len(asked))


def _looks(scored: Sequence[Mapping[str, Any]]) -> Looks:
    names = tuple(part.name for part in fields(Looks))
    return Looks(**{name: np.array([row[name] for row in scored], dtype=np.float64) for name in names})


def _row(seen: Observation) -> dict[str, Any]:
    """What is kept of a step. Raises ConfigError when the lists of one step differ in length."""
    held_out = np.asarray(seen.held_out, dtype=np.float64)
    proxies = np.asarray(seen.proxies, dtype=np.float64)
    prompts = None if seen.prompts is None else np.asarray(seen.prompts, dtype=np.int64)
    ratios, course = (np.asarray(part, dtype=np.float64) for part in (seen.ratios, seen.course))
    given = [proxies, ratios, course] if prompts is None else [proxies, ratios, course, prompts]
    if any(len(part) not in (0, len(held_out)) for part in given) or (
        prompts is not None and len(prompts) != len(held_out)
    ):
        raise ConfigError(
            f"step {seen.step}: held_out, proxies, ratios, course and prompts differ in length; give one of each per sample"
        )
    is_usable = np.isfinite(held_out) & math.isfinite(seen.proxy)
    liked, moved, late = (_products(held_out, part, prompts, is_usable) for part in (proxies, ratios, course))
    scores = held_out[is_usable]
    signals = {name: float(value) for name, value in seen.signals.items() if value is not None and math.isfinite(value)}
    return {
        "step": int(seen.step),
        "kl": float(seen.kl),
        "proxy": float(seen.proxy),
        "asked": max(seen.asked, len(held_out)) if math.isfinite(seen.proxy) else 0,
        "n": len(scores),
        "mean": float(scores.mean()) if len(scores) else 0.0,
        "within": float(scores.var(ddof=1)) if len(scores) > 1 else 0.0,
        "groups": liked.groups,
        "cross": liked.cross,
        "square": liked.square,
        **_road("path", moved),
        **_road("course", late),
        "signals": signals,
    }


def _products(held_out: Floats, other: Floats, prompts: Ints | None, is_usable: NDArray[np.bool_]) -> Products:
    """Products within prompts of the samples that have both; none where the other or the prompts are not known."""
    if prompts is None or not len(other):
        return Products()
    both = is_usable & np.isfinite(other)
    return within_prompts(held_out[both], other[both], prompts[both])


def _road(name: str, found: Products) -> dict[str, float]:
    """Products with the log-ratios of one road, under their names in `Looks`."""
    counts = {f"{name}_groups": found.groups, f"{name}_freedom": found.freedom, f"{name}_spread": found.spread}
    return {**counts, name: found.cross, f"{name}_square": found.square}


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
