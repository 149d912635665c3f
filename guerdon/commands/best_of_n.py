"""guerdon optimize best-of-n: of n answers to each prompt the one that a reward picks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from guerdon.terminal import counting_bar, load_reward, require_writable, show, spinner, write_json
from guerdon.types import DataError

if TYPE_CHECKING:
    from guerdon.optimize.best_of_n_summary import Mean, Summary
    from guerdon.optimize.policy import Policy
    from guerdon.optimize.rewards import WeightedSum


def best_of_n(
    data: tuple[str, ...],
    output: str,
    reward: tuple[str, ...] = (),
    policy: str | None = None,
    n: int = 16,
    mode: Literal["best", "weighted", "majority"] = "best",
    held_out: tuple[str, ...] = (),
    length_penalty: float = 0.0,
    logprob_weight: float = 0.0,
    weights: Literal["exp", "sigmoid", "raw"] = "exp",
    scale: float = 1.0,
    answers: Literal["number", "text"] = "number",
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_length: int = 1024,
    masked: Literal["mask", "renormalise", "error"] = "mask",
    ensemble_rule: str = "mean",
    keep_candidates: bool = False,
    batch: int = 128,
    json: str | None = None,
    device: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Pick one of n answers to each prompt: sampled from a policy, or given. One output row per input row, in order, resumable.

    Args:
        data: Rows with `prompt`, to sample from --policy; or rows with `completions`, to choose from.
        output: File to write (.jsonl); each row has the picked `completion`, its `picked_score`, and the `scores` of all candidates.
        reward: What picks: a reward model's folder, a server's address, or NAME=SPEC:WEIGHT for each part of a sum.
        policy: Folder or hub id of a causal language model to sample from; without one the rows bring their candidates.
        n: Answers sampled for each prompt.
        mode: best: the highest reward. weighted: the final answer with the most reward behind it. majority: the one given most often.
        held_out: A reward that picks nothing and is reported beside the other: a second reward model, lab-gold, answer=FILE:1.
        length_penalty: Taken off the reward for each word.
        logprob_weight: Added to the reward for each nat of log-probability under the policy, against far-fetched winners.
        weights: Weight of a vote from its reward r: exp(r / scale), 1 / (1 + exp(-r / scale)), or r itself.
        scale: Reward units in one unit of the exponent of `weights`.
        answers: Final answers that are voted on are numbers, or texts.
        max_new_tokens: Longest answer, tokens.
        temperature: Sampling temperature.
        top_p: Sample from the most probable tokens that hold this share.
        max_length: Longest prompt, tokens; a longer one gets status `error`.
        masked: What becomes of an answer that a part of the reward could not score.
        ensemble_rule: What leaves an ensemble: mean, min, mean-std:K, mean-var:K or quantile:Q.
        keep_candidates: Write the texts of all candidates too.
        batch: Answers sampled and scored together.
        json: Write the summary to this file, as JSON.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        seed: Of the sampling.
        overwrite: Replace an output that is already there.
    """
    from guerdon.data.containers import stream
    from guerdon.optimize.best_of_n import BestOfN
    from guerdon.optimize.best_of_n import best_of_n as run
    from guerdon.optimize.generate import Sampling
    from guerdon.optimize.pick import Picking

    plan = BestOfN(
        n,
        Sampling(max_new_tokens, temperature, top_p, rows=batch),
        Picking(mode, length_penalty, logprob_weight, weights, scale, answers == "number"),
        max_length,
        keep_candidates,
        batch,
        seed,
    )
    require_writable(json)
    rows = sum(1 for path in data for _ in stream(path))
    writer = _load_policy(policy, device)
    count = _token_counter(writer)
    picks = load_reward(reward, device, ensemble_rule, masked, count) if reward else None
    watched = load_reward(held_out, device, count_tokens=count, option="held-out") if held_out else None
    names = {"policy": policy, "reward": list(reward), "held_out": list(held_out), "masked": masked}
    names |= {"ensemble_rule": ensemble_rule, "fingerprints": _fingerprints(picks, watched)}
    with counting_bar("choosing", rows) as advance:
        summary = run(
            data,
            output,
            picks,
            plan=plan,
            policy=writer,
            held_out=watched,
            names=names,
            overwrite=overwrite,
            advance=advance,
        )
    if summary.ladder:
        show(table(summary))
    print(lines(summary))
    write_json(json, summary.to_dict())
    _require_a_pick(summary, bool(policy))


def _load_policy(path: str | None, device: str | None) -> Policy | None:
    if not path:
        return None
    from guerdon.optimize.policy import Policy

    with spinner(f"loading {path}"):
        return Policy.load(path, device=device)


def _token_counter(policy: Policy | None) -> Callable[[str], int] | None:
    """Tokens in a text, as the policy reads it."""
    return (lambda text: len(policy.tokenizer(text, add_special_tokens=False)["input_ids"])) if policy else None


def _fingerprints(*rewards: WeightedSum | None) -> list[str]:
    """What the rewards say they are, so that a file is not continued with others."""
    parts = [scorer for reward in rewards if reward for scorer in reward.scorers.values()]
    return [str(getattr(scorer, "fingerprint", "")) for scorer in parts]


def _require_a_pick(summary: Summary, samples: bool) -> None:
    """Raise DataError when no row has a pick: whatever reads the file next would find nothing in it."""
    if not summary.statuses["ok"]:
        advice = "" if samples or summary.candidates else "give --policy to sample answers to prompts, or "
        raise DataError(
            f"{summary.output}: none of {summary.rows} rows has a pick; {advice}mend what is named above, and start again "
            "with --overwrite"
        )


def table(summary: Summary) -> Any:
    """The ladder: best of n for every n."""
    from rich.table import Table

    found = Table("n", "KL <= nats", "reward", "95 %", title=f"best of n over {summary.prompts} prompts")
    has_held = any(rung.held_out for rung in summary.ladder)
    for name in ("held-out", "95 %") if has_held else ():
        found.add_column(name)
    for rung in summary.ladder:
        held = cells(rung.held_out) if has_held and rung.held_out else ()
        found.add_row(str(rung.n), f"{rung.kl:.3f}", *cells(rung.reward), *held)
    return found


def cells(mean: Mean) -> tuple[str, str]:
    """Mean and interval as text."""
    if mean.mean is None:
        return "-", "-"
    return f"{mean.mean:.4f}", "-" if mean.low is None else f"{mean.low:.4f} to {mean.high:.4f}"


def lines(summary: Summary) -> str:
    """What the table does not say."""
    counts = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
    found = [
        f"{summary.output}: {summary.rows} rows ({counts or 'none'}), {summary.candidates} candidates, {summary.masked} without a "
        f"reward, {summary.resumed} rows from an earlier run, {summary.seconds:.1f} s"
    ]
    if summary.set_aside and summary.ladder:
        found.append(
            f"{summary.set_aside} prompts have fewer than {summary.ladder[-1].n} scored candidates and are not in the table"
        )
    found += [f"{count} rows without a pick: {reason}" for reason, count in summary.reasons.items()]
    if summary.margin is not None:
        found.append(f"mean margin over the runner-up {summary.margin:.4f}")
    if summary.picked and summary.chance and summary.gain:
        found.append(
            f"held-out of the picks {cells(summary.picked)[0]}, of a random candidate {cells(summary.chance)[0]}, "
            f"gain {cells(summary.gain)[0]} ({cells(summary.gain)[1]})"
        )
    return "\n".join(found)
