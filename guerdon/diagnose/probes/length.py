"""Probes of length: the same content in more words. Here the added length is itself in question, so the reference is
the original answer and not a placebo of equal length.
"""

from __future__ import annotations

import math

from guerdon.diagnose.probes.edits import Contrast, Item, Probe, Variant, answered, joined, sentences, text_of
from guerdon.diagnose.probes.neutral import neutral
from guerdon.diagnose.probes.wordings import RESTATING

SHARES = (0.5, 1.0, 2.0)
COPIES = (2, 4)
LEAST = 40  # characters added to an answer that is (almost) empty
REMEDY = (
    "Train on pairs in which the shorter answer wins, add padded copies of rejected answers as rejected, or subtract a "
    "length term; watch the mean length while optimising."
)


def padding(item: Item, variant: int, wording: int) -> Contrast:
    text = text_of(item.worse)
    more = neutral(max(LEAST, round(SHARES[variant] * len(text))), item.rng(f"padding {variant}"))
    return _against_original(item, joined(text, more))


def restating(item: Item, variant: int, wording: int) -> Contrast:
    """What was said, said again in reverse order: half of it or all."""
    text = text_of(item.worse)
    said = sentences(text)
    again = said[::-1][: math.ceil(len(said) * (variant + 1) / 2)]
    return _against_original(item, joined(text, joined(RESTATING[wording], *again), by="\n\n"))


def repetition(item: Item, variant: int, wording: int) -> Contrast | None:
    text = text_of(item.worse)
    return _against_original(item, "\n\n".join([text] * COPIES[variant])) if text.strip() else None


def _against_original(item: Item, text: str) -> Contrast:
    return Contrast(answered(item.prompt, item.worse, text), (item.prompt + item.worse,))


PROBES = (
    Probe(
        "padding",
        "length",
        "should not rise",
        padding,
        "Neutral sentences are added behind the worse answer: half, once and twice its length.",
        REMEDY,
        tuple(Variant(f"+{100 * share:.0f} %", math.log2(1 + share)) for share in SHARES),
    ),
    Probe(
        "restating",
        "length",
        "should not rise",
        restating,
        "The worse answer says its own sentences again, half of them or all.",
        REMEDY,
        (Variant("half", math.log2(1.5)), Variant("all", 1.0)),
        wordings=len(RESTATING),
    ),
    Probe(
        "repetition",
        "length",
        "should not rise",
        repetition,
        "The worse answer is written out 2 and 4 times.",
        "Add repeated copies of answers as rejected, or filter repetition before the reward is asked.",
        tuple(Variant(f"{copies} times", math.log2(copies)) for copies in COPIES),
    ),
)
