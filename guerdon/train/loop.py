"""`fit`: reward-model training as one visible function.

    load -> audit -> split -> encode -> (each step: pack -> forward -> loss -> backward -> step) -> evaluate -> save

A step takes `batch_size` comparisons and packs their prompt trees into rows of `tokens_per_row` tokens. Each row runs
forward and backward by itself, its loss divided by the weight of the *whole* step over all devices, so the gradient is
that of one big batch however it is cut up.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from safetensors import SafetensorError
from torch import Tensor

from guerdon.data.split import prompt_key
from guerdon.evaluate.metrics import Evaluation, evaluate
from guerdon.evaluate.table import ScoreTable
from guerdon.files import rewind, write_json, write_text
from guerdon.loss import bradley_terry, centering
from guerdon.model.load import resolve as resolve_model
from guerdon.model.reward import RewardModel
from guerdon.model.tree import Row
from guerdon.options import to_yaml
from guerdon.train.average import Average
from guerdon.train.checkpoint import Checkpoints, Progress, prepare_output, require_space
from guerdon.train.config import TrainConfig
from guerdon.train.examples import EncodeReport, Example, PairTensors, digest, encode_comparisons, pair_tensors
from guerdon.train.metrics import STATISTICS, Watch, Window
from guerdon.train.plan import learning_rate, make_plan, resolve
from guerdon.train.start import load_data, make_accelerator, make_optimizer, start_model, versions
from guerdon.types import Comparison, ConfigError, Score, TrainingError

CENTER_ROWS = 100  # comparisons over which the members of an ensemble get one mean reward


@dataclass(frozen=True)
class FitResult:
    """What a run left behind: folder of the saved model, its evaluation on held-out data (or {}), steps and seconds."""

    model: Path
    evaluation: dict[str, Any]
    steps: int
    seconds: float
    is_main_process: bool = True


def fit(config: TrainConfig, *, say: Callable[[str], None] = print, watch: Watch | None = None) -> FitResult:
    """Train a reward model and leave it in `config.output/model`.

    `say` receives the lines a person should read, `watch` follows the steps. Raises ConfigError or DataError before any
    work is done; TrainingError when the output cannot be written, the disk is too small, or the loss is not finite.
    """
    config = prepare_output(config).require_paths()
    resolve_model(config.model)  # a name that cannot be one is refused before the data are read
    accelerator = make_accelerator(config)
    main = accelerator.is_main_process
    say, watch = (say, watch or Watch()) if main else (_nothing, Watch())
    output = Path(config.output)
    if (output / "run.json").is_file():
        say(f"{output}: this run is complete; nothing to do")
        record = json.loads((output / "run.json").read_text(encoding="utf-8"))
        return FitResult(output / "model", record["evaluation"], 0, 0.0, main)

    train_set, eval_set, manifest = load_data(config, say)
    core = start_model(config, accelerator.device)
    config = resolve(config, sum(p.numel() for p in core.parameters()), accelerator.device.type)
    require_space(output, core, config)
    trained = _trained(core)
    examples, encoded = encode_comparisons(
        train_set, core.encoder, margin=config.margin, ties=config.ties, group_limit=config.batch_size,
        ensemble=config.ensemble, seed=config.seed,
    )  # fmt: skip
    _report_encoding(encoded, examples, core, say)

    plan = make_plan(config, examples)
    checkpoints = Checkpoints(output, config.keep_checkpoints)
    model, optimizer = accelerator.prepare(core, make_optimizer(core, config))
    average = Average(model, config.average)
    accelerator.register_for_checkpointing(average)
    data = digest(examples, plan.order)
    progress = checkpoints.restore(accelerator, data) if config.resume else Progress(data=data)
    if main:
        write_text(output / "config.yaml", to_yaml(replace(config, resume=False)))
        rewind(output / "metrics.jsonl", progress.step)
    if config.trackers:
        accelerator.init_trackers("guerdon", {name: str(value) for name, value in asdict(config).items()})
    say(
        f"{plan.steps} steps of {config.batch_size} comparisons on {accelerator.num_processes} x {accelerator.device.type}, "
        f"{'prompt trees' if core.shares_prefix else 'length-sorted batches'}, {trained}, "
        f"learning rate {config.learning_rate:g}" + (f", resumed after step {progress.step}" if progress.step else "")
    )

    def log(row: dict[str, Any]) -> None:
        accelerator.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])
        if main:
            with (output / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")

    started, window = time.monotonic(), Window()
    watch.start(plan.steps, progress.step)
    model.train()
    for step, members in plan.remaining(progress.step):
        lr = learning_rate(config, step, plan.steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = [examples[index] for index in members]
        statistics = _accumulate(accelerator, model, core, batch, config)
        norm = float(accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm or math.inf))
        _require_finite(statistics, norm, step, batch, progress)
        optimizer.step()
        optimizer.zero_grad()
        average.update(step)

        window.add(statistics)
        last = step == plan.steps
        saves = not last and step % plan.save_every == 0
        if last or saves or step % plan.log_every == 0:
            row = {
                "step": step,
                "epoch": round(step / plan.per_epoch, 4),
                **window.flush(),
                "grad_norm": norm,
                "lr": lr,
            }
            log(row)
            watch.step(row)
        progress, paused = replace(progress, step=step), time.monotonic()
        if eval_set and (last or step % plan.eval_every == 0):
            with average.applied():
                evaluation = _evaluate(accelerator, model, core, eval_set).to_dict()
                row = {"step": step, **{f"eval_{key}": evaluation[key] for key in _EVAL_KEYS}}
                log(row)
                watch.evaluation(row)
                if evaluation["n"] == 0:
                    raise TrainingError(f"step {step}: no held-out pair could be scored ({evaluation['unscored']} failed); "
                                        "look at the evaluation data, or choose --truncation left")  # fmt: skip
                merit = evaluation["accuracy"] if config.best_by == "accuracy" else -evaluation["nll"]
                if progress.best is None or merit > progress.best:
                    progress = Progress(step, data, merit, step, evaluation)
                    _save(accelerator, model, core, config, eval_set)
        elif last and not eval_set:
            with average.applied():
                _save(accelerator, model, core, config, train_set)
        if saves:
            checkpoints.save(accelerator, progress)
        window.pause(time.monotonic() - paused)
    watch.stop()
    seconds = time.monotonic() - started
    accelerator.end_training()
    if main:
        record = {"evaluation": progress.evaluation, "best_step": progress.best_step or plan.steps, "steps": plan.steps}
        record |= {"seconds": round(seconds, 1), "data": manifest, "encoding": asdict(encoded), "versions": versions()}
        write_json(output / "run.json", record)
        checkpoints.remove()
    return FitResult(output / "model", progress.evaluation, plan.steps, seconds, main)


def _accumulate(
    accelerator: Accelerator, model: Any, core: RewardModel, batch: Sequence[Example], config: TrainConfig
) -> Tensor:
    """Accumulate the gradient of one step; returns the statistics of its rows, (row, statistic), over all devices.

    Every process computes the same packing and takes every n-th row. Where the rows do not divide evenly, the first row
    runs again with weight 0, so that all processes meet in the same number of collective operations.
    """
    rows = core.rows([example.tree for example in batch], config.tokens_per_row or 512)
    rank, world = accelerator.process_index, accelerator.num_processes
    whole = sum(example.weight for example in batch)
    collected = []
    for turn in range(-(-len(rows) // world)):
        index = turn * world + rank
        row = rows[index if index < len(rows) else 0].to(accelerator.device)
        is_last = (turn + 1) * world >= len(rows)
        with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
            loss, statistics = row_loss(model(row), row, batch, config)
            # gradients are averaged over processes, hence `world`
            accelerator.backward(loss * (world / whole if index < len(rows) else 0.0))
        collected.append(statistics if index < len(rows) else torch.zeros_like(statistics))
    return accelerator.gather(torch.stack(collected)).cpu()  # type: ignore[no-any-return]


def row_loss(rewards: Tensor, row: Row, batch: Sequence[Example], config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Summed weighted loss of the pairs of one row, and their statistics in the order of `STATISTICS`.

    The loss of an ensemble is the mean over members of their losses, each pair counted as often as the member drew its
    prompt; the statistics are those of the members' mean reward.
    """
    pairs = pair_tensors(row, batch, rewards.device)
    if rewards.dim() == 1:
        loss = (pairs.weight * pair_losses(rewards, pairs, config)).sum()
    else:
        each = torch.stack([pair_losses(member, pairs, config) for member in rewards.unbind(1)], dim=1)
        loss = (pairs.weight[:, None] * pairs.draws * each).sum() / rewards.shape[1]
        rewards = rewards.mean(1)
    chosen, rejected = rewards[pairs.chosen], rewards[pairs.rejected]
    with torch.no_grad():
        decided = (pairs.target != 0.5).float()
        gap = chosen - rejected
        correct = decided * ((gap > 0).float() + 0.5 * (gap == 0))
        sums = (loss, pairs.weight.sum(), decided.sum(), correct.sum(), (decided * gap).sum(), rewards.sum())
        sizes = rewards.new_tensor([rewards.numel(), row.tokens])
        statistics = torch.cat([torch.stack(sums), sizes, torch.stack([rewards.min(), rewards.max()])])
    assert statistics.numel() == len(STATISTICS)
    return loss, statistics


