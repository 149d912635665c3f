"""What all adapters share: the reward that was named, conversations out of a trainer's texts, one queue in front of a scorer.

Trainers ask for one completion at a time from many threads or tasks at once; `Queue` puts these into batches and lets only
one thread near the model.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from guerdon.model.ensemble import Ensemble
from guerdon.model.reward import RewardModel
from guerdon.optimize.reward_option import parse_rewards
from guerdon.optimize.rewards import Masked, require_all
from guerdon.types import ConfigError, Conversation, Message, Score, Scorer

Rewards = Scorer | str | Sequence[str]


def scorer_of(reward: Rewards, *, masked: Masked = "mask", rule: str = "mean", device: str | None = None) -> Scorer:
    """A scorer as it is; otherwise what one or several parts spell, as behind `--reward` (see `reward_option`).

    rule    what leaves an ensemble
    device  of reward models that are loaded here

    Raises ConfigError for a part that cannot be used and a reward model whose head was never trained.
    """
    if not isinstance(reward, str | Sequence):
        return reward

    def load(path: str) -> Scorer:
        names = [name for name in path.split(",") if name]
        models = [RewardModel.load(name, device=device, reward=rule if len(names) == 1 else "mean") for name in names]
        if new := [name for name, model in zip(names, models, strict=True) if model.has_new_head]:
            raise ConfigError(f"{new[0]}: has no trained score head, so its scores would be random; train it first")
        return models[0] if len(models) == 1 else Ensemble(models, rule)

    return parse_rewards([reward] if isinstance(reward, str) else list(reward), load=load, masked=masked)


def conversation_of(prompt: object, completion: object) -> Conversation | str:
    """Prompt and completion, each a text or a list of messages, as one conversation; a sentence when they cannot be one.

    A text prompt is one user message, a text completion one assistant message. Of messages, role and text are kept.
    """
    start = _messages(prompt, "user")
    end = _messages(completion, "assistant")
    if isinstance(start, str) or isinstance(end, str):
        return start if isinstance(start, str) else str(end)
    return (*start, *end)


def _messages(value: object, role: str) -> tuple[Message, ...] | str:
    if isinstance(value, str):
        return (Message(role=role, content=value),)
    if not isinstance(value, Sequence):
        return f"a {type(value).__name__} is neither text nor a list of messages"
    found = []
    for item in value:
        text = _text(item.get("content")) if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(item.get("role"), str) or text is None:
            return "a message is not a role with text, so it cannot be scored"
        found.append(Message(role=item["role"], content=text))
    return tuple(found)


def _text(content: Any) -> str | None:
    """The text of a message: a string, nothing, or blocks that are all text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        return None
    blocks = [
        block.get("text") if isinstance(block, Mapping) and block.get("type") == "text" else None for block in content
    ]
    return None if None in blocks else "".join(map(str, blocks))


def score_rows(scorer: Scorer, rows: Sequence[Conversation | str]) -> list[Score]:
    """One score per row; a row that is a sentence gets status `error` with it as the reason, and is not shown to the scorer."""
    usable = [row for row in rows if not isinstance(row, str)]
    scores = scorer.score(usable) if usable else []
    require_all(scores, usable, "the reward")
    found = iter(scores)
    return [Score(0, "error", reason=row) if isinstance(row, str) else next(found) for row in rows]


class Queue:
    """A scorer that is asked for one conversation at a time, from any thread, and answers in batches.

    most  conversations per batch
    wait  seconds that the first of a batch waits for company
    """

    def __init__(self, scorer: Scorer, most: int = 64, wait: float = 0.005) -> None:
        self.scorer, self.most, self.wait = scorer, most, wait
        self._waiting: queue.SimpleQueue[tuple[Conversation | str, Future[Score]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, row: Conversation | str) -> Future[Score]:
        """The score to come, or the error that the scorer raised for its batch."""
        future: Future[Score] = Future()
        self._waiting.put((row, future))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="guerdon-reward", daemon=True)
                self._thread.start()
        return future

    def _serve(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < self.most:
                try:
                    batch.append(self._waiting.get(timeout=self.wait))
                except queue.Empty:
                    break
            batch = [(row, future) for row, future in batch if future.set_running_or_notify_cancel()]
            try:
                scores = score_rows(self.scorer, [row for row, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), score in zip(batch, scores, strict=True):
                future.set_result(score)
