"""Neutral text of a given length: the placebo of every edit that adds words.

An added phrase does two things to a reward: it adds length and a break of style, and it says something. A placebo does
only the first. These sentences say what every answer could say of itself ("This reply relates to the question above."):
true, without facts that could be wrong, praise, confidence or topic. A permutation of the phrase's own words would
match it more closely, but a model that looks for single words ("certain", "great") would like the permutation as
well, and the bias would be subtracted away. Fragments cut to length would be broken English, which sound models dislike.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import product

_SHORT = (
    *("So.", "Now.", "Then.", "Here.", "Below.", "Reply.", "Answer.", "A reply.", "As below.", "In reply."),
    *("A response.", "As follows.", "What is said.", "A text to read.", "Reply as below.", "This is a reply."),
    *("Here is a reply.", "This is an answer.", "A reply to a text.", "This is the answer.", "This is a response."),
    *(
        "The text is as here.",
        "The reply is as here.",
        "Text follows.",
        "See below.",
        "A reply below.",
        "In response.",
        "This is the text.",
    ),
)
_SUBJECTS = ("This text", "This reply", "This answer", "The text here", "The reply here", "What is written here")
_VERBS = ("is about", "relates to", "refers to", "deals with", "responds to", "is a reply to", "has to do with")
_OBJECTS = (
    *("it", "that", "the topic", "the matter", "the subject", "the message", "the request", "the question"),
    *("what was asked", "the message above", "the request above", "the question above", "what was asked above"),
    *("the question as it was put", "the message as it was sent", "the request as it was written"),
)
GAP = 1  # the space between two sentences
LEAST, MOST = 21, 60  # characters of a sentence; there is one of every length between


def neutral(chars: int, rng: random.Random) -> str:
    """Whole neutral sentences, exactly `chars` characters in all; none below 3."""
    bank, said = _bank(), list[str]()
    sizes = [size for size in bank if LEAST <= size <= MOST]
    while chars > MOST:
        size = rng.choice([s for s in sizes if s <= chars - GAP - LEAST])  # room is left for one more sentence
        said.append(rng.choice(bank[size]))
        chars -= size + GAP
    return " ".join([*said, rng.choice(bank[chars])]) if chars in bank else ""


@cache
def _bank() -> dict[int, tuple[str, ...]]:
    """All sentences by length in characters."""
    found: dict[int, list[str]] = {}
    for text in (*_SHORT, *(" ".join(parts) + "." for parts in product(_SUBJECTS, _VERBS, _OBJECTS))):
        found.setdefault(len(text), []).append(text)
    return {size: tuple(texts) for size, texts in sorted(found.items())}