def pair_losses(rewards: Tensor, pairs: PairTensors, config: TrainConfig) -> Tensor:
    """Loss of each pair, (pair,), under the rewards (n,) of one model or member."""
    chosen, rejected = rewards[pairs.chosen], rewards[pairs.rejected]
    losses = bradley_terry(chosen, rejected, target=pairs.target, margin=pairs.margin, smoothing=config.label_smoothing)
    return losses + config.center * centering(chosen, rejected) if config.center else losses


def _require_finite(statistics: Tensor, norm: float, step: int, batch: Sequence[Example], progress: Progress) -> None:
    if math.isfinite(norm) and bool(statistics[:, 0].isfinite().all()):
        return
    rows = ", ".join(row for example in batch for row in example.rows)
    raise TrainingError(
        f"step {step}: the loss or its gradient is not finite (loss {float(statistics[:, 0].sum()):g}, gradient norm {norm:g}); "
        f"the weights were left as after step {step - 1}. The rows of this step: {rows}. Look at them, lower --learning-rate, "
        f"or set --precision fp32"
    )


_EVAL_KEYS = ("accuracy", "accuracy_low", "accuracy_high", "nll", "ece", "n")


def _evaluate(accelerator: Accelerator, model: Any, core: RewardModel, comparisons: Sequence[Comparison]) -> Evaluation:
    """Evaluate the model as it stands. Processes share the work, but for FSDP, where all must run every layer together."""
    together = accelerator.distributed_type == DistributedType.FSDP
    rank, world = (0, 1) if together else (accelerator.process_index, accelerator.num_processes)
    mine = comparisons[rank::world]
    # under DDP the bare model runs: its wrapper would wait for the other processes at every row, and they may have fewer
    forward = model if together else core
    flat = iter(core.score([c for comparison in mine for c in comparison.conversations()], forward=forward))
    scores: list[list[Score]] = [[next(flat) for _ in comparison.completions] for comparison in mine]
    order = list(range(rank, len(comparisons), world))
    found = (
        list(zip(order, scores, strict=True)) if world == 1 else gather_object(list(zip(order, scores, strict=True)))
    )
    ranked = [score for _, score in sorted(found, key=lambda item: item[0])]
    model.train()
    keys = [prompt_key(comparison) for comparison in comparisons]
    return evaluate(ScoreTable.build(comparisons, ranked, prompt_keys=keys), resamples=500)


