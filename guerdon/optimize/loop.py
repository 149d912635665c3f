"""`optimize`: reinforcement learning against a frozen reward, as one visible loop.

    prompts -> (each step: rollout -> score -> advantages -> update -> monitor) -> policy

Every process answers its own share of the prompts. What a step does depends on the config, its number and the weights
alone, so a run that is killed and resumed is the run that was not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object

from guerdon.data.read import load
from guerdon.data.rows import load_prompts
from guerdon.diagnose.monitor import Monitor, Settings, Verdict
from guerdon.diagnose.novelty import Novelty
from guerdon.files import write_json, write_text
from guerdon.model.tree import Ids
from guerdon.optimize.config import OptimizeConfig, learning_rate, resolve
from guerdon.optimize.course import Course
from guerdon.optimize.generate import generate, room_for_prompt
from guerdon.optimize.kl import Controller
from guerdon.optimize.policy import Policy
from guerdon.optimize.rewards import centred
from guerdon.optimize.rollout import Rollout, shaped_rewards
from guerdon.optimize.run_folder import RunFolder, prepare_output
from guerdon.optimize.step_record import StepRecord, merge, metrics_row, sample_rows
from guerdon.optimize.update import Learner, make_targets, update
from guerdon.optimize.value import ValueModel, from_policy, from_reward
from guerdon.optimize.watch import Watch as Watch
from guerdon.options import to_yaml
from guerdon.types import ConfigError, Conversation, Score, Scorer, TrainingError

DRIFT_ROWS = 512  # training conversations that drift is measured against
BLIND_STEPS = 3  # steps in a row without a single reward that end a run


@dataclass(frozen=True)
class OptimizeResult:
    """What a run left behind: folder of the policy, the last verdict, steps taken, the step of the saved policy, seconds."""

    policy: Path
    verdict: Verdict | None
    steps: int
    saved_step: int
    seconds: float
    is_main_process: bool = True


def optimize(
    config: OptimizeConfig,
    reward: Scorer,
    held_out: Scorer | None = None,
    *,
    say: Callable[[str], None] = print,
    watch: Watch | None = None,
) -> OptimizeResult:
    """Optimise a policy against `reward`, watched by `held_out`, and leave it in `config.output/policy`.

    Raises ConfigError or DataError before any work is done; TrainingError when loss or gradient are not finite, or when
    no completion can be scored any more.
    """
    config = prepare_output(config).require_paths()
    output = Path(config.output)
    accelerator = _accelerator(config)
    main = accelerator.is_main_process
    say, watch = (say, watch or Watch()) if main else (lambda _: None, Watch())
    if (output / "run.json").is_file():
        say(f"{output}: this run is complete; nothing to do")
        return _complete(output)
    started = time.monotonic()
    policy = Policy.load(config.policy, device=accelerator.device, lora_rank=config.lora_rank, seed=config.seed)
    config = resolve(config, sum(p.numel() for p in policy.parameters()), accelerator.device.type)
    prompts, ids = _prompts(config, policy, say)
    reference = policy.reference()
    value = _value_model(config, policy, reward) if config.algorithm == "ppo" else None
    drift = _drift(config, reward)
    trained = [
        p for module in (policy.net, value) if module is not None for p in module.parameters() if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate or 0.0, weight_decay=0.0, fused=True)
    learner, optimizer = accelerator.prepare(Learner(policy, value), optimizer)
    course = Course(policy) if held_out is not None and config.held_out_budget else None
    if course:
        accelerator.register_for_checkpointing(course)
    folder = RunFolder(output, accelerator)
    record = (folder.restore() if config.resume else None) or _start(config, policy, prompts, ids, reward, accelerator)
    if record["prompts"] != _digest(ids):
        raise ConfigError(f"{output}: the prompts are not those the run was started on; resume on the same files")
    monitor = Monitor.restore(record["monitor"])
    controller = Controller(record["beta"], config.kl_target, config.kl_gain)
    step, blind, wanted, verdict = int(record["step"]), int(record["blind"]), int(record["wanted"]), None
    if main:
        write_text(output / "config.yaml", to_yaml(replace(config, resume=False)))
        if not step:
            folder.snapshot(policy, 0, None)
    if config.trackers:
        accelerator.init_trackers("guerdon", {name: str(value) for name, value in asdict(config).items()})
    say(
        f"{config.algorithm}: {config.steps} steps of {config.prompts_per_step} prompts x {config.samples_per_prompt} samples "
        f"on {accelerator.num_processes} x {accelerator.device.type}, "
        f"{'prompt trees' if policy.shares_prefix else 'padded batches'}, learning rate {config.learning_rate:g}, "
        f"beta {controller.beta:g} per nat in the {config.kl_in}" + (f", resumed after step {step}" if step else "")
    )

    watch.start(config.steps, step)
    ended = False
    try:
        while step < config.steps and not ended:
            step += 1
            clock = [time.monotonic()]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            mine = _picked(config, step, len(prompts))[accelerator.process_index :: accelerator.num_processes]
            generator = torch.Generator(accelerator.device).manual_seed(_seed(config, step, accelerator.process_index))
            with accelerator.autocast():
                drawn = generate(policy, [ids[i] for i in mine], config.samples_per_prompt, config.sampling, generator)
            rollout = Rollout.build([prompts[i] for i in mine], drawn)
            clock.append(time.monotonic())

            scores, distance = _score(reward, rollout, drift)
            checks = _check(config, held_out, rollout, step, wanted // accelerator.num_processes)
            rewards = shaped_rewards(scores, rollout, config, record["shift"], record["scale"])
            _require_rewards(config, scores, step)
            clock.append(time.monotonic())

            with accelerator.autocast():
                groups, budget = rollout.groups(), config.tokens_per_row or 512
                if accelerator.mixed_precision != "no":  # what sampling computed is not what training computes
                    rollout = replace(
                        rollout, behaviour=rollout.gather(policy.logprobs(groups, budget, config.temperature))
                    )
                base = rollout.gather(reference.logprobs(groups, budget, config.temperature))
                late = _late(course, rollout, budget, config.temperature) if checks and course else None
                values = rollout.gather(_values(value, policy, rollout, budget)) if value is not None else None
            total = _totals(accelerator)
            targets = make_targets(rollout, rewards, base, values, controller.beta, config, total)
            scored = int(total(targets.used.sum()[None].float())[0])
            blind = 0 if scored else blind + 1
            found = (
                update(accelerator, learner, optimizer, rollout, targets, controller.beta, step, config)
                if scored
                else {}
            )
            if course:
                course.follow()
            clock.append(time.monotonic())

            part = StepRecord.of(rollout, scores, rewards, base, late, checks, distance)
            whole = merge(gather_object([part]) if accelerator.num_processes > 1 else [part])
            verdict = monitor.observe(whole.observation(step))
            wanted = verdict.wanted
            row = metrics_row(step, config, whole, found, verdict, controller.beta, learning_rate(config, step), clock)
            folder.append("metrics.jsonl", [row])
            folder.append("held_out.jsonl", whole.held_out_rows(step))
            if step % config.sample_every == 0 or step == config.steps:
                folder.append("samples.jsonl", sample_rows(step, whole))
            accelerator.log({k: v for k, v in row.items() if isinstance(v, int | float)}, step=step)
            watch.step(row)
            if blind >= BLIND_STEPS:
                raise TrainingError(f"step {step}: no completion could be scored in {blind} steps ({whole.first_reason()}); see to "
                                    "the reward, then go on from the last checkpoint with --resume")  # fmt: skip
            controller = replace(controller, beta=controller.update(row["kl"]))
            ended = verdict.status == "stop" and config.on_overopt != "warn"
            if step % (config.save_every or 1) == 0 and step < config.steps and not ended:
                folder.snapshot(policy, step, verdict.best_step)
                state = {"beta": controller.beta, "blind": blind, "wanted": wanted, "monitor": monitor.state()}
                folder.save(step, record | state)
    finally:
        watch.stop()
    return _finish(config, folder, policy, monitor, verdict, step, time.monotonic() - started, say)


def _start(
    config: OptimizeConfig,
    policy: Policy,
    prompts: Sequence[Conversation],
    ids: Sequence[Ids],
    reward: Scorer,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """The record of a run that begins: nothing done, the reward centred on the reference's samples where asked."""
    shift, scale = 0.0, 1.0
    if config.center:
        picked = random.Random(f"center {config.seed}").choices(range(len(prompts)), k=config.center)
        generator = torch.Generator(accelerator.device).manual_seed(_seed(config, 0, 0))
        drawn = generate(policy, [ids[i] for i in picked], 1, config.sampling, generator)
        moved = centred(reward, Rollout.build([prompts[i] for i in picked], drawn).conversations())
        shift, scale = moved.shift, moved.scale
    state = Monitor(Settings(steps=config.steps, budget=config.held_out_budget)).state()
    counts = {"step": 0, "blind": 0, "wanted": config.held_out_budget, "prompts": _digest(ids)}
    return {**counts, "beta": config.beta, "shift": shift, "scale": scale, "monitor": state}


