"""guerdon optimize sft: a policy from answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.optimize.sft_config import SftConfig


def sft(config: SftConfig) -> None:
    """Fine-tune a policy on answers; see SftConfig for the options."""
    from guerdon.optimize.sft import fine_tune
    from guerdon.progress import StepBar

    def note(row: dict[str, Any]) -> str:
        value = row["held_out_perplexity"]
        return "" if value is None else f"step {row['step']}: held-out perplexity {value:.3f}"

    bar = StepBar("fine-tuning", note)
    try:
        result = fine_tune(config, say=lambda line: print(line, flush=True), watch=bar)
    finally:
        bar.stop()
    if result.is_main_process:
        held = ""
        if result.perplexity is not None and result.perplexity_before is not None:
            held = f"held-out perplexity {result.perplexity_before:.3f} -> {result.perplexity:.3f}; "
        print(f"{held}{result.steps} steps in {result.seconds:.0f} s; the policy is {result.policy}")


def parse(args: list[str]) -> Any:
    """Flags over the --config file over the defaults; all three use the same names."""
    from guerdon.optimize.sft_config import SftConfig
    from guerdon.terminal import parse_options

    return parse_options(
        SftConfig,
        args,
        "guerdon optimize sft",
        "Fine-tune a policy on answers: -log p of the completion tokens alone. --config FILE reads any of these options from "
        "a YAML file; flags on the command line win over it.",
    )
