"""guerdon optimize ppo, rloo, grpo: a policy against a frozen reward, watched by one that is not optimised."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.terminal import load_scorer, parse_options, run_folder
from guerdon.types import ConfigError, GuerdonError

if TYPE_CHECKING:
    from guerdon.optimize.config import Algorithm, OptimizeConfig
    from guerdon.optimize.rewards import WeightedSum


HELD_OUT_PATIENCE = 10.0  # seconds that a step waits for a server that is only watched


def optimize(config: OptimizeConfig) -> None:
    """Train a policy against a reward; see OptimizeConfig for the options."""
    from guerdon.optimize.loop import optimize as run
    from guerdon.optimize.run_folder import prepare_output
    from guerdon.progress import OptimizeBar

    def say(line: str) -> None:
        print(line, flush=True)

    bar = OptimizeBar(config.algorithm)
    with run_folder(config.output):
        config = prepare_output(config).require_paths()  # before models are loaded
        reward, held_out = _rewards(config)
        try:
            result = run(config, reward, held_out, say=say, watch=bar)
        finally:
            bar.stop()  # also on an error, or its message would be drawn over
    if result.is_main_process:
        saved = f", as of step {result.saved_step}" if result.saved_step < result.steps else ""
        _leave_pages(Path(config.output), say)
        say(f"{summary(Path(config.output))}; {result.seconds:.0f} s; the policy is {result.policy}{saved}")


def _leave_pages(run: Path, say: Callable[[str], None]) -> None:
    """Pairs to label next and the run's page. The policy is there already, so what cannot be written is no failure of the run."""
    from guerdon.diagnose.labelling import write_to_label
    from guerdon.diagnose.run_page import write_run_page

    try:
        count = write_to_label(run)
        say(f"{count} pairs worth labelling next: {run / 'to_label.jsonl'}")
    except GuerdonError as error:
        say(f"no pairs to label were written ({error})")
    try:
        write_run_page([run], run / "report.html")
        say(f"page: {run / 'report.html'}")
    except GuerdonError as error:
        say(f"no page was written ({error}); try again with: guerdon diagnose run {run}")


def _rewards(config: OptimizeConfig) -> tuple[WeightedSum, WeightedSum | None]:
    """What is optimised and what is watched, as the options spell them. An ensemble that is watched counts as its mean."""
    from guerdon.client import Client
    from guerdon.optimize.reward_option import parse_rewards

    @lru_cache
    def tokenizer() -> Any:
        from transformers import AutoTokenizer

        from guerdon.model.load import resolve

        return AutoTokenizer.from_pretrained(resolve(config.policy))

    parse: Callable[..., WeightedSum] = partial(
        parse_rewards,
        count_tokens=lambda text: len(tokenizer()(text, add_special_tokens=False)["input_ids"]),
    )
    connect = partial(Client, on_failure="wait" if config.reward_failures == "wait" else "mask")
    reward = parse(config.reward, connect=connect, load=lambda path: load_scorer(path, None, config.reward_rule))
    if not config.held_out:
        return reward, None
    may_fail = partial(Client, on_failure="mask", patience=HELD_OUT_PATIENCE)
    return reward, parse(
        config.held_out, connect=may_fail, load=lambda path: load_scorer(path, None), option="held-out"
    )


def summary(run: Path) -> str:
    """Reward, held-out and KL from the first steps to the last ones, means over a tenth of the run each, at most 10 steps."""
    from guerdon.progress import number

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    size = min(10, max(1, len(rows) // 10))

    def mean(name: str, part: list[dict[str, Any]]) -> float | None:
        values = [row[name] for row in part if row[name] is not None]
        return sum(values) / len(values) if values else None

    def change(name: str) -> str:
        return f"{number(mean(name, rows[:size]))} -> {number(mean(name, rows[-size:]))}"

    held = ", no held-out score came" if any(row.get("held_out_asked") for row in rows) else ""
    if any(row["held_out"] is not None for row in rows):
        held = f", held-out {change('held_out')}"
    masked = sum(row["masked"] for row in rows)
    without = f", {masked} samples without a reward" if masked else ""
    return f"reward {change('proxy')}{held}, KL {number(mean('kl', rows[-size:]), 2)} nats per sequence{without}"


def parse_as(algorithm: Algorithm, args: list[str]) -> OptimizeConfig:
    """Flags over the --config file over the defaults; all three use the same names. The command's algorithm wins over that of
    the file. Raises ConfigError when the run to resume is another algorithm's.
    """
    from guerdon.optimize.config import OptimizeConfig

    config = parse_options(
        OptimizeConfig,
        args,
        f"guerdon optimize {algorithm}",
        "Train a policy against a frozen reward, with KL to its start kept in sight and a second reward to see over-optimisation "
        "with. --config FILE reads any of these options from a YAML file; flags on the command line win over it.",
    )
    if config.resume and config.algorithm != algorithm and (Path(config.output) / "config.yaml").is_file():
        raise ConfigError(
            f"{config.output}: was started by guerdon optimize {config.algorithm}; go on with that command"
        )
    return replace(config, algorithm=algorithm)
