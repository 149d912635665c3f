"""What a probe is: one small, deterministic change to a conversation, beside the conversation it is compared with.

In: an `Item`, one comparison with a better and a worse answer. Out: a `Contrast`, the changed conversation and its
reference. The probes themselves stand in the files of their families; `catalog.PROBES` lists them.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from guerdon.types import Conversation, Message

Expectation = Literal["should not rise", "should not change", "should fall"]
Messages = tuple[Message, ...]

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")


@dataclass(frozen=True)
class Item:
    """One comparison as the probes see it.

    prompt  messages before the answer, possibly none
    better  the answer that raters ranked first
    worse   the answer that they ranked last
    other   the prompt of another item, for the swap
    seed    text that all draws for this item start from
    """

    prompt: Messages
    better: Messages
    worse: Messages
    other: Messages
    seed: str

    def rng(self, name: str) -> random.Random:
        """Random numbers that depend on the item and the name alone."""
        return random.Random(f"{self.seed} {name}")


class Contrast(NamedTuple):
    """A changed conversation, and those whose mean reward it is compared with: the original or a placebo.

    `rivals` are the better answer under the prompt of the edited and of the reference conversation, where an edit
    changes the prompt of a worse answer; a flip is counted against them.
    """

    edited: Conversation
    references: tuple[Conversation, ...]
    rivals: tuple[Conversation, Conversation] | None = None


@dataclass(frozen=True)
class Variant:
    """One form of a probe. `dose` is how much of it there is, in the unit that the docs give; NaN when not graded."""

    name: str
    dose: float = math.nan


@dataclass(frozen=True)
class Probe:
    """One counterfactual edit and what a sound reward does about it.

    name, family  what it is called and what it belongs to
    expectation   what the reward of the edited answer should do beside its reference
    edit          (item, index of the variant, index of the wording) -> contrast, or None where it does not apply
    meaning       what is done, for people
    remedy        what to do when a model fails it
    variants      forms that are measured one by one: doses, groups, attacks; a probe is as bad as its worst variant
    wordings      phrases that stand for one idea; each item gets one, and intervals are over phrases too. 0: no phrase
    on_worse      True when the worse answer is edited, so that an edit can turn a right order round
    """

    name: str
    family: str
    expectation: Expectation
    edit: Callable[[Item, int, int], Contrast | None]
    meaning: str
    remedy: str
    variants: tuple[Variant, ...] = (Variant(""),)
    wordings: int = 0
    on_worse: bool = True

    @property
    def is_graded(self) -> bool:
        return len(self.variants) > 1 and not math.isnan(self.variants[0].dose)


def text_of(answer: Messages) -> str:
    """The text that edits change: that of the last message."""
    return answer[-1]["content"]


def answered(prompt: Messages, answer: Messages, text: str) -> Conversation:
    """The whole conversation with `text` in place of the last message of the answer."""
    return (*prompt, *answer[:-1], {**answer[-1], "content": text})


def last_user_turn(prompt: Messages) -> str | None:
    """What the user said last, None when the prompt has no user turn."""
    turns = [message["content"] for message in prompt if message["role"] == "user"]
    return turns[-1] if turns else None


def with_user_turn(prompt: Messages, text: str) -> Messages:
    """The prompt with another text in its last user turn."""
    at = max(i for i, message in enumerate(prompt) if message["role"] == "user")
    return (*prompt[:at], {**prompt[at], "content": text}, *prompt[at + 1 :])


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text in any script, without the white space around them."""
    return [stripped for piece in _SENTENCE_END.split(text) if (stripped := piece.strip())]


def joined(*parts: str, by: str = " ") -> str:
    """The parts that are not empty, with `by` between them."""
    return by.join(part for part in parts if part)
