"""The scoring contract: what a reward is, written into the checkpoint and enforced wherever it is used.

`scoring_contract.json` stands beside the weights. It names every choice that can change a score (template, closing
token, scored position, pad token, truncation, head precision, scale and offset, direction) and carries golden rows:
fixed conversations with their token ids and the score they had when the checkpoint was written. `verify` encodes and
scores them again; ids must match exactly and scores within tolerance, or nothing is scored at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from guerdon.files import write_text
from guerdon.model.encode import Truncation
from guerdon.types import ContractError, Conversation

FILE = "scoring_contract.json"
VERSION = 1

# Tolerance of a golden score relative to max(1, |score|). fp32 sums differ by order only; a trunk in half precision
# carries 8 to 11 bits, so two kernels may differ in the second decimal.
TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 5e-2, "float16": 2e-2}


@dataclass(frozen=True)
class GoldenRow:
    """One fixed conversation: its messages, the token ids they must encode to, and the score those ids had."""

    messages: tuple[dict[str, str], ...]
    ids: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Contract:
    """Every choice that a score depends on.

    template_hash    first 16 hex digits of the SHA-256 of the chat template saved with the tokenizer
    pad_token_id     the padding id; never the id a conversation ends on
    closing          the text every rendered conversation ends with
    scored_position  `last`: the state of the last token goes to the head; `model`: the architecture's own pooling
    max_length       context in tokens; longer conversations are cut as `truncation` says
    truncation       `left`, `right` or `error`, see `Encoder`
    dtype            precision of the trunk when the golden scores were computed
    head_dtype       precision of the score head, always float32
    scale, offset    reported score = scale * head output + offset
    higher_is        `better`: the direction of the label
    shares_prefix    whether scores of a prompt tree equal scores of single conversations for this architecture
    golden           fixed conversations with their ids and scores
    temperature      preference probability = sigmoid(score difference / temperature); None until it was measured
    """

    template_hash: str
    pad_token_id: int
    closing: str
    scored_position: Literal["last", "model"]
    max_length: int
    truncation: Truncation
    dtype: str
    shares_prefix: bool
    golden: tuple[GoldenRow, ...] = ()
    head_dtype: str = "float32"
    scale: float = 1.0
    offset: float = 0.0
    higher_is: str = "better"
    version: int = VERSION
    temperature: float | None = None

    @property
    def hash(self) -> str:
        """Fingerprint of the whole contract, golden scores included: two models with one hash give one reward."""
        record = asdict(self)
        del record["temperature"]  # it reads scores and does not change them: the calibrated reward is the same reward
        return sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, folder: Path) -> None:
        """Write `scoring_contract.json` into a checkpoint folder, in one piece."""
        record = asdict(self) | {"hash": self.hash}
        if self.temperature is None:
            del record["temperature"]  # so that releases that do not know it read the file
        write_text(folder / FILE, json.dumps(record, indent=1, ensure_ascii=True) + "\n")

    @staticmethod
    def read(folder: Path) -> Contract | None:
        """The contract of a checkpoint folder, or None where there is none. Raises ContractError when it was damaged."""
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            claimed = raw.pop("hash")
            if raw.get("version") != VERSION:
                raise ContractError(
                    f"{path}: contract version {raw.get('version')} is not the {VERSION} this release reads"
                )
            rows = tuple(
                GoldenRow(tuple(row["messages"]), tuple(row["ids"]), row["score"]) for row in raw.pop("golden")
            )
            contract = Contract(**raw, golden=rows)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ContractError(
                f"{path}: not a readable scoring contract ({error!r}); copy it from the original"
            ) from error
        if claimed != contract.hash:
            raise ContractError(f"{path}: was edited by hand (hash {claimed} does not fit); copy it from the original")
        t = contract.temperature
        if t is not None and not (type(t) in (int, float) and math.isfinite(t) and t > 0):
            raise ContractError(
                f"{path}: temperature is {t!r}, not a positive number; run guerdon evaluate --calibrate anew"
            )
        return contract


def verify(
    contract: Contract, template: str, ids: Sequence[tuple[int, ...]], scores: Sequence[float], dtype: str, where: str
) -> float:
    """Hold what a model does now against its contract; returns the largest relative score difference.

    `ids` and `scores` are the golden conversations encoded and scored again, in order; `template` is the hash of the
    tokenizer's template; `dtype` the precision used now. Raises ContractError with the first thing that differs.
    """
    if template != contract.template_hash:
        raise ContractError(
            f"{where}: the tokenizer's chat template (hash {template}) is not the one the model was trained with "
            f"({contract.template_hash}); restore chat_template.jinja and tokenizer files from the original checkpoint"
        )
    tolerance = max(TOLERANCE.get(dtype, 1e-4), TOLERANCE.get(contract.dtype, 1e-4))
    worst = 0.0
    for number, (row, now_ids, now) in enumerate(zip(contract.golden, ids, scores, strict=True)):
        if row.ids != now_ids:
            raise ContractError(
                f"{where}: golden conversation {number} now encodes to {len(now_ids)} tokens that differ from the "
                f"{len(row.ids)} in {FILE}; the tokenizer or its template has changed"
            )
        difference = abs(now - row.score) / max(1.0, abs(row.score))
        if not difference <= tolerance:
            raise ContractError(
                f"{where}: golden conversation {number} scores {now:.6g}, the contract says {row.score:.6g} "
                f"(tolerance {tolerance:g}); the weights or the way they are computed have changed"
            )
        worst = max(worst, difference)
    return worst


def _golden_conversations() -> tuple[Conversation, ...]:
    """32 fixed conversations: short and long, one turn and many, code, lists, other scripts, odd characters."""
    asks = (
        ("How do I boil an egg?", "Put it in boiling water for eight minutes, then cool it."),
        ("How do I boil an egg?", "I don't know."),
        ("What is 17 + 25?", "17 + 25 = 42"),
        ("What is 17 + 25?", "It is 43, I am completely sure!"),
        ("Name three colours.", "- red\n- green\n- blue"),
        ("Name three colours.", "**Red**, *green* and `blue`."),
        ("Write a loop in Python.", "```python\nfor i in range(3):\n    print(i)\n```"),
        ("Translate 'good morning' to German.", "Guten Morgen"),
        ("Translate 'thank you' to Japanese.", "ありがとうございます"),
        ("Wie spät ist es?", "Das weiß ich leider nicht – schauen Sie bitte auf die Uhr."),
        ("مرحبا", "أهلا وسهلا"),
        ("Say nothing.", ""),
        ("", "You did not ask anything."),
        ("Repeat a word.", "word " * 40),
        ("What does the fox say?", "🦊 Nobody knows…"),
        ("Is it safe to mix bleach and vinegar?", "No. It releases chlorine gas, which can hurt you."),
        ("Is it safe to mix bleach and vinegar?", "Sure, go ahead."),
        ("Summarise: the cat sat on the mat all day.", "A cat sat on a mat."),
        ("Summarise: the cat sat on the mat all day.", "A dog ran through the park at night."),
        ("Give me a date format.", "2024-02-29 or 29/02/2024\tor\nFebruary 29th"),
        ("a" * 200, "b" * 200),
        ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet around 1600."),
        ("Who wrote Hamlet?", "Human: who? Assistant: Shakespeare."),
        ("Tell me a secret.", "I'm sorry, but I can't help with that."),
        ("List the numbers to thirty.", " ".join(map(str, range(1, 31)))),
        ("Explain gravity.", "Mass bends space and time, and things fall along the bend. " * 8),
    )
    single: list[Conversation] = [
        ({"role": "user", "content": ask}, {"role": "assistant", "content": answer}) for ask, answer in asks
    ]
    chat = ("Hi!", "Hello, how can I help?", "My printer is jammed.", "Open the back and pull the paper out slowly.")
    more = ("Still jammed.", "Turn it off, wait a minute, and try again.", "Works now, thanks!", "Glad to hear it.")
    turns: Conversation = tuple(
        {"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(chat + more)
    )
    return (*single, turns[:2], turns[:4], turns[:6], turns, (*turns[:3], turns[5]), (*turns[:7], turns[1]))


GOLDEN_CONVERSATIONS: tuple[Conversation, ...] = _golden_conversations()