def _save(
    accelerator: Accelerator, model: Any, core: RewardModel, config: TrainConfig, known: Sequence[Comparison]
) -> None:
    """Write model/ (and adapter/ under LoRA), scored in plain precision as everyone who loads it will.

    The members of an ensemble are centred on completions of the comparisons at hand.
    """
    output = Path(config.output)
    center_on = [c for row in known[:CENTER_ROWS] for c in row.conversations()] if config.ensemble > 1 else []
    accelerator.wait_for_everyone()
    if accelerator.distributed_type == DistributedType.FSDP:
        state = accelerator.get_state_dict(model)
        if accelerator.is_main_process:
            core = start_model(config, torch.device("cpu"))
            core.load_state_dict(state)
    if accelerator.is_main_process:
        core.new_modules = ()
        try:
            core.save(output / "model", center_on)
            if config.lora:
                core.save_adapter(output / "adapter", center_on)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{output}: the model cannot be saved ({error}); make room and go on with --resume"
            ) from error
    accelerator.wait_for_everyone()


def _report_encoding(
    report: EncodeReport, examples: Sequence[Example], core: RewardModel, say: Callable[[str], None]
) -> None:
    if not examples:
        raise ConfigError(
            f"nothing to train on: no pair is left after encoding ({report.refused} rows refused by the chat template or the "
            f"context limit, {report.identical_after_cut} pairs equal after the cut; first refusal: {report.first_refusal or '-'})"
        )
    share = 100 * report.truncated / max(1, report.conversations)
    say(
        f"encoded {report.conversations} conversations, {report.tokens} tokens; {report.truncated} ({share:.1f} %) cut to "
        f"{core.encoder.max_length} tokens ({report.tokens_cut} tokens lost), {report.identical_after_cut} pairs equal after "
        f"the cut and kept out, {report.refused} rows refused"
        + (f" ({report.first_refusal})" if report.refused else "")
    )


def _trained(core: RewardModel) -> str:
    sizes = [(p.numel(), p.requires_grad) for p in core.parameters()]
    trained, total = sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
    return f"{'all' if trained == total else f'{trained:,} of'} {total:,} weights in training"


def _nothing(_: str) -> None:
    """What processes other than the main one say."""
