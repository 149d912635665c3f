"""What the texts of one comparison show: odd characters, left-over template markers, a length without a tokenizer.

In: text. Out: names of what was found, or a count. Pure functions; every row of a check passes through them, so the
common case of clean text is decided by C-speed string methods and the patterns only see the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from guerdon.types import Comparison, Message

_ZERO_WIDTH = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")  # joiners have honest uses
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PLAIN_CONTROLS = str.maketrans("", "", "\n\r\t")
_MARKER = re.compile(
    r"<\|[a-zA-Z_]+\|>|\[/?INST\]|<</?SYS>>|</s>|<(?:start|end)_of_turn>|<extra_id_\d>|\n\n(?:Human|Assistant):"
)
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]", re.ASCII)
_SIGNS = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # each about a token; written without spaces between
_WORD_MARK_OR_SIGN = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+|[^\w\s]")

ODD_CHARACTERS = ("replacement character", "zero-width or direction mark", "control character")


def odd_characters(text: str) -> Iterator[str]:
    """Which of `ODD_CHARACTERS` the text holds. Line ends and tabs are not odd, nor are joiners inside emoji."""
    if "\ufffd" in text:
        yield ODD_CHARACTERS[0]
    if text.translate(_PLAIN_CONTROLS).isprintable():
        return
    if _ZERO_WIDTH.search(text):
        yield ODD_CHARACTERS[1]
    if _CONTROL.search(text):
        yield ODD_CHARACTERS[2]


def template_leftovers(text: str) -> set[str]:
    """Chat-template markers in a text, such as `<|im_end|>`, `[INST]` or `</s>`: traces of an earlier rendering."""
    if "<" in text or "[" in text or "\n\nHuman:" in text or "\n\nAssistant:" in text:
        return {marker.strip() for marker in _MARKER.findall(text)}
    return set()


def estimated_length(messages: tuple[Message, ...]) -> int:
    """Words, punctuation marks and Chinese, Japanese or Korean signs: near the tokens of prose, too few for code."""
    texts = [message["content"] for message in messages]
    return sum(len((_WORD_OR_MARK if text.isascii() else _WORD_MARK_OR_SIGN).findall(text)) for text in texts)


def answer_texts(comparison: Comparison) -> list[str]:
    """Each completion as one text."""
    return ["\n\n".join(message["content"] for message in answer) for answer in comparison.completions]
