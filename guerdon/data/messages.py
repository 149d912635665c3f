"""Texts and message lists in, checked tuples of `Message` out: the part of reading that all formats share.

Also the transcripts of Anthropic's HH set (`\\n\\nHuman: ...\\n\\nAssistant: ...`) and the common start of turns.
Errors here name the column; the reader puts file and line in front.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.data.containers import columns, describe
from guerdon.types import ROLES, DataError, Message

Messages = tuple[Message, ...]

SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
# What a list of messages looks like after str() or json.dumps(): pandas and CSV files are full of them.
_STRINGIFIED = re.compile(r"""\s*\[\s*\{\s*\\?["'](role|content|from|value)\\?["']\s*:.*\}\s*\]\s*""", re.DOTALL)
_OPENING = re.compile(r"\s*(## ?)?(?:Human|Assistant):")


class Unusable(Exception):
    """A row that is readable but holds no usable preference; the text is the reason it is counted under."""


def is_stringified(text: str) -> bool:
    """True when the text is a whole message list that was turned into a string."""
    return bool(_STRINGIFIED.fullmatch(text))


def from_text(text: str, role: str) -> Messages:
    return (Message(role=role, content=text),)


def text_of(value: object, name: str) -> str:
    """A text cell. Raises DataError for anything else, also for a message list stored as a string."""
    if not isinstance(value, str):
        raise DataError(f"{name!r} is {describe(value)}; write text")
    if is_stringified(value):
        raise DataError(f"{name!r} is a message list stored as a string; store it as a list (JSON Lines or Parquet)")
    return value


def messages_of(value: object, name: str) -> Messages:
    """A list of `{"role", "content"}` objects; other keys are left behind. Raises DataError on any other shape."""
    if not isinstance(value, list | tuple):
        raise DataError(f"{name!r} is {describe(value)}; write a list of messages")
    return tuple(_message(item, f"{name}[{number}]") for number, item in enumerate(value))


def _message(value: object, name: str) -> Message:
    if not isinstance(value, Mapping):
        raise DataError(f"'{name}' is {describe(value)}; write an object with 'role' and 'content'")
    for key in ("role", "content"):
        if key not in value:
            raise DataError(f"'{name}' has no {key!r} (it has {columns(dict(value))}); write 'role' and 'content'")
    role, content = value["role"], value["content"]
    if role not in ROLES:
        what = repr(role) if isinstance(role, str) else describe(role)
        raise DataError(f"'{name}' has the role {what}; write one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise DataError(f"'{name}' has {describe(content)} as content; write text")
    return Message(role=role, content=content)


def turns_of(value: object, name: str, role: str) -> Messages:
    """Text as one message of that role, or a list of messages as it is; blank text and null as no messages."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    return from_text(text_of(value, name), role) if isinstance(value, str) else messages_of(value, name)


def answer_of(value: object, name: str) -> Messages:
    """A completion: text or messages. Raises Unusable when there is none, DataError when it has another shape."""
    answer = turns_of(value, name, "assistant")
    if not answer:
        raise Unusable("empty answer")
    return answer


def sharegpt_of(value: object, name: str) -> Messages:
    """`{"from", "value"}` objects, one or a list of them, as messages; plain `{"role", "content"}` passes too."""
    items = value if isinstance(value, list | tuple) else [value]
    return messages_of([_renamed(item, name) for item in items], name)


def _renamed(item: object, name: str) -> Any:
    if not isinstance(item, Mapping) or "from" not in item or "value" not in item:
        return item
    role = SHAREGPT_ROLES.get(str(item["from"]))
    if role is None:
        raise DataError(f"{name!r} has a turn from {item['from']!r}; write one of {', '.join(SHAREGPT_ROLES)}")
    return {"role": role, "content": item["value"]}


def is_transcript(text: object) -> bool:
    """True for a text that opens with `Human:` or `Assistant:`, as all of HH does (`## Human:` in WebGPT copies)."""
    return isinstance(text, str) and bool(_OPENING.match(text))


def transcript_of(text: str, name: str) -> Messages:
    """The turns of an HH transcript, without the white space around each.

    A marker opens a turn only at the very start or after a blank line, so `Human:` inside a sentence stays text.
    """
    opening = _OPENING.match(text)
    if opening is None:
        raise DataError(f"{name!r} does not start with 'Human:'; remove the row or name the format with --format")
    parts = re.split(rf"(?:\A\s*|\n\n){opening[1] or ''}(Human|Assistant):", text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(
        Message(role=roles[marker], content=turn.strip()) for marker, turn in zip(parts[::2], parts[1::2], strict=True)
    )


def common_start(conversations: Sequence[Messages]) -> int:
    """How many leading messages all conversations share, leaving each at least its last message."""
    most = min(map(len, conversations)) - 1
    first = conversations[0]
    for number in range(most):
        if any(other[number] != first[number] for other in conversations):
            return number
    return most