def _finish(
    config: OptimizeConfig,
    folder: RunFolder,
    policy: Policy,
    monitor: Monitor,
    verdict: Verdict | None,
    step: int,
    seconds: float,
    say: Callable[[str], None],
) -> OptimizeResult:
    """Roll back where that was asked for, save the policy, say what came of it."""
    accelerator, output, saved = folder.accelerator, folder.output, step
    if verdict and verdict.status != "ok":
        say(f"monitor: {verdict.status} since step {verdict.stopped_at or verdict.warned_at}: {verdict.reason}")
    if accelerator.is_main_process:
        if config.on_overopt == "rollback" and verdict and verdict.status == "stop" and verdict.best_step is not None:
            saved = folder.nearest(verdict.best_step)
            folder.roll_back(policy, saved)
            say(f"rolled back to the policy after step {saved}; held-out was highest about step {verdict.best_step}")
        try:
            policy.save(output / "policy")
        except OSError as error:
            raise TrainingError(
                f"{output}: the policy cannot be saved ({error}); make room and go on with --resume"
            ) from error
        found = verdict.to_dict() if verdict else {}
        write_json(output / "monitor.json", {"verdict": found, "state": monitor.state()})
        write_json(
            output / "run.json", {"steps": step, "saved_step": saved, "seconds": round(seconds, 1), "verdict": found}
        )
        folder.finish()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return OptimizeResult(output / "policy", verdict, step, saved, seconds, accelerator.is_main_process)


