"""Best-of-n over a file of prompts: sample or take n candidates, score them, keep one; streaming, and resumed when cut short.

In: rows with `prompt` (and a policy to sample from), or with `completions`. Out: one JSON row per input row, in order. While
it runs, rows lie in `OUT.partial` beside `OUT.partial.json`, which names everything that decides them.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from guerdon.data.containers import Row, stream
from guerdon.data.messages import Unusable
from guerdon.data.rows import conversations_of, prompt_of
from guerdon.evaluate.score_file import input_identity
from guerdon.files import write_json
from guerdon.optimize.best_of_n_summary import Summary, summarise
from guerdon.optimize.generate import Sample, Sampling, generate
from guerdon.optimize.pick import Pick, Picking
from guerdon.optimize.policy import Policy
from guerdon.optimize.rewards import require_all
from guerdon.types import ConfigError, Conversation, DataError, Score, Scorer


@dataclass(frozen=True)
class BestOfN:
    """What to do with each row.

    n           candidates sampled from the policy; given candidates are taken as they are
    sampling    how they are sampled
    picking     how one of them is chosen
    max_prompt  longest prompt, tokens; a longer one gets status `error`
    keep_all    write the texts of all candidates
    block       candidates that are sampled and scored together; rows, where they bring their candidates
    seed        of the sampling
    """

    n: int = 16
    sampling: Sampling = field(default_factory=Sampling)
    picking: Picking = field(default_factory=Picking)
    max_prompt: int = 1024
    keep_all: bool = False
    block: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.block < 1:
            raise ConfigError("--n and --batch must be at least 1")


@dataclass(frozen=True)
class Task:
    """One input row: its prompt, and the candidates as conversations with their texts. `problem` says why there are none."""

    index: int
    raw: dict[str, Any]
    prompt: Conversation = ()
    conversations: tuple[Conversation, ...] = ()
    samples: tuple[Sample, ...] = ()
    problem: str = ""

    @property
    def texts(self) -> list[str]:
        return [conversation[-1]["content"] for conversation in self.conversations]


def best_of_n(
    data: Sequence[str],
    output: Path | str,
    reward: Scorer | None,
    *,
    plan: BestOfN,
    policy: Policy | None = None,
    held_out: Scorer | None = None,
    names: dict[str, Any] | None = None,
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Summary:
    """Write one row per input row to `output` (`.jsonl`), continuing a run that was cut short, and sum them up.

    Without a policy the rows bring their candidates. `names` say what policy and rewards are, for the resume check. `advance` is
    told how many rows are done. Raises ConfigError when the output exists, when the partial file belongs to other data or
    options, and without a reward (majority voting alone needs none).
    """
    if reward is None and plan.picking.mode != "majority":
        raise ConfigError("--reward is missing; only --mode majority does without")
    if policy is None and plan.picking.logprob_weight:
        raise ConfigError("--logprob-weight needs --policy: log-probabilities of given candidates are not known")
    output = Path(output)
    per_block = plan.block if policy is None else max(1, plan.block // plan.n)
    header = {"data": [input_identity(path) for path in data], "plan": asdict(plan), **(names or {})}
    partial, resumed = _prepare(output, header, per_block, overwrite)
    advance(resumed)
    started = time.perf_counter()
    rows = islice(_rows(data), resumed, None)
    with partial.open("ab") as file:
        while tasks := [_task(index, row, policy, plan) for index, row in islice(rows, per_block)]:
            if policy is not None:
                tasks = _sampled(policy, tasks, plan)
            records = _records(tasks, reward, held_out, plan)
            file.write(b"".join(json.dumps(record, allow_nan=False).encode() + b"\n" for record in records))
            file.flush()
            advance(len(records))
        os.fsync(file.fileno())
    os.replace(partial, output)
    _sidecar(partial).unlink(missing_ok=True)
    return replace(summarise(output), resumed=resumed, seconds=time.perf_counter() - started)


def _rows(paths: Sequence[str]) -> Iterator[tuple[int, Row]]:
    index = 0
    for path in paths:
        for row in stream(path):
            yield index, row
            index += 1


def _task(index: int, row: Row, policy: Policy | None, plan: BestOfN) -> Task:
    """A row's prompt, and without a policy its candidates. What cannot be read is said, and does not stop the others."""
    try:
        if policy is not None:
            prompt = prompt_of(row)
            length = len(policy.encode([prompt])[0])
            if length > plan.max_prompt:
                raise DataError(f"the prompt has {length} tokens, more than --max-length {plan.max_prompt}")
            return Task(index, row.data, prompt)
        conversations = conversations_of(row)
    except (DataError, Unusable) as error:
        return Task(index, row.data, problem=str(error))
    return Task(index, row.data, conversations[0][:-1], tuple(conversations))


