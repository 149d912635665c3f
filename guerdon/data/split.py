"""Train and held-out comparisons that share no prompt.

In: comparisons. Out: two lists. A prompt that occurs on both sides would let a model be tested on what it learnt, so
whole groups of the same prompt move together.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from guerdon.types import Comparison, ConfigError, DataError

_WORD = re.compile(r"\w+")


def prompt_key(comparison: Comparison) -> str:
    """16 hex digits that are equal for prompts equal up to case, punctuation, white space and Unicode form.

    The prompt is its first user turn (so that all continuations of one conversation stay together). A comparison
    without a prompt is known by the words its completions start with in common, or by its first completion.
    """
    return hashlib.sha256(normalise(_opening(comparison)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def normalise(text: str) -> str:
    """Unicode NFKC, lower case, runs of word characters joined by single spaces; the text itself if it has no words."""
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join(_WORD.findall(text)) or text.strip()


def _opening(comparison: Comparison) -> str:
    for message in comparison.prompt:
        if message["role"] == "user":
            return message["content"]
    if comparison.prompt:
        return comparison.prompt[0]["content"]
    texts = ["\n\n".join(message["content"] for message in answer) for answer in comparison.completions]
    return _common_words(texts) or texts[0]


def _common_words(texts: Sequence[str]) -> str:
    shared = []
    for words in zip(*(text.split() for text in texts), strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return " ".join(shared)


def split(comparisons: Sequence[Comparison], fraction: float, seed: int) -> tuple[list[Comparison], list[Comparison]]:
    """(train, held_out) with no prompt in both, each in the order given.

    `held_out` gets `fraction` of the comparisons, less what the last prompt that no longer fits would add. Which
    prompts it gets depends only on their text and the seed, so rows that are added later move few of the others.
    Raises ConfigError unless 0 <= fraction < 1, DataError when there are too few prompts for two sides.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"the held-out fraction is {fraction}; write a number from 0 up to, but not including, 1")
    if fraction == 0:
        return list(comparisons), []
    keys = [prompt_key(comparison) for comparison in comparisons]
    sizes = Counter(keys)
    if len(sizes) < 2:
        raise DataError(
            f"all {len(keys)} comparisons have the same prompt, so none can be held out; give separate evaluation data"
        )
    held = _choose(sizes, round(fraction * len(keys)), seed)
    train = [comparison for comparison, key in zip(comparisons, keys, strict=True) if key not in held]
    return train, [comparison for comparison, key in zip(comparisons, keys, strict=True) if key in held]


def _choose(sizes: Counter[str], target: int, seed: int) -> set[str]:
    """Prompts in an order drawn by the seed, passing over those too large for the room that is left."""
    held: set[str] = set()
    room = min(target, sum(sizes.values()) - min(sizes.values()))  # something must be left to train on
    for key in sorted(sizes, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest()):
        if sizes[key] <= room:
            held.add(key)
            room -= sizes[key]
    return held or {min(sizes, key=lambda key: (sizes[key], key))}