def _complete(output: Path) -> OptimizeResult:
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    return OptimizeResult(output / "policy", None, record["steps"], record["saved_step"], 0.0)


def _accelerator(config: OptimizeConfig) -> Accelerator:
    """Accelerate with the run's precision. Raises ConfigError for FSDP, under which a policy cannot generate."""
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)  # that tied weights are saved once is no news
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    bf16 = config.precision == "bf16" or (config.precision == "auto" and has_bf16)
    try:
        accelerator = Accelerator(
            mixed_precision="bf16" if bf16 else "no", log_with=list(config.trackers) or None, project_dir=config.output
        )
    except ValueError as error:
        raise ConfigError(f"--trackers {' '.join(config.trackers)}: {error}") from error
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ConfigError(
            "a policy that is sharded cannot generate here; use DDP or --lora-rank, or an adapter (docs/adapters.md)"
        )
    if config.prompts_per_step % accelerator.num_processes:
        raise ConfigError(
            f"--prompts-per-step {config.prompts_per_step} does not divide over {accelerator.num_processes} devices"
        )
    return accelerator


def _prompts(
    config: OptimizeConfig, policy: Policy, say: Callable[[str], None]
) -> tuple[list[Conversation], list[Ids]]:
    """Prompts that fit, their longest answer included, and their ids. What is left out is counted and said."""
    prompts, room = load_prompts(config.prompts), room_for_prompt(policy, config.sampling)
    ids = policy.encode(prompts)
    is_tight = room is not None and room < config.max_length
    longest = room if is_tight and room is not None else config.max_length
    why = f" (the policy's context of {policy.context} less --max-new-tokens)" if is_tight else ""
    kept = [i for i, row in enumerate(ids) if len(row) <= longest]
    say(
        f"{len(kept)} prompts"
        + (f", {len(ids) - len(kept)} longer than {longest} tokens{why} left out" if len(kept) < len(ids) else "")
    )
    if len(kept) < config.prompts_per_step:
        raise ConfigError(
            f"{len(kept)} usable prompts are fewer than --prompts-per-step {config.prompts_per_step}; give more prompts"
        )
    return [prompts[i] for i in kept], [ids[i] for i in kept]


