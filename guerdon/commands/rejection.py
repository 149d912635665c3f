"""guerdon optimize rejection: sample, keep what the reward picks, fine-tune; beside a control that picks at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.optimize.arms import Difference
    from guerdon.optimize.rejection_config import RejectionConfig


def rejection(config: RejectionConfig) -> None:
    """Rejection sampling; see RejectionConfig for the options."""
    from guerdon.optimize.rejection import reject
    from guerdon.optimize.sft_config import require_named
    from guerdon.progress import StepBar
    from guerdon.terminal import counting_bar, load_reward

    require_named(config, ("policy", "prompts", "reward", "output"))
    reward = load_reward(config.reward, None, masked=config.masked)
    held_out = load_reward(config.held_out, None, option="held-out") if config.held_out else None
    result = reject(
        config,
        reward,
        held_out,
        say=lambda line: print(line, flush=True),
        watching=lambda text: StepBar(text),
        counting=counting_bar,
    )
    for name, found in result.gain.items():
        print(f"{name}: gained {text(found)} over the start")
    for name, found in result.effect.items():
        print(f"{name}: {text(found)} over the control, which was fine-tuned on random answers: the reward's own work")
    print(f"the policy is {result.policy}")


def text(found: Difference) -> str:
    """Mean and interval."""
    if found.mean is None:
        return "nothing known"
    interval = "one prompt, no interval" if found.low is None else f"95 % {found.low:+.4f} to {found.high:+.4f}"
    return f"{found.mean:+.4f} ({interval}, {found.prompts} prompts)"


def parse(args: list[str]) -> Any:
    """Flags over the --config file over the defaults; all three use the same names."""
    from guerdon.optimize.rejection_config import RejectionConfig
    from guerdon.terminal import parse_options

    return parse_options(
        RejectionConfig,
        args,
        "guerdon optimize rejection",
        "Sample answers, keep those that the reward picks, fine-tune on them, and show beside a control that picks at random what "
        "the reward did. --config FILE reads any of these options from a YAML file; flags on the command line win over it.",
    )
