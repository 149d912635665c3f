"""The monitor's one sentence: what was seen, and what it means for the run."""

from __future__ import annotations

from collections.abc import Mapping


def explain(
    status: str,
    kind: str | None,
    curve: Mapping[str, float],
    shifts: Mapping[str, float],
    silent: int = 0,
    is_blind: bool = False,
) -> str:
    """The reason of a verdict; `kind` is the evidence it rests on, None when it rests on other signals alone. `silent` steps in
    a row have asked for held-out scores in vain; `is_blind` when none has ever come.
    """
    far = ", ".join(
        f"{name} by {shift:+.0f} SD" for name, shift in sorted(shifts.items(), key=lambda s: -abs(s[1]))[:3]
    )
    word = "" if status == "stop" else "may have "
    if kind == "fall":
        verb = "has fallen" if status == "stop" else "may have fallen"
        return (
            f"Held-out {verb} by {curve['lost']:.3f} (95 % interval {curve['lost_low']:.3f} to {curve['lost_high']:.3f}) "
            f"from its best, a gain of {curve['gain']:.3f}, while the proxy rose."
        )
    if kind == "stall":
        return f"The proxy keeps rising, but held-out {word or 'has '}stopped following it (gain so far {curve['gain']:.3f})."
    if kind == "turn":
        verb = "prefers" if status == "stop" else "may prefer"
        return f"Of the policy's own answers to one prompt the proxy now {verb} those that held-out finds worse."
    if kind == "back":
        would = "would" if status == "stop" else "may"
        return (
            f"Held-out {would} be higher a step back towards the reference, and the policy moves on (gain so far "
            f"{curve['gain']:.3f})."
        )
    if kind == "course":
        falls = "falls" if status == "stop" else "may fall"
        return f"Held-out {falls} along the way that the policy has taken of late (gain so far {curve['gain']:.3f})."
    if kind == "joint":
        has = "has" if status == "stop" else "seems to have"
        return (
            f"The proxy keeps rising, but held-out {has} stopped following it (gain so far {curve['gain']:.3f}), and of the "
            "policy's own answers to one prompt the proxy no longer prefers those that held-out finds better."
        )
    if far:
        why = "no held-out score comes" if silent else "there are no held-out scores" if is_blind else ""
        blind = f"; {why}, so whether this is harm cannot be told" if why else ""
        return f"The proxy rises while the answers move far from the start ({far}){blind}."
    if silent:
        steps = "in this step" if silent == 1 else f"in {silent} steps"
        return f"No held-out score came {steps}, so over-optimisation cannot be seen: see to the held-out reward."
    if is_blind:
        return "There are no held-out scores, so only signs that need none are watched, and a stop is never said."
    if not curve:
        return "Held-out has scores of a single step; nothing can be said before the second."
    return "Nothing says that held-out has stopped following the proxy."
