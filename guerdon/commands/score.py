"""guerdon score: rewards for a file of prompts and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from guerdon.terminal import load_scorer
from guerdon.types import ConfigError, Conversation, Score, Scorer

if TYPE_CHECKING:
    from guerdon.client import Client


def score(
    data: str,
    output: str,
    model: str = "",
    server: str = "",
    batch: int = 256,
    device: str | None = None,
    reward: str = "",
    overwrite: bool = False,
) -> None:
    """Score a file of prompts with one or N answers each: one output row per input row, in order, resumable.

    Args:
        data: Rows with `prompt` and `completion` or `completions`, or `messages`, or `chosen` and `rejected`.
        model: Folder or hub id of a reward model; several, separated by commas, score as an ensemble. With --server: which of
            the served models, the first one by default.
        server: Address of a reward server (guerdon serve) that scores instead; its key is read from GUERDON_TOKEN.
        output: File to write (.jsonl or .parquet); each row has `scores`, `status`, `tokens`, `truncated`, from an ensemble also
            `members`.
        batch: Conversations scored at once; no effect on the scores.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        reward: What leaves an ensemble: mean, min, mean-std:K, mean-var:K or quantile:Q; by default the mean, or what the
            server says.
        overwrite: Replace an output that is already there.
    """
    from guerdon.data.rows import stream_conversations
    from guerdon.evaluate.score_file import input_identity, score_file

    if bool(model) + bool(server) == 0:
        raise ConfigError("say what scores: --model DIR, or --server URL")
    if server and device:
        raise ConfigError("--device has no meaning with --server: the server has its own")
    if Path(output).exists() and not overwrite:
        raise ConfigError(f"{output} exists; remove it, choose another name, or overwrite it (--overwrite)")
    identity = input_identity(data)
    rows = stream_conversations(data)
    with _scorer(model, server, device, reward, batch) as scorer:
        summary = score_file(scorer, rows, output, source=identity, batch=batch, overwrite=overwrite)
    statuses = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
    print(
        f"{summary.output}: {summary.rows} rows ({statuses or 'none'}), {summary.completions} scores, "
        f"{summary.truncated} cut to the context, {summary.resumed} from an earlier run, {summary.rows_per_second:.1f} rows/s"
    )


@contextmanager
def _scorer(model: str, server: str, device: str | None, reward: str, batch: int) -> Iterator[Scorer]:
    """What scores: a model here, or one on a server, held to the contract that it has now."""
    if not server:
        yield load_scorer(model, device, reward or "mean")
        return
    from guerdon.client import Client

    client = Client(server, on_failure="wait", model=model or None, reward=reward or None, timeout=600.0)
    contract = client.info()["contract"]
    with Server(replace(client, contract=contract, batch=max(1, min(64, batch // 8)))) as scorer:
        yield scorer


class Server:
    """A client that keeps several requests under way, so that the server has something to batch."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.fingerprint = f"{client.fingerprint}{f' {client.reward}' if client.reward else ''}"
        self._runner = asyncio.Runner()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
        self.client.close()

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return self._runner.run(self.client.ascore(conversations))
