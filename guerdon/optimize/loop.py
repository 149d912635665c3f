"""`optimize`: reinforcement learning against a frozen reward, as one visible loop.

    prompts -> (each step: rollout -> score -> advantages -> update -> monitor) -> policy

Every process answers its own share of the prompts. What a step does depends on the config, its number and the weights
alone, so a run that is killed and resumed is the run that was not.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object

from guerdon.diagnose.monitor import Monitor, Settings, Verdict
from guerdon.files import write_json, write_text
from guerdon.model.tree import Ids
from guerdon.optimize.config import OptimizeConfig, learning_rate, resolve
from guerdon.optimize.course import Course
from guerdon.optimize.generate import generate
from guerdon.optimize.kl import Controller
from guerdon.optimize.policy import Policy
from guerdon.optimize.prompts import digest, picked_prompts, usable_prompts
from guerdon.optimize.rewards import centred
from guerdon.optimize.rollout import Rollout, shaped_rewards
from guerdon.optimize.run_folder import RunFolder, prepare_output
from guerdon.optimize.scoring import (
    HeldOut,
    fit_drift,
    require_rewards,
    reward_model,
    score,
    shared_errors,
    weight_of_model,
)
from guerdon.optimize.step_record import StepRecord, merge, metrics_row, sample_rows
from guerdon.optimize.update import Learner, make_targets, update
from guerdon.optimize.value import ValueModel, from_policy, from_reward
from guerdon.optimize.watch import Watch as Watch
from guerdon.options import to_yaml
from guerdon.types import ConfigError, Conversation, Scorer, TrainingError

BLIND_STEPS = 3  # steps in a row without a single reward, or held-out score that is needed, that end a run


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
    if config.held_out and set(config.held_out) == set(config.reward):
        say("warning: --held-out is the same as --reward, so it goes up whether or not the answers get better")
    prompts, ids = usable_prompts(config, policy, say)
    reference = policy.reference()
    value = _value_model(config, policy, reward) if config.algorithm == "ppo" else None
    drift, watched = fit_drift(config, reward), HeldOut(held_out, config, say)
    trained = [
        p for module in (policy.net, value) if module is not None for p in module.parameters() if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate or 0.0, weight_decay=0.0, fused=True)
    learner, optimizer = accelerator.prepare(Learner(policy, value), optimizer)
    course = Course(policy) if watched.scorer is not None else None
    if course:
        accelerator.register_for_checkpointing(course)
    folder = RunFolder(output, accelerator)
    record = (folder.restore() if config.resume else None) or _start(config, policy, prompts, ids, reward, accelerator)
    if record["prompts"] != digest(ids):
        raise ConfigError(f"{output}: the prompts are not those the run was started on; resume on the same files")
    monitor = Monitor.restore(record["monitor"])
    controller = Controller(record["beta"], config.kl_target, config.kl_gain)
    step, blind, wanted, verdict = int(record["step"]), int(record["blind"]), int(record["wanted"]), None
    if not step and value is not None and config.value_from == "reward":
        value.rescale(weight_of_model(reward), record["shift"], record["scale"])
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
            mine = picked_prompts(config, step, len(prompts))[accelerator.process_index :: accelerator.num_processes]
            generator = torch.Generator(accelerator.device).manual_seed(_seed(config, step, accelerator.process_index))
            with accelerator.autocast():
                drawn = generate(policy, [ids[i] for i in mine], config.samples_per_prompt, config.sampling, generator)
            rollout = Rollout.build([prompts[i] for i in mine], drawn)
            clock.append(time.monotonic())

            with shared_errors(accelerator):
                scores, distance = score(reward, rollout, drift)
                require_rewards(config, scores, step)
            checks = watched.check(rollout, step, -(-wanted // accelerator.num_processes))
            rewards = shaped_rewards(scores, rollout, config, record["shift"], record["scale"])
            clock.append(time.monotonic())

            with accelerator.autocast():
                groups, budget = rollout.groups(), config.tokens_per_row or 512
                if accelerator.mixed_precision != "no":  # what sampling computed is not what training computes
                    rollout = replace(
                        rollout, behaviour=rollout.gather(policy.logprobs(groups, budget, config.temperature))
                    )
                base = rollout.gather(reference.logprobs(groups, budget, config.temperature))
                late = _late(course, rollout, checks, budget, config.temperature) if checks and course else None
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
            verdict = monitor.observe(whole.observation(step, found.get("entropy")))
            wanted = verdict.wanted
            row = metrics_row(step, config, whole, found, verdict, controller.beta, learning_rate(config, step), clock)
            folder.append("metrics.jsonl", [row])
            folder.append("held_out.jsonl", whole.held_out_rows(step))
            if step % config.sample_every == 0 or step == config.steps:
                folder.append("samples.jsonl", sample_rows(step, whole))
            accelerator.log({k: v for k, v in row.items() if isinstance(v, int | float)}, step=step)
            watch.step(row)
            _require_sight(config, step, blind, verdict, whole)
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
        with shared_errors(accelerator):
            moved = centred(reward, Rollout.build([prompts[i] for i in picked], drawn).conversations())
        shift, scale = moved.shift, moved.scale
    state = Monitor(Settings(steps=config.steps, budget=config.held_out_budget)).state()
    counts = {"step": 0, "blind": 0, "wanted": config.held_out_budget, "prompts": digest(ids)}
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


def _value_model(config: OptimizeConfig, policy: Policy, reward: Scorer) -> ValueModel:
    return (
        from_policy(policy)
        if config.value_from == "policy"
        else from_reward(reward_model(reward, "--value-from reward"), policy)
    )


def _require_sight(config: OptimizeConfig, step: int, blind: int, verdict: Verdict, record: StepRecord) -> None:
    """Raise TrainingError after `BLIND_STEPS` steps without a reward, or without the held-out scores `--on-overopt` rests on."""
    go_on = "then go on from the last checkpoint with --resume"
    if blind >= BLIND_STEPS:
        why = record.first_reason()
        raise TrainingError(
            f"step {step}: no completion could be scored in {blind} steps ({why}); see to the reward, {go_on}"
        )
    if config.on_overopt != "warn" and verdict.status != "stop" and verdict.silent >= BLIND_STEPS:
        raise TrainingError(
            f"step {step}: no held-out score came in {verdict.silent} steps, so --on-overopt {config.on_overopt} sees nothing; "
            f"see to the held-out reward, {go_on}"
        )


@torch.no_grad()
def _values(value: ValueModel, policy: Policy, rollout: Rollout, budget: int) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for row in policy.rows(rollout.groups(), budget):
        values = value(row.to(policy.device)).float().cpu()
        samples, counts = torch.unique_consecutive(row.sample, return_counts=True)
        found.update(zip(samples.tolist(), values.split(counts.tolist()), strict=True))
    return found


def _late(
    course: Course, rollout: Rollout, checks: Mapping[int, float], budget: int, temperature: float
) -> torch.Tensor:
    """Log-probabilities (n, T) under the mean of the policy's late weights, of the samples in `checks`; 0 of the others."""
    chosen = torch.tensor([i in checks for i in range(len(rollout.samples))])
    with course.taken() as policy:
        return rollout.gather(policy.logprobs(rollout.groups(chosen), budget, temperature))


def _totals(accelerator: Accelerator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Sums over processes."""
    if accelerator.num_processes == 1:
        return lambda sums: sums
    return lambda sums: accelerator.reduce(sums.float().to(accelerator.device), "sum").cpu()


def _seed(config: OptimizeConfig, step: int, rank: int) -> int:
    return random.Random(f"sampling {config.seed} {step} {rank}").getrandbits(60)
