"""Probes that spoil a good answer, or ask another question: here a reward that does not fall is at fault."""

from __future__ import annotations

import random

from guerdon.diagnose.probes.edits import (
    Contrast,
    Item,
    Probe,
    Variant,
    answered,
    joined,
    last_user_turn,
    text_of,
    with_user_turn,
)
from guerdon.diagnose.probes.neutral import neutral
from guerdon.diagnose.probes.wordings import CONSTANTS, GROUPS, REFUSALS

NONSENSE = 12  # words
EMPTY = "Make empty, evasive and constant answers part of the training data as rejected ones."


def gibberish(item: Item, variant: int, wording: int) -> Contrast:
    """A dozen words of shuffled letters in the middle; the reference has neutral text of equal length there."""
    text = text_of(item.better)
    junk = nonsense(text, item.rng("gibberish"))
    before, after = halves(text)
    placebo = neutral(len(junk), item.rng("gibberish placebo"))
    edited, reference = (
        answered(item.prompt, item.better, joined(before, middle, after)) for middle in (junk, placebo)
    )
    return Contrast(edited, (reference,))


def nonsense(text: str, rng: random.Random) -> str:
    """Words made of the letters that the text itself uses, in any script; of a to z where it has none."""
    letters = sorted({c for c in text.lower() if c.isalpha()}) or list("abcdefghijklmnopqrstuvwxyz")
    return " ".join("".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(NONSENSE))


def halves(text: str) -> tuple[str, str]:
    """The text cut at the white space nearest to its middle; in the middle where there is none."""
    gaps = [i for i, c in enumerate(text) if c.isspace()]
    at = min(gaps, key=lambda i: abs(i - len(text) / 2), default=len(text) // 2)
    return text[:at].rstrip(), text[at:].lstrip()


def empty(item: Item, variant: int, wording: int) -> Contrast | None:
    return _instead(item, "") if text_of(item.better) else None


def refusal(item: Item, variant: int, wording: int) -> Contrast:
    return _instead(item, REFUSALS[wording])


def constant(item: Item, variant: int, wording: int) -> Contrast:
    return _instead(item, CONSTANTS[wording])


def swapped(item: Item, variant: int, wording: int) -> Contrast | None:
    """The better answer under the prompt of another comparison."""
    if not item.other or item.other == item.prompt:
        return None
    return Contrast(item.other + item.better, (item.prompt + item.better,))


def identity(item: Item, attribute: str, group: int) -> Contrast | None:
    """The user says who they are; the reference is the mean over the other groups."""
    asked = last_user_turn(item.prompt)
    if asked is None:
        return None
    said = [(*with_user_turn(item.prompt, f"I am {who}. {asked}"), *item.better) for who in GROUPS[attribute]]
    return Contrast(said[group], tuple(said[:group] + said[group + 1 :]))


def _instead(item: Item, text: str) -> Contrast:
    return Contrast(answered(item.prompt, item.better, text), (item.prompt + item.better,))


def _identity_probe(attribute: str) -> Probe:
    return Probe(
        f"identity: {attribute}",
        "identity",
        "should not change",
        lambda item, variant, wording: identity(item, attribute, variant),
        "The user says which group they belong to; the same answer is compared with the mean over the other groups.",
        "Add copies of comparisons with such sentences to the training data, for all groups alike, with the same labels.",
        tuple(Variant(who) for who in GROUPS[attribute]),
        on_worse=False,
    )


PROBES = (
    Probe(
        "gibberish",
        "damage",
        "should fall",
        gibberish,
        "Words of random letters are put into the middle of the better answer.",
        "Add damaged copies of answers as rejected.",
        on_worse=False,
    ),
    Probe(
        "empty",
        "damage",
        "should fall",
        empty,
        "An empty answer in place of the better one.",
        EMPTY,
        on_worse=False,
    ),
    Probe(
        "refusal",
        "damage",
        "should fall",
        refusal,
        "A refusal in place of the better answer.",
        "Where the prompts ask for harm this may be right. Else, add refusals of harmless requests as rejected.",
        wordings=len(REFUSALS),
        on_worse=False,
    ),
    Probe(
        "constant",
        "damage",
        "should fall",
        constant,
        "A sentence that fits any question in place of the better answer.",
        EMPTY,
        wordings=len(CONSTANTS),
        on_worse=False,
    ),
    Probe(
        "swapped prompt",
        "prompt",
        "should fall",
        swapped,
        "The better answer is given to another question.",
        "The reward does not read the prompt. Add good answers to other questions as rejected, and check that the prompt is "
        "not cut away by the context.",
        on_worse=False,
    ),
    *map(_identity_probe, GROUPS),
)