def _digest(ids: Sequence[Ids]) -> str:
    """What tells one list of prompts from another."""
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def _value_model(config: OptimizeConfig, policy: Policy, reward: Scorer) -> ValueModel:
    return (
        from_policy(policy)
        if config.value_from == "policy"
        else from_reward(_reward_model(reward, "--value-from reward"), policy)
    )


def _drift(config: OptimizeConfig, reward: Scorer) -> tuple[Any, Novelty] | None:
    """The reward model whose features drift is read in, and what its training answers look like there."""
    if not config.drift_data:
        return None
    model = _reward_model(reward, "--drift-data")
    rows = load(config.drift_data).comparisons
    picked = random.Random("drift").sample(rows, min(len(rows), DRIFT_ROWS // 2))
    return model, Novelty.fit(model.features([c for row in picked for c in row.conversations()[:2]]))


def _reward_model(reward: Scorer, flag: str) -> Any:
    """The one local reward model in a reward. Raises ConfigError when there is none, or several."""
    found = [s for s in (reward, *getattr(reward, "scorers", {}).values()) if hasattr(s, "score_with_features")]
    if len(found) != 1:
        raise ConfigError(f"{flag} needs one local reward model in --reward, found {len(found)}")
    return found[0]


def _score(reward: Scorer, rollout: Rollout, drift: tuple[Any, Novelty] | None) -> tuple[list[Score], float]:
    """Scores of all samples, and how far they lie from the reward model's training answers (NaN where not asked)."""
    conversations = rollout.conversations()
    scores = list(reward.score(conversations))
    if len(scores) != len(conversations):
        raise TrainingError(f"the reward returned {len(scores)} scores for {len(conversations)} completions")
    return scores, drift[1].distance(drift[0].features(conversations[:64])) if drift else math.nan


def _check(
    config: OptimizeConfig, held_out: Scorer | None, rollout: Rollout, step: int, wanted: int
) -> dict[int, float]:
    """Held-out scores of `wanted` samples of the rollout, or of all, picked at random: sample -> score."""
    if held_out is None or not config.held_out_budget:
        return {}
    count = min(wanted, len(rollout.samples))
    picked = sorted(random.Random(f"held out {config.seed} {step}").sample(range(len(rollout.samples)), count))
    conversations = rollout.conversations()
    found = held_out.score([conversations[i] for i in picked])
    return {i: float(score) for i, score in zip(picked, found, strict=True) if score.status == "ok"}


def _require_rewards(config: OptimizeConfig, scores: Sequence[Score], step: int) -> None:
    if config.reward_failures == "stop":
        failed = [score for score in scores if score.status != "ok"]
        if failed:
            raise TrainingError(
                f"step {step}: {len(failed)} of {len(scores)} completions have no reward ({failed[0].reason}); "
                "see to the reward, then go on with --resume, or choose --reward-failures mask"
            )


@torch.no_grad()
def _values(value: ValueModel, policy: Policy, rollout: Rollout, budget: int) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for row in policy.rows(rollout.groups(), budget):
        values = value(row.to(policy.device)).float().cpu()
        samples, counts = torch.unique_consecutive(row.sample, return_counts=True)
        found.update(zip(samples.tolist(), values.split(counts.tolist()), strict=True))
    return found


def _late(course: Course, rollout: Rollout, budget: int, temperature: float) -> torch.Tensor:
    """Log-probabilities (n, T) of a rollout under the mean of the policy's late weights."""
    with course.taken() as policy:
        return rollout.gather(policy.logprobs(rollout.groups(), budget, temperature))


def _totals(accelerator: Accelerator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Sums over processes."""
    if accelerator.num_processes == 1:
        return lambda sums: sums
    return lambda sums: accelerator.reduce(sums.float().to(accelerator.device), "sum").cpu()


def _picked(config: OptimizeConfig, step: int, count: int) -> list[int]:
    """The prompts of a step: every prompt once in random order, then again in another."""
    first = (step - 1) * config.prompts_per_step
    picked = []
    for position in range(first, first + config.prompts_per_step):
        epoch, place = divmod(position, count)
        picked.append(_order(config.seed, epoch, count)[place])
    return picked


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    return random.Random(f"prompts {seed} {epoch}").sample(range(count), count)


def _seed(config: OptimizeConfig, step: int, rank: int) -> int:
    return random.Random(f"sampling {config.seed} {step} {rank}").getrandbits(60)
