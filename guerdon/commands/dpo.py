"""guerdon optimize dpo: a policy, and an implicit reward, from comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.optimize.dpo_config import DpoConfig


def dpo(config: DpoConfig) -> None:
    """Direct preference optimisation; see DpoConfig for the options."""
    from guerdon.optimize.dpo import direct_preference
    from guerdon.progress import StepBar, accuracy_line

    result = direct_preference(config, say=lambda line: print(line, flush=True), watch=StepBar("dpo"))
    if result.is_main_process:
        held = ""
        if result.evaluation:
            held = f"implicit accuracy {accuracy_line(result.evaluation)} on {result.evaluation['n']} held-out pairs; "
        print(f"{held}{result.steps} steps in {result.seconds:.0f} s; the policy is {result.policy}")
        print(f"its implicit reward scores like a reward model: --reward {result.policy}")


def parse(args: list[str]) -> Any:
    """Flags over the --config file over the defaults; all three use the same names."""
    from guerdon.optimize.dpo_config import DpoConfig
    from guerdon.terminal import parse_options

    return parse_options(
        DpoConfig,
        args,
        "guerdon optimize dpo",
        "Fine-tune a policy on comparisons directly, through TRL (pip install 'guerdon[rl]'). --config FILE reads any of these "
        "options from a YAML file; flags on the command line win over it.",
    )
