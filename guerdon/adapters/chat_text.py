"""From a prompt that a chat template has already written out back to its messages, checked by writing them out again.

Some trainers hand a reward function only the text that the policy saw. A reward model has a template of its own, so the
messages must be found again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from guerdon.types import ConfigError, Conversation, Message

_MARKS = ("\u2983one\u2984", "\u2983two\u2984", "\u2983three\u2984", "\u2983four\u2984")  # in no template and no text
_SHAPES = (("user", "assistant", "user"), ("system", "user", "assistant", "user"), ("system", "user"), ("user",))


class ChatText:
    """Reads what the chat template of a tokenizer wrote; without a template a prompt is one user message as it is.

    Raises ConfigError when the template cannot write conversations out.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self.special = sorted(filter(None, getattr(tokenizer, "all_special_tokens", ())), key=len, reverse=True)
        self.frames = list(self._frames()) if self.has_template else []
        if self.has_template and not self.frames:
            raise ConfigError(
                "the chat template of the policy cannot write out a user message, so prompts cannot be read back"
            )

    def prompt(self, text: str) -> Conversation | str:
        """The messages of a prompt; a sentence when writing them out does not give the prompt again."""
        if not self.has_template:
            return (Message(role="user", content=self._without_special(text)),)
        for roles, frame in self.frames:
            for messages in self._readings(text, roles, frame):
                if self._written(messages) == text:
                    return messages
        return "the prompt is not what the policy's chat template writes, so its messages are not known"

    def answer(self, query: str, prompt: str) -> str | None:
        """The answer in a text of prompt and answer, special tokens at its end removed; None when it starts otherwise."""
        if not query.startswith(prompt):
            start = next((token for token in self.special if query.startswith(token + prompt)), None)
            if start is None:
                return None
            query = query[len(start) :]
        return self._without_special(query[len(prompt) :])

    def _without_special(self, text: str) -> str:
        before = None
        while before != text:
            before = text
            for token in self.special:
                text = text.removesuffix(token)
        for token in self.special:
            text = text.removeprefix(token)
        return text

    def _frames(self) -> Iterator[tuple[Sequence[str], list[str]]]:
        """For each shape of conversation the pieces of text around its messages."""
        for roles in _SHAPES:
            marks = _MARKS[: len(roles)]
            try:
                text = self._written([Message(role=r, content=m) for r, m in zip(roles, marks, strict=True)])
            except Exception:  # templates raise what they like for roles they do not know
                continue
            pieces = re.split("|".join(map(re.escape, marks)), text)
            if len(pieces) == len(roles) + 1:
                yield roles, pieces

    def _readings(self, text: str, roles: Sequence[str], pieces: Sequence[str]) -> Iterator[tuple[Message, ...]]:
        """The messages if the text has this shape; a shape that ends user, assistant, user may go round any number of times."""
        first = 1 if roles[0] == "system" else 0
        start, end = "".join(pieces[:1]), pieces[-1]
        if not (text.startswith(start) and text.endswith(end)) or len(text) < len(start) + len(end):
            return
        inner = text[len(start) : len(text) - len(end)]
        system: tuple[Message, ...] = ()
        if first:
            instruction, found, inner = inner.partition(pieces[1])
            if not found:
                return
            system = (Message(role="system", content=instruction),)
        if len(roles) - first == 1:
            yield (*system, Message(role="user", content=inner))
            return
        after_user, after_assistant = pieces[first + 1], pieces[first + 2]
        turns = [turn.split(after_user) for turn in inner.split(after_assistant)]
        if after_user and after_assistant and all(len(turn) == 2 for turn in turns[:-1]) and len(turns[-1]) == 1:
            said = [part for turn in turns for part in turn]
            yield (*system, *(Message(role=("user", "assistant")[i % 2], content=c) for i, c in enumerate(said)))

    def _written(self, messages: Sequence[Message]) -> str:
        return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
