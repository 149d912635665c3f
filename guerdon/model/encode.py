"""THE road from a conversation to token ids. Training, evaluation, serving and policy optimisation all walk it.

The rule is one sentence: *the ids of a conversation are what the saved tokenizer's chat template renders, and nothing
else*. Whatever the score needs beyond that (a closing token, a frozen date, a template where the base model has none)
is written into the template once, by `prepare_tokenizer`, and saved with the checkpoint. So any program that applies
the template of the folder (transformers, TRL, vLLM, SGLang) feeds the model the same ids as Guerdon.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from guerdon.types import ROLES, ConfigError, Conversation, DataError

Truncation = Literal["left", "right", "error"]

# Seen by the template once, while it is being prepared; never scored.
_PROBE: Conversation = (
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris"},
)
_FROZEN_DATE = "26 Jul 2024"  # the fallback date that Llama 3's own template writes when it has no clock
_SPARE_PAD_TOKENS = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")


class Encoded(NamedTuple):
    """Token ids of one conversation as they are scored, its length before the context limit, and whether it was cut."""

    ids: tuple[int, ...]
    full_length: int
    truncated: bool


@dataclass(frozen=True)
class Encoder:
    """Conversation -> ids, cut to `max_length` tokens by `truncation`.

    `left` keeps the opening token and the end of the conversation, where the answer is; `right` keeps the start and the
    closing token; `error` refuses. The cut depends on the conversation alone, never on what else is in the batch.
    """

    tokenizer: Any
    max_length: int
    truncation: Truncation = "left"

    def __call__(self, conversations: Sequence[Conversation]) -> list[Encoded]:
        """Encode whole conversations. Raises DataError when the template refuses one, or one is too long under `error`."""
        texts = [self.render(conversation) for conversation in conversations]
        if not texts:
            return []
        rows = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [self._cut(row) for row in rows]

    def texts(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts that a chat template has already rendered, special tokens written out.

        What the template puts in front of every conversation (BOS) and behind it (the closing token, with the line break some
        templates write after it) stands there exactly once afterwards, whether or not the text has it, or has it twice.
        Raises DataError for a text that is empty, is not text, or is too long under `error`.
        """
        if not texts:
            return []
        for text in texts:
            require_text(text)
            if not text.strip():
                raise DataError("the text is empty; an empty text has no score")
        rows = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [self._cut(self._framed(row)) for row in rows]

    def ids(self, rows: Sequence[Sequence[int]]) -> list[Encoded]:
        """Token ids as they are, cut to the context. Raises DataError when there are none, or too many under `error`."""
        if not all(rows):
            raise DataError("there are no token ids; an empty sequence has no score")
        return [self._cut(list(row)) for row in rows]

    @cached_property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids that open every conversation (BOS, or none) and that close it: its last special token and what follows."""
        ids = self.tokenizer(_render_probe(self.tokenizer), add_special_tokens=False)["input_ids"]
        special = special_ids(self.tokenizer)
        opening = ids[:1] if ids[0] in (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id) else []
        last = max((place for place, token in enumerate(ids) if token in special), default=len(ids))
        return tuple(opening), tuple(ids[last:])

    def _framed(self, ids: list[int]) -> list[int]:
        opening, closing = self.frame
        first = opening[0] if opening else self.tokenizer.bos_token_id
        while ids and ids[0] == first and (not opening or ids[1:2] == [first]):
            ids = ids[1:]
        if opening and ids[:1] != [first]:
            ids = [first, *ids]
        size = len(closing)
        while size and tuple(ids[-2 * size :]) == closing * 2:
            ids = ids[:-size]
        there = next((n for n in range(size, 0, -1) if tuple(ids[-n:]) == closing[:n]), 0)
        return [*ids, *closing[there:]]

    def lengths(self, conversations: Sequence[Conversation]) -> list[int]:
        """Tokens of whole conversations before any cut. Raises DataError when the template refuses one."""
        return [item.full_length for item in replace(self, max_length=sys.maxsize)(conversations)]

    def render(self, conversation: Conversation) -> str:
        """The conversation as the template writes it, before tokenisation. Raises DataError when the template refuses."""
        try:
            text = self.tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=False)
        except Exception as error:  # templates raise their own errors through Jinja
            roles = ", ".join(str(message.get("role")) for message in conversation)
            raise DataError(f"the chat template refuses a conversation with roles [{roles}]: {error}") from error
        if not text:
            raise DataError("the chat template renders the conversation to nothing; an empty text has no score")
        return str(text)

    def _cut(self, ids: list[int]) -> Encoded:
        if len(ids) <= self.max_length:
            return Encoded(tuple(ids), len(ids), False)
        if self.truncation == "error":
            raise DataError(
                f"the conversation has {len(ids)} tokens, more than the {self.max_length} of the context; "
                "shorten it, or choose --truncation left or right"
            )
        if self.truncation == "left":
            kept = ids[:1] + ids[len(ids) - self.max_length + 1 :]
        else:
            kept = ids[: self.max_length - 1] + ids[-1:]
        return Encoded(tuple(kept), len(ids), True)


def template_hash(tokenizer: Any) -> str:
    """Fingerprint of the chat template; two checkpoints with different hashes do not read conversations alike."""
    return sha256((tokenizer.chat_template or "").encode()).hexdigest()[:16]


def prepare_tokenizer(tokenizer: Any) -> Any:
    """Make the tokenizer fit to score with, in place: a template that closes every conversation, and a pad token.

    - No chat template: a plain `Human: / Assistant:` one is written, opened and closed by the tokenizer's own tokens.
    - A template that does not end on a special token gets the end-of-sequence token appended.
    - A template that asks for today's date gets a fixed one: a reward must not change overnight.
    - A pad token that is missing, or is the token every conversation ends on, is replaced by a spare one, because
      transformers finds the scored token by looking for the last id that is not the pad id.

    The caller resizes the embeddings when `len(tokenizer)` grew. Raises ConfigError for a tokenizer with several
    templates.
    """
    if isinstance(tokenizer.chat_template, dict):
        names = ", ".join(tokenizer.chat_template)
        raise ConfigError(f"the tokenizer carries several chat templates ({names}); keep the one to score with")
    if not tokenizer.chat_template:
        tokenizer.chat_template = _plain_template(tokenizer)
    tokenizer.chat_template = _freeze_date(tokenizer.chat_template)
    closing = tokenizer.eos_token or tokenizer.sep_token
    if closing and not _ends_on_special_token(tokenizer):
        tokenizer.chat_template += "{{ " + repr(closing) + " }}"
    tokenizer.padding_side = "right"
    final = tokenizer(_render_probe(tokenizer), add_special_tokens=False)["input_ids"][-1]
    if tokenizer.pad_token is None or tokenizer.pad_token_id in (tokenizer.eos_token_id, final):
        vocabulary = tokenizer.get_vocab()
        taken = {tokenizer.eos_token, tokenizer.bos_token}
        spare = next((t for t in _SPARE_PAD_TOKENS if t in vocabulary and t not in taken), None)
        if spare is None:
            tokenizer.add_special_tokens({"pad_token": _SPARE_PAD_TOKENS[0]})
        else:
            tokenizer.pad_token = spare
    return tokenizer


def _render_probe(tokenizer: Any) -> str:
    return str(tokenizer.apply_chat_template(list(_PROBE), tokenize=False, add_generation_prompt=False))


def _ends_on_special_token(tokenizer: Any) -> bool:
    """True if the rendered text, but for trailing white space, ends on a token that ordinary text cannot contain."""
    ids = tokenizer(_render_probe(tokenizer).rstrip(), add_special_tokens=False)["input_ids"]
    return bool(ids) and ids[-1] in special_ids(tokenizer)


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of the tokens that ordinary text cannot contain."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _plain_template(tokenizer: Any) -> str:
    opening = tokenizer.bos_token or tokenizer.cls_token or ""
    closing = tokenizer.eos_token or tokenizer.sep_token or ""
    return (
        "{%- set names = {'system': 'System', 'user': 'Human', 'assistant': 'Assistant', 'tool': 'Tool'} -%}"
        + ("{{ " + repr(opening) + " }}" if opening else "")
        + "{%- for message in messages -%}"
        "{{ ('' if loop.first else '\\n\\n') ~ names.get(message['role'], message['role']) ~ ': ' ~ message['content'] }}"
        "{%- endfor -%}" + ("{{ " + repr(closing) + " }}" if closing else "")
    )


def _freeze_date(template: str) -> str:
    return re.sub(r"strftime_now\([^()]*\)", repr(_FROZEN_DATE), template)


def require_conversations(conversations: Sequence[Conversation]) -> Sequence[Conversation]:
    """The conversations, if each is a non-empty list of messages with a known role and a text. Raises DataError."""
    for conversation in conversations:
        if isinstance(conversation, (str, dict)) or not conversation:
            raise DataError("a conversation is a non-empty list of {'role', 'content'} messages")
        for message in conversation:
            if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
                raise DataError(f"a message needs a text 'role' and a text 'content', got {str(message)[:80]!r}")
            if message["role"] not in ROLES:
                raise DataError(f"there is no role {message['role'][:40]!r}; write one of {', '.join(ROLES)}")
            require_text(message["content"], "a message")
    return conversations


def require_text(text: str, what: str = "a text") -> None:
    """Raise DataError for half of a surrogate pair, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{what} holds half of a surrogate pair, which is no text; repair its encoding") from None
