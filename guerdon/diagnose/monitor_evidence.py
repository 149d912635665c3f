"""What held-out scores say about a run so far: has gold fallen, does it still follow the proxy, where was it best.

In: one row per scored step. Out: standardised evidence, each kind with one threshold for the whole run. Every function
takes runs on leading axes, so that calibration by simulation runs the very code that the monitor runs.

A current window, the last b looks, is compared with every earlier window of a looks. With g mean held-out score, p mean
proxy, 0 the first looks, E the earlier and C the current window, and x = (p_C - p_E) / (p_E - p_0) the rise of the proxy
since E as a share of its rise until E:

    fall    g_E - g_C - tolerance (g_E - g_0)             held-out is lower than it was
    stall   pace x (g_E - g_0) - (g_C - g_E)              held-out gained less than `pace` of what its early rate promises
    turn    minus the covariance of held-out and proxy    of the answers to one prompt the reward prefers the worse ones
            within prompts, over the last b looks
    joint   (stall + turn) / sqrt(2), the same b          both at once: neither need be plain alone
    back    -D log sqrt(k_C / k_B) - ahead (g_C - g_0)    a step back to the reference would raise held-out, and the policy
                                                          goes on; k is KL, B the b looks before C
    course  -L - astray (g_C - g_0)                       held-out falls along the road that the policy has come of late

The first two are linear in window means, so their standard errors are known. The third can see a fall before it is one: a
policy that moves along its reward changes mean gold at the rate cov(gold, proxy) / var(proxy) of its own answers (the
derivative of an exponential tilt of the policy by the reward). An optimiser that rescales its steps does not follow that
rate exactly, and a habit that is rare in the samples does not show in it: a rate near 0 proves nothing, so only one that is
plainly negative counts alone (the proxy may then rest), and one that is less plain only together with a stall.

D is the covariance of held-out and log pi - log pi_ref within prompts, over the last b looks. Mixing the policy with its
reference, pi_ref^(1 - w) pi^w up to a constant, changes mean held-out at the rate D per unit of w at w = 1, where the policy
is; and near the reference KL grows as w^2. So D log sqrt(k_C / k_B) is what another b looks like the last would add to
held-out, were they to go on along that path.

L is the same covariance with log pi - log pi_late, where pi_late is the policy of some steps ago or its mean of late: the
rate of held-out at the policy as it is, on the way that it took last, and what another stretch of that length would add. No
road is assumed: it is the one taken. Around the peak of held-out the rate sinks through 0, and a straight line through many
looks says where it is now, and a little later, with less noise than a few looks and less delay than the mean of many.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guerdon.evaluate.columns import Floats, Ints

CURRENT = (4, 8, 16, 32)  # looks in the current window
EARLIER = (8, 16, 32)  # looks in the earlier window
TRENDS = (12, 16, 24, 48)  # looks that a line is drawn through, for `course`
AHEAD = 1 / 8  # of those looks: how far on the line is read
RECENT = 8  # looks that make up what was gained until now, for `course`
STARTING = 4  # looks that make up the start
PRIOR = 10  # looks that the spread within a step counts for in the noise
GAINED = 2.0  # standard errors by which held-out must have gained before it can stall
FEWEST_GROUPS = 24  # prompts with two or more scored answers before their order is read
FEWEST_ON_COURSE = (
    64  # the same for `course`: in its first steps a policy moves by leaps, products of few have long tails
)
STILL = 1e-6  # mean square of log-ratios within prompts, nats^2, below which they are rounding errors: the policy has not moved


@dataclass(frozen=True)
class Looks:
    """Steps with held-out scores, oldest first; every array is (..., looks).

    n       held-out scores of the step
    mean    their mean
    within  variance of one score within its step
    proxy   mean reward of the step
    kl      nats per sequence
    groups  prompts with two or more answers that have both scores; 0 when prompts are not known
    cross   sum over those prompts of the cross products of held-out and proxy about their means within the prompt
    square  sum over those prompts of the squares of their cross products: the variance of `cross` when it is 0 on average

    path, path_groups, path_square    as above, with log pi - log pi_ref in place of the proxy
    path_freedom                      answers to those prompts less one for each
    path_spread                       sum of squares of those log-ratios about their means within the prompt, nats^2
    course, course_...                the same, with log pi - log pi_late
    """

    n: Floats
    mean: Floats
    within: Floats
    proxy: Floats
    kl: Floats
    groups: Floats
    cross: Floats
    square: Floats
    path_groups: Floats
    path_freedom: Floats
    path_spread: Floats
    path: Floats
    path_square: Floats
    course_groups: Floats
    course_freedom: Floats
    course_spread: Floats
    course: Floats
    course_square: Floats

    def until(self, count: int) -> Looks:
        """The first `count` looks."""
        return Looks(**{field.name: getattr(self, field.name)[..., :count] for field in fields(self)})

    @property
    def count(self) -> int:
        return int(self.n.shape[-1])


@dataclass(frozen=True)
class Rules:
    """What counts as a fall and as a stall; all shares, without unit.

    tolerance  fall that is let pass, as a share of the gain until the earlier window
    rising     least x for a fall: the proxy must have gone on rising
    pace       share of its early rate that held-out must keep, or it no longer follows
    further    least x over which that is asked
    ahead      loss to be expected over a window, as a share of the gain until now, that is let pass
    astray     the same for `course`, over as long a stretch as lies between the policy and what it was of late
    """

    tolerance: float = 0.03
    rising: float = 0.05
    pace: float = 0.4
    further: float = 0.2
    ahead: float = 0.025
    astray: float = 0.02


@dataclass(frozen=True)
class Evidence:
    """Standardised evidence at the last look, each (...): -inf where nothing can be compared yet.

    noise  variance of one held-out score as it acts on step means (score^2)
    """

    fall: Floats
    stall: Floats
    turn: Floats
    joint: Floats
    back: Floats
    course: Floats
    noise: Floats


KINDS = ("fall", "stall", "turn", "joint", "back", "course")


def noise_variance(looks: Looks) -> Floats:
    """Variance that one held-out score contributes to the mean of a step, prompts drawn anew at each step included.

    The larger of two estimates: the variance within steps, and that of neighbouring steps' means (Rice 1984), which also
    sees what a step's prompts have in common; the latter starts out as the former and weighs `PRIOR` steps of it. A single
    score has no variance within its step, so where all steps have one, only their jumps count.
    """
    freedom = (looks.n - 1).sum(-1)
    within = ((looks.n - 1) * looks.within).sum(-1) / np.maximum(freedom, 1)
    prior = np.minimum(PRIOR, freedom)
    jumps = np.diff(looks.mean, axis=-1) ** 2 / (1 / looks.n[..., 1:] + 1 / looks.n[..., :-1])
    between = (prior * within + jumps.sum(-1)) / np.maximum(prior + jumps.shape[-1], 1)
    noise: Floats = np.maximum(np.maximum(within, between), 1e-12)
    return noise


def weigh(looks: Looks, rules: Rules) -> Evidence:
    """Evidence at the last look."""
    noise = noise_variance(looks)
    fall, stall, turn, joint, back, course = (np.full(looks.n.shape[:-1], -np.inf) for _ in KINDS)
    if looks.count >= STARTING + CURRENT[0]:
        sums = [_sums(part) for part in (looks.n, looks.n * looks.mean, looks.n * looks.proxy, looks.n * looks.kl)]
        for b in CURRENT:
            fallen, stalled = _levels(sums, b, noise[..., None], rules)
            turned = _turn(looks, b)
            fall, stall, turn = np.maximum(fall, fallen), np.maximum(stall, stalled), np.maximum(turn, turned)
            joint = np.maximum(joint, (stalled + turned) / np.sqrt(2))
            back = np.maximum(back, _back(looks, sums, b, rules))
        for length in TRENDS:
            course = np.maximum(course, _course(looks, sums, length, rules))
    return Evidence(fall, stall, turn, joint, back, course, noise)


Window = tuple[Floats, Floats, Floats, Floats]  # scores, mean held-out, mean proxy, mean KL


def _levels(sums: list[Floats], b: int, noise: Floats, rules: Rules) -> tuple[Floats, Floats]:
    """Evidence of a fall and of a stall between the last b looks and the earlier window that shows it most."""
    count = sums[0].shape[-1] - 1
    fall, stall = (np.full(noise.shape[:-1], -np.inf) for _ in range(2))
    start = _window(sums, np.array([STARTING]), STARTING)
    for a in EARLIER:
        ends = np.arange(count - b, a - 1, -(a // 4))
        if len(ends):
            now = _window(sums, np.array([count]), b)
            fallen, stalled = _contrasts(start, _window(sums, ends, a), now, noise, rules)
            fall, stall = np.maximum(fall, fallen.max(-1)), np.maximum(stall, stalled.max(-1))
    return fall, stall


def _contrasts(start: Window, earlier: Window, now: Window, noise: Floats, rules: Rules) -> tuple[Floats, Floats]:
    (n0, g0, p0, _), (ne, ge, pe, ke), (nc, gc, pc, kc) = start, earlier, now
    rise, onward, gain = pe - p0, pc - pe, ge - g0
    is_on = (onward > rules.rising * rise) & (onward > 0) & (kc > ke)
    tolerance = np.where(gain > 0, rules.tolerance, 0.0)
    error = np.sqrt(noise * (tolerance**2 / n0 + (1 - tolerance) ** 2 / ne + 1 / nc))
    fall = np.where(is_on, (ge - gc - tolerance * gain) / error, -np.inf)
    is_asked = (
        is_on & (onward >= rules.further * rise) & (rise > 0) & (gain > GAINED * np.sqrt(noise * (1 / n0 + 1 / ne)))
    )
    promised = rules.pace * np.minimum(onward / np.where(rise > 0, rise, 1.0), 1.0)
    error = np.sqrt(noise * (promised**2 / n0 + (1 + promised) ** 2 / ne + 1 / nc))
    stall = np.where(is_asked, (promised * gain - (gc - ge)) / error, -np.inf)
    return fall, stall


def _turn(looks: Looks, b: int) -> Floats:
    """Evidence that held-out and the proxy are negatively related within prompts over the last b looks."""
    groups, cross, square = (part[..., -b:].sum(-1) for part in (looks.groups, looks.cross, looks.square))
    is_enough = (groups >= FEWEST_GROUPS) & (square > 0)
    turn: Floats = np.where(is_enough, -cross / np.sqrt(np.where(is_enough, square, 1.0)), -np.inf)
    return turn


def _moved(looks: Looks, road: str, b: int) -> tuple[NDArray[np.bool_], Floats, Floats, Floats]:
    """Over the last b looks: whether enough is known of a road (`path` or `course`) and the policy moved on it; freedom, sum of
    products and sum of their squares, 1 in place of freedom and squares where it is not.
    """
    names = (f"{road}_groups", f"{road}_freedom", f"{road}_spread", road, f"{road}_square")
    groups, freedom, spread, cross, square = (getattr(looks, name)[..., -b:].sum(-1) for name in names)
    is_known = (groups >= FEWEST_GROUPS) & (square > 0) & (spread >= STILL * freedom)
    return is_known, np.where(is_known, freedom, 1.0), cross, np.where(is_known, square, 1.0)


def _back(looks: Looks, sums: list[Floats], b: int, rules: Rules) -> Floats:
    """Evidence that held-out would be higher a step back towards the reference, while KL grows."""
    nothing: Floats = np.full(looks.n.shape[:-1], -np.inf)
    if looks.count < 2 * b:
        return nothing
    is_known, freedom, path, square = _moved(looks, "path", b)
    (_, g0, _, _), (_, _, _, before), (_, now, _, kl) = (
        tuple(part[..., 0] for part in _window(sums, np.array([end]), length))
        for end, length in ((STARTING, STARTING), (looks.count - b, b), (looks.count, b))
    )
    is_asked = is_known & (before > 0) & (kl > before)
    growth = np.log(np.where(is_asked, kl, np.e) / np.where(is_asked, before, 1.0)) / 2
    allowed = rules.ahead * np.maximum(now - g0, 0.0) / growth
    back: Floats = np.where(is_asked, (-path / freedom - allowed) * freedom / np.sqrt(square), -np.inf)
    return back


def _course(looks: Looks, sums: list[Floats], length: int, rules: Rules) -> Floats:
    """Evidence that held-out falls along the road that the policy has come of late, by more than is let pass: by the straight
    line of least squares through the rates of the last `length` looks, where it will be `AHEAD` of that length further on.

    None where the rates bend upwards by more than a standard error: they level off, as they do when a run has gained what
    there is, and the line would go on falling.
    """
    found: Floats = np.full(looks.n.shape[:-1], -np.inf)
    if looks.count < STARTING + length:
        return found
    is_known, *_ = _moved(looks, "course", length)
    names = ("course_groups", "course_freedom", "course", "course_square")
    groups, freedom, course, square = (getattr(looks, name)[..., -length:] for name in names)
    total = np.maximum(freedom.sum(-1, keepdims=True), 1.0)
    when = np.arange(1.0 - length, 1.0)  # looks, 0 is now
    middle = (freedom * when).sum(-1, keepdims=True) / total
    off = when - middle
    spread, skew = ((freedom * off**power).sum(-1, keepdims=True) for power in (2, 3))
    width = np.maximum(spread, 1.0)
    line = 1 / total + (AHEAD * length - middle) * off / width  # what each look's sum counts for in its height there
    bend = off**2 - spread / total - skew * off / width  # and in the coefficient of the square, but for a factor
    is_level = (bend * course).sum(-1) > np.sqrt((bend**2 * square).sum(-1))
    (_, g0, _, _), (_, now, _, _) = (
        tuple(part[..., 0] for part in _window(sums, np.array([end]), end_length))
        for end, end_length in ((STARTING, STARTING), (looks.count, RECENT))
    )
    lost = -(line * course).sum(-1) - rules.astray * np.maximum(now - g0, 0.0)
    variance = (line**2 * square).sum(-1)
    is_asked = is_known & (groups.sum(-1) >= FEWEST_ON_COURSE) & (variance > 0)
    found = lost / np.sqrt(np.where(is_asked, variance, 1.0))
    found = np.where(is_asked, np.where(is_level, np.minimum(found, 0.0), found), -np.inf)
    return found


class Products(NamedTuple):
    """Cross products of two quantities of a step's answers about their means within prompts.

    groups   prompts with two or more answers
    freedom  their answers, less one for each prompt
    spread   sum of squares of the other quantity about its means
    cross    sum of the products
    square   sum over prompts of the square of the prompt's sum: the variance of `cross` when it is 0 on average
    """

    groups: int = 0
    freedom: int = 0
    spread: float = 0.0
    cross: float = 0.0
    square: float = 0.0


def within_prompts(held_out: Floats, other: Floats, prompts: Ints) -> Products:
    """Products of held-out and another quantity (proxy, log-ratio) of the same answers; `prompts` numbers their prompts."""
    if not len(prompts):
        return Products()
    _, at, counts = np.unique(prompts, return_inverse=True, return_counts=True)
    at = at.reshape(-1)
    g, p = (part - (np.bincount(at, part) / counts)[at] for part in (held_out, other))
    products = np.bincount(at, g * p)[counts > 1]
    freedom, spread = int((counts - 1).sum()), float(p @ p)
    return Products(len(products), freedom, spread, float(products.sum()), float(products @ products))


def smooth(looks: Looks, width: float) -> tuple[Floats, Floats]:
    """Held-out curve of one run under a normal kernel of `width` looks, and the scores that each point rests on.

    The kernel ends at 9 widths, where it is below 1e-17 of its height: time and memory grow with the looks, not their square.
    """
    reach = min(int(9 * width) + 1, looks.count)
    kernel: Floats = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)

    def spread(values: Floats, weight: Floats) -> Floats:
        found: Floats = np.convolve(values, weight)[reach : reach + looks.count]
        return found

    total = spread(looks.n, kernel)
    return spread(looks.n * looks.mean, kernel) / total, total**2 / spread(looks.n, kernel**2)


def width_of(count: int) -> float:
    """Width of the kernel for a run of so many looks."""
    return min(max(count / 12, 2.0), 8.0)


def best_look(curve: Floats, error: Floats, slack: float) -> int:
    """The earliest look whose smoothed held-out is within `slack` standard errors of the highest."""
    top = int(curve.argmax())
    return int(np.flatnonzero(curve >= curve[top] - slack * error[top])[0])


def _sums(part: Floats) -> Floats:
    zero = np.zeros((*part.shape[:-1], 1))
    return np.concatenate([zero, np.cumsum(part, axis=-1)], axis=-1)


def _window(sums: list[Floats], ends: Ints, length: int) -> Window:
    n, g, p, k = (part[..., ends] - part[..., ends - length] for part in sums)
    return n, g / n, p / n, k / n