def _sampled(policy: Policy, tasks: Sequence[Task], plan: BestOfN) -> list[Task]:
    """The tasks with candidates of the policy. What is drawn depends on the seed and the first row of the block."""
    open_tasks = [task for task in tasks if not task.problem]
    number = random.Random(f"best of n {plan.seed} {tasks[0].index}").getrandbits(60)
    generator = torch.Generator(policy.device).manual_seed(number)
    ids = policy.encode([task.prompt for task in open_tasks])
    drawn = dict(
        zip((t.index for t in open_tasks), generate(policy, ids, plan.n, plan.sampling, generator), strict=True)
    )
    return [
        replace(
            task,
            samples=tuple(drawn[task.index]),
            conversations=tuple((*task.prompt, {"role": "assistant", "content": s.text}) for s in drawn[task.index]),
        )
        if task.index in drawn
        else task
        for task in tasks
    ]


def _records(
    tasks: Sequence[Task], reward: Scorer | None, held_out: Scorer | None, plan: BestOfN
) -> list[dict[str, Any]]:
    """Score the candidates of all tasks at once, then choose in each."""
    scores = _scored(reward, tasks, "the reward")
    checks = _scored(held_out, tasks, "the held-out reward")
    records = []
    for place, task in enumerate(tasks):
        found = scores[place] if scores else [Score(0, "masked", reason="no reward was asked for")] * len(task.texts)
        nats = [math.fsum(sample.logprobs) for sample in task.samples] or None
        values = plan.picking.values(task.texts, [float(score) for score in found], nats)
        pick = plan.picking.pick(task.texts, values)
        records.append(_record(task, found, pick, checks[place] if checks else None, nats, plan))
    return records


def _scored(scorer: Scorer | None, tasks: Sequence[Task], what: str) -> list[list[Score]] | None:
    """Scores of each task's candidates; None without a scorer."""
    if scorer is None:
        return None
    flat = [conversation for task in tasks for conversation in task.conversations]
    found = scorer.score(flat) if flat else []
    require_all(found, flat, what)
    following = iter(found)
    return [list(islice(following, len(task.conversations))) for task in tasks]


def _record(
    task: Task,
    scores: Sequence[Score],
    pick: Pick,
    checks: Sequence[Score] | None,
    nats: list[float] | None,
    plan: BestOfN,
) -> dict[str, Any]:
    """The output row; what is not known is null."""
    record: dict[str, Any] = {"index": task.index}
    if task.raw.get("id") is not None:
        record["id"] = task.raw["id"]
    record["prompt"] = [dict(message) for message in task.prompt]
    record["completion"] = None if pick.index is None else task.texts[pick.index]
    record["status"] = "error" if task.problem else "ok" if pick.index is not None else "masked"
    if record["status"] != "ok":
        why = next(
            (score.reason for score in scores if score.status != "ok" and score.reason), "no candidate gives an answer"
        )
        record["reason"] = task.problem or why
    record |= {"pick": pick.index, "picked_score": None if pick.index is None else _known(scores[pick.index])}
    record |= {"value": _known(pick.value), "margin": _known(pick.margin)}
    record |= {"n": len(task.conversations), "scored": sum(score.status == "ok" for score in scores)}
    record["scores"] = [_known(score) for score in scores]
    if checks is not None:
        record["held_out"] = [_known(check) for check in checks]
    if plan.picking.mode != "best":
        record["votes"] = [asdict(vote) for vote in pick.votes]
    if nats is not None:
        record |= {"logprobs": nats, "finished": [sample.finished for sample in task.samples]}
    if plan.keep_all:
        record["completions"] = task.texts
    return record


def _prepare(output: Path, header: dict[str, Any], per_block: int, overwrite: bool) -> tuple[Path, int]:
    """The partial file, cut to whole blocks, and how many rows it holds. Blocks are drawn together, so they are kept together."""
    if output.suffix != ".jsonl":
        raise ConfigError(f"{output}: picks are written as .jsonl; choose this ending")
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists; remove it, choose another name, or overwrite it (--overwrite)")
    partial = output.with_name(output.name + ".partial")
    plain = json.loads(json.dumps(header))
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        lines = partial.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise ConfigError(f"{output}: cannot write there ({error}); choose a folder that can be written") from error
    if lines and _read(_sidecar(partial)) != plain:
        if not overwrite:
            raise ConfigError(
                f"{partial} holds picks from other data or options; remove it, or start again with --overwrite"
            )
        lines = []
    done = len(lines) // per_block * per_block
    with partial.open("r+b") as file:
        file.truncate(sum(len(line) + 1 for line in lines[:done]))
    write_json(_sidecar(partial), plain)
    return partial, done


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _sidecar(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
