"""Finds the policy's own words in what was scored: the last message, or what stands behind the template's last opening.

A rendered text whose template marks no beginning of the answer has none that can be told; nothing is guessed then.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from guerdon.serve.call import Item

_PROBE = ({"role": "user", "content": "probe"},)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one item says after its prompt.

    prompt  a number for the prompt, equal for equal prompts; None when prompt and answer cannot be told apart
    text    the answer, None likewise
    tokens  its length in tokens, NaN likewise
    """

    prompt: int | None = None
    text: str | None = None
    tokens: float = math.nan


class Answers:
    """Splits items for one model. Not for use from two threads at once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._counter = None if backend is None else copy.deepcopy(backend)  # the engine's own must not be borrowed
        if self._counter is not None:
            self._counter.no_truncation()
            self._counter.no_padding()
        self._opening = _opening(tokenizer)
        closing = [getattr(tokenizer, name, None) for name in ("eos_token", "sep_token", "pad_token")]
        self._closing = tuple(token for token in closing if token)

    def of(self, item: Item) -> Answer:
        """The answer in an item with a fingerprint of its prompt; an empty one where a rendered text has no assistant turn."""
        if item.messages is not None:
            prompt = [(message["role"], message["content"]) for message in item.messages[:-1]]
            return self._answer(json.dumps(prompt), str(item.messages[-1]["content"]))
        text = item.text if item.text is not None else self._text(item.ids or ())
        if text is None or not self._opening or self._opening not in text:
            return Answer()
        prompt_text, _, answer = text.rpartition(self._opening)
        return self._answer(prompt_text, self._bare(answer))

    def _answer(self, prompt: str, text: str) -> Answer:
        count = math.nan if self._counter is None else len(self._counter.encode(text, add_special_tokens=False).ids)
        return Answer(number_of(prompt), text, count)

    def _text(self, ids: Sequence[int]) -> str | None:
        return None if self._counter is None else str(self._counter.decode(list(ids), skip_special_tokens=False))

    def _bare(self, text: str) -> str:
        """Without the special tokens and the white space at the end."""
        text, before = text.rstrip(), ""
        while text != before:
            before = text
            for token in self._closing:
                text = text.removesuffix(token).rstrip()
        return text


def number_of(text: str) -> int:
    """A number that stands for a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=7).digest(), "big")


def _opening(tokenizer: Any) -> str:
    """What the chat template writes to begin an answer; "" when it writes nothing of its own."""
    try:
        asked, begun = (
            str(tokenizer.apply_chat_template(list(_PROBE), tokenize=False, add_generation_prompt=begin))
            for begin in (False, True)
        )
        if begun.startswith(asked) and len(begun) > len(asked):
            return begun[len(asked) :]
        turns = [*_PROBE, {"role": "assistant", "content": "reply"}]
        whole = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False))
    except Exception:  # a template may fail in any way; then nothing is told apart
        return ""
    between = whole.partition("probe")[2].partition("reply")[0]
    return between.removeprefix(tokenizer.eos_token or "") if between.strip() else ""
