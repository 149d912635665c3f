"""What can be seen of an answer without a model: length, layout, repetition, phrases; and hashed words as features.

In: texts. Out: aligned numpy columns. Pure and deterministic, the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np

from guerdon.evaluate.columns import Floats, Ints

HASHED = 256  # columns each for words and for character trigrams
READ = 20_000  # characters of a text that are looked at

_WORD = re.compile(r"\w+|[^\w\s]")
_LAYOUT = {
    "list": re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+\S", re.MULTILINE),
    "bold": re.compile(r"\*\*\S[^\n]*?\*\*"),
    "heading": re.compile(r"^#{1,6}\s+\S", re.MULTILINE),
    "code": re.compile(r"```"),
}
_REFUSAL = re.compile(
    r"\b(?:I(?:'|’)?m (?:really |very |so )?sorry|I (?:can(?:no|'|’)t|can not|cannot|won(?:'|’)t|am (?:unable|not able)"
    r"|(?:must|have to) (?:decline|refuse))|I(?:'|’)m (?:unable|not able|afraid I can)|as an AI\b|I apologi[sz]e)",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """Words and punctuation marks, in lower case."""
    return _WORD.findall(text[:READ].lower())


def columns(texts: Sequence[str]) -> dict[str, Floats]:
    """Properties of each answer, defined in `docs/drift.md`; shares are 0 or 1 for one answer."""
    split = [words(text) for text in texts]
    found: dict[str, list[float]] = {"characters": [float(len(text)) for text in texts]}
    found |= {name: [float(bool(p.search(text[:READ]))) for text in texts] for name, p in _LAYOUT.items()}
    found["repetition"] = [1 - distinct(tokens, 4) for tokens in split]
    found["distinct-2"] = [distinct(tokens, 2) for tokens in split]
    found["refusal"] = [float(bool(_REFUSAL.search(text[:200]))) for text in texts]
    return {name: np.array(values, dtype=np.float64) for name, values in found.items()}


def distinct(tokens: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of an answer (Li et al. 2016, arXiv 1510.03055); 1 when it has none."""
    grams = list(zip(*(tokens[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def openers(texts: Sequence[str]) -> tuple[Ints, list[str]]:
    """The number of each answer's first three words, and what each number stands for."""
    first = [" ".join(text[:200].lower().split()[:3]) for text in texts]
    known, number = np.unique(np.array(first, dtype=object).astype(str), return_inverse=True)
    return number.reshape(-1).astype(np.int64), [str(text) for text in known]


def features(texts: Sequence[str]) -> Floats:
    """(n, 514) columns: log counts of hashed words and character trigrams, scaled to length 1, and two log lengths."""
    rows = np.zeros((len(texts), 2 * HASHED + 2))
    for row, text in zip(rows, texts, strict=True):
        tokens = words(text)
        hashed = np.array([crc32(token.encode("utf-8", "replace")) for token in tokens], dtype=np.int64) % HASHED
        codes = np.frombuffer(text[:READ].lower().encode("utf-32-le", "replace"), dtype=np.uint32).astype(np.int64)
        trigrams = (codes[:-2] * 961 + codes[1:-1] * 31 + codes[2:]) % 65_521 % HASHED
        for start, values in ((0, hashed), (HASHED, trigrams)):
            counts = np.log1p(np.bincount(values, minlength=HASHED))
            row[start : start + HASHED] = counts / max(float(np.linalg.norm(counts)), 1e-12)
        row[-2:] = np.log1p(len(text)), np.log1p(len(tokens))
    return rows
