"""Rejection sampling (RAFT, Dong et al. 2023, arXiv 2304.06767): sample, keep what the reward picks, fine-tune; again.

    (each round: sample -> score -> keep -> fine-tune) -> compare with a control on prompts that were set aside

The control is fine-tuned in the same way, on as many answers picked at random from the same samples (after the first round
from its own, as its policy is then another). What it gains is what fine-tuning on one's own answers does anyway; only the
difference between the two is the reward's work.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from guerdon.data.containers import stream
from guerdon.data.rows import load_prompts
from guerdon.files import replacing, replacing_folder, write_json, write_text
from guerdon.optimize.arms import Difference, Judged, difference, facts, judge
from guerdon.optimize.generate import generate
from guerdon.optimize.policy import Policy
from guerdon.optimize.rejection_config import RejectionConfig
from guerdon.optimize.rewards import require_all
from guerdon.optimize.sft import Watch, fine_tune
from guerdon.optimize.sft_config import SftConfig, claim_output, require_named
from guerdon.options import to_yaml
from guerdon.types import ConfigError, Conversation, Score, Scorer, TrainingError

Counting = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
BLOCK = 256  # conversations handed to the reward at once


@dataclass(frozen=True)
class RejectionResult:
    """What a run left behind: the policy, its rows of metrics.jsonl, and what it gained on the prompts set aside.

    gain    trained policy - start, for `reward` and `held_out`      effect  trained policy - control, the reward's own work
    """

    policy: Path
    rows: list[dict[str, Any]]
    gain: dict[str, Difference]
    effect: dict[str, Difference]


@contextmanager
def _uncounted(text: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


def reject(
    config: RejectionConfig,
    reward: Scorer,
    held_out: Scorer | None = None,
    *,
    device: str | None = None,
    say: Callable[[str], None] = print,
    watching: Callable[[str], Watch | None] = lambda text: None,
    counting: Counting = _uncounted,
) -> RejectionResult:
    """Run the rounds and leave the policy in `config.output/policy`, the control in `control`.

    `watching` makes what follows a fine-tuning, `counting` what follows sampling and scoring. Raises ConfigError or DataError
    before any work is done; TrainingError when a round keeps nothing, or as `fine_tune` does.
    """
    config = claim_output(require_named(config, ("output",)), ("resume", "rows", "tokens_per_row"))
    require_named(config, ("policy", "prompts", "reward"))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("rejection sampling runs on one device; start it without accelerate launch or torchrun")
    output = Path(config.output)
    start = Policy.load(config.policy, device=device)
    prompts, set_aside = _prompts(config, start, say)
    write_text(output / "config.yaml", to_yaml(config))
    run = _Run(config, output, reward, held_out, device, say, watching, counting)

    def judged(policy: Policy) -> Judged:
        return judge(policy, start, set_aside, config.eval_samples, config.sampling, reward, held_out, config.seed)

    found = {"start": judged(start)}
    rows = [{"round": 0, "arm": "start", **facts(found["start"])}]
    arms = {"reward": Path(config.policy), **({"control": Path(config.policy)} if config.control else {})}
    _report(output, rows, say)
    for number in range(1, config.rounds + 1):
        kept = 0
        for arm, path in arms.items():
            shares_samples = number == 1 and arm == "control"
            data, counts = run.keep(number, arm, path, prompts, "reward" if shares_samples else arm, kept)
            kept = counts["kept"]
            arms[arm] = run.tune(number, arm, path, data)
            found[arm] = judged(Policy.load(arms[arm], device=device))
            rows.append({"round": number, "arm": arm, **counts, **facts(found[arm])})
            _report(output, rows, say)
    for arm, path in arms.items():
        with replacing_folder(output / ("policy" if arm == "reward" else arm)) as staging:
            shutil.copytree(path, staging, dirs_exist_ok=True)
    names = ("reward",) if held_out is None else ("reward", "held_out")
    gain = {name: difference(found["reward"], found["start"], name) for name in names}
    effect = {name: difference(found["reward"], found["control"], name) for name in names if config.control}
    record = {"rows": rows, "prompts": len(prompts), "eval_prompts": len(set_aside)}
    record |= {key: {n: asdict(d) for n, d in value.items()} for key, value in (("gain", gain), ("effect", effect))}
    write_json(output / "run.json", record)
    return RejectionResult(output / "policy", rows, gain, effect)


@dataclass(frozen=True)
class _Run:
    """The stages of a round. Each leaves one file or folder that is whole or absent, so a resumed run does none twice."""

    config: RejectionConfig
    output: Path
    reward: Scorer
    held_out: Scorer | None
    device: str | None
    say: Callable[[str], None]
    watching: Callable[[str], Watch | None]
    counting: Counting

    def folder(self, number: int) -> Path:
        return self.output / f"round-{number:02d}"

    def keep(
        self, number: int, arm: str, policy: Path, prompts: Sequence[Conversation], sampler: str, kept: int
    ) -> tuple[Path, dict[str, Any]]:
        """Sample and score (or read what is there), choose, and write the answers to learn from; returns file and counts."""
        samples = self.folder(number) / f"{sampler}-samples.jsonl"
        if not samples.is_file():
            _write(samples, self._drawn(number, sampler, policy, prompts))
        groups = [row.data for row in stream(samples)]
        scores = [self._open(group) for group in groups]
        rng = random.Random(f"choice {self.config.seed} {number} {arm}")
        if arm == "control":
            chosen = choose_at_random(scores, kept, self.config.share, self.config.min_reward, rng)
        else:
            chosen = choose_by_reward(scores, self.config.share, self.config.min_reward, rng)
        everything = [score for group in groups for score in group["scores"]]
        known = [score for score in everything if score is not None]
        left = sum(score is not None for group in scores for score in group)
        if not chosen:
            raise TrainingError(f"round {number}: no answer is kept: of {len(everything)}, {len(known)} have a reward, and {left} of "
                                "these are not blank and not cut; see to the reward, raise --max-new-tokens, or lower --min-reward")  # fmt: skip
        rows = [
            {"prompt": groups[i]["prompt"], "completion": groups[i]["completions"][k], "reward": scores[i][k]}
            for i, k in chosen
        ]
        data = self.folder(number) / f"{arm}.jsonl"
        _write(data, rows)
        return data, {
            "samples": len(everything),
            "masked": len(everything) - len(known),
            "cut_or_blank": len(known) - left,
            "kept": len(rows),
            "sample_reward": sum(known) / len(known),
            "kept_reward": sum(row["reward"] for row in rows) / len(rows),
        }

    def _open(self, group: dict[str, Any]) -> list[float | None]:
        """Scores of the answers that may be kept; None for the others."""
        rows = zip(group["completions"], group["scores"], group["finished"], strict=True)
        return [score if text.strip() and (ended or self.config.keep_cut) else None for text, score, ended in rows]

    def tune(self, number: int, arm: str, policy: Path, data: Path) -> Path:
        """Fine-tune on the kept answers; returns the folder of the new policy."""
        config, folder = self.config, self.folder(number) / arm
        if (folder / "run.json").is_file():
            return folder / "policy"
        (folder / "config.yaml").unlink(missing_ok=True)  # names paths in this run, which may have moved since
        sft = SftConfig(
            policy=str(policy), data=(str(data),), output=str(folder), eval_fraction=0.0, keep="last",
            epochs=config.epochs, batch_size=config.batch_size, learning_rate=config.learning_rate, lora_rank=config.lora_rank,
            tokens_per_row=config.tokens_per_row, max_length=config.max_length, seed=config.seed + number,
            precision=config.precision, resume=True,
        )  # fmt: skip
        return fine_tune(sft, say=lambda line: None, watch=self.watching(f"round {number}, {arm}")).policy

    def _drawn(self, number: int, arm: str, path: Path, prompts: Sequence[Conversation]) -> Iterator[dict[str, Any]]:
        """One row per prompt: its answers and their scores."""
        config = self.config
        size = min(config.prompts_per_round or len(prompts), len(prompts))
        picked = random.Random(f"prompts {config.seed} {number}").sample(range(len(prompts)), size)
        policy = Policy.load(path, device=self.device)
        seed = random.Random(f"sampling {config.seed} {number}").getrandbits(60)
        generator = torch.Generator(policy.device).manual_seed(seed)
        with self.counting(f"round {number}, {arm}: sampling", size * config.samples) as advance:
            ids = policy.encode([prompts[i] for i in picked])
            drawn = generate(policy, ids, config.samples, config.sampling, generator, advance)
        flat: list[Conversation] = [
            (*prompts[i], {"role": "assistant", "content": sample.text})
            for i, group in zip(picked, drawn, strict=True)
            for sample in group
        ]
        scores: list[Score] = []
        with self.counting(f"round {number}, {arm}: scoring", len(flat)) as advance:
            for first in range(0, len(flat), BLOCK):
                block = flat[first : first + BLOCK]
                found = self.reward.score(block)
                require_all(found, block, "the reward")
                scores += found
                advance(len(block))
        following = iter(scores)
        for i, group in zip(picked, drawn, strict=True):
            worth = [next(following) for _ in group]
            yield {
                "prompt": [dict(message) for message in prompts[i]],
                "completions": [sample.text for sample in group],
                "scores": [float(score) if score.status == "ok" else None for score in worth],
                "finished": [sample.finished for sample in group],
            }


Scores = Sequence[Sequence[float | None]]


def choose_by_reward(
    scores: Scores, share: float | None, min_reward: float | None, rng: random.Random
) -> list[tuple[int, int]]:
    """(prompt, sample) of what is kept: the best of each prompt, or the `share` of all scored samples with the highest reward.

    Equal rewards are put in random order. What has no reward, or one below `min_reward`, is never kept.
    """
    order = {pair: rng.random() for pair in _scored(scores)}
    ranked = sorted(order, key=lambda pair: (-float(scores[pair[0]][pair[1]] or 0.0), order[pair]))
    if share is None:
        best: dict[int, tuple[int, int]] = {}
        for pair in ranked:
            best.setdefault(pair[0], pair)
        kept = list(best.values())
    else:
        kept = ranked[: max(1, round(share * len(ranked)))]
    return sorted(pair for pair in kept if min_reward is None or float(scores[pair[0]][pair[1]] or 0.0) >= min_reward)


def choose_at_random(
    scores: Scores, count: int, share: float | None, min_reward: float | None, rng: random.Random
) -> list[tuple[int, int]]:
    """`count` of the scored samples, whatever their reward: spread over prompts as `choose_by_reward` would have them.

    One of each prompt where that takes the best of each; where a minimum leaves prompts out, one of `count` random prompts.
    """
    pairs = _scored(scores)
    if share is not None:
        return sorted(rng.sample(pairs, min(count, len(pairs))))
    members: dict[int, list[tuple[int, int]]] = {}
    for pair in pairs:
        members.setdefault(pair[0], []).append(pair)
    picked = rng.sample(sorted(members), min(count, len(members)))
    return sorted(rng.choice(members[prompt]) for prompt in picked)


def _scored(scores: Scores) -> list[tuple[int, int]]:
    return [(i, k) for i, group in enumerate(scores) for k, score in enumerate(group) if score is not None]


def _prompts(
    config: RejectionConfig, policy: Policy, say: Callable[[str], None]
) -> tuple[list[Conversation], list[Conversation]]:
    """Prompts to learn from, and others to compare on; those that leave no room for an answer are left out and counted."""
    found = _that_fit(config, policy, config.prompts, say)
    if config.eval_prompts:
        return found, _that_fit(config, policy, config.eval_prompts, say)
    count = max(1, round(config.eval_fraction * len(found)))
    if len(found) - count < 1:
        raise ConfigError(f"{len(found)} usable prompts are too few to set some aside; give more, or --eval-prompts")
    chosen = set(random.Random(f"eval {config.seed}").sample(range(len(found)), count))
    return [p for i, p in enumerate(found) if i not in chosen], [p for i, p in enumerate(found) if i in chosen]


def _that_fit(
    config: RejectionConfig, policy: Policy, paths: Sequence[str], say: Callable[[str], None]
) -> list[Conversation]:
    prompts = load_prompts(paths)
    longest = config.max_length - config.max_new_tokens
    kept = [prompt for prompt, ids in zip(prompts, policy.encode(prompts), strict=True) if len(ids) <= longest]
    if len(kept) < len(prompts):
        say(
            f"{len(prompts) - len(kept)} prompts longer than --max-length less --max-new-tokens, {longest} tokens, left out"
        )
    if not kept:
        raise ConfigError(f"no prompt is left; raise --max-length above {config.max_length}")
    return kept


def _report(output: Path, rows: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    """metrics.jsonl anew, and the last row as a line."""
    _write(output / "metrics.jsonl", rows)
    row = rows[-1]
    kept = f"kept {row['kept']} of {row['samples']} ({row['kept_reward']:.4f} on average), " if row["round"] else ""
    held = "" if row["held_out"] is None else f", held-out {row['held_out']:.4f}"
    reward = "-" if row["reward"] is None else f"{row['reward']:.4f}"
    say(
        f"round {row['round']}, {row['arm']}: {kept}reward {reward}{held}, KL {row['kl']:.3f} nats, {row['words']:.1f} words"
    )


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A whole file or none."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows)
