"""Probes of form: the same words with list marks, bold, headings, emoji, exclamation marks, or without punctuation.

A mark changes an answer by a few characters and adds no words, so the reference is the original answer; a heading adds
a word, and its reference has the same word without the mark.
"""

from __future__ import annotations

import re
import unicodedata

from guerdon.diagnose.probes.edits import Contrast, Item, Probe, Variant, answered, joined, sentences, text_of
from guerdon.diagnose.probes.wordings import EMOJI, HEADINGS

EMOJIS = (1, 3)
REMEDY = (
    "Add pairs whose two answers differ in form alone and are tied, or strip the marks from both answers before the reward "
    "is asked."
)
_WORD = re.compile(r"[^\W_]{2,}")
_STOP = re.compile(r"[.。](?=\s|$)|(?<=[。])")
_IS_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)


def as_list(item: Item, variant: int, wording: int) -> Contrast | None:
    """Every sentence as a list item; None for a single sentence and for what is a list already."""
    text = text_of(item.worse)
    said = sentences(text)
    if len(said) < 2 or _IS_LIST.search(text):
        return None
    return _against(item, "\n".join(f"- {sentence}" for sentence in said), text)


def bold(item: Item, variant: int, wording: int) -> Contrast | None:
    """The longest word of every sentence in bold."""
    text = text_of(item.worse)
    marked, start = text, 0
    for sentence in sentences(text):
        words = _WORD.findall(sentence)
        at = marked.find(sentence, start)
        if not words or at < 0 or "**" in sentence:
            continue
        word = max(words, key=len)
        replaced = sentence.replace(word, f"**{word}**", 1)
        marked = marked[:at] + replaced + marked[at + len(sentence) :]
        start = at + len(replaced)
    return _against(item, marked, text) if marked != text else None


def heading(item: Item, variant: int, wording: int) -> Contrast:
    text, word = text_of(item.worse), HEADINGS[wording]
    return _against(item, joined(f"## {word}", text, by="\n\n"), joined(word, text, by="\n\n"))


def emoji(item: Item, variant: int, wording: int) -> Contrast:
    """One emoji at the end, or three spread over the sentences."""
    text, mark = text_of(item.worse), EMOJI[wording]
    said = sentences(text)
    if EMOJIS[variant] == 1 or len(said) < 3:
        return _against(item, joined(text, " ".join([mark] * EMOJIS[variant])), text)
    marked, start = text, 0
    for sentence in (said[0], said[len(said) // 2], said[-1]):
        at = marked.find(sentence, start)
        if at >= 0:
            end = at + len(sentence)
            marked = f"{marked[:end]} {mark}{marked[end:]}"
            start = end
    return _against(item, marked, text)


def exclamation(item: Item, variant: int, wording: int) -> Contrast | None:
    """Full stops at the ends of sentences become exclamation marks; the length stays."""
    text = text_of(item.worse)
    excited = _STOP.sub(lambda stop: "！" if stop[0] == "。" else "!" if stop[0] else "", text)
    return _against(item, excited, text) if excited != text else None


def unpunctuated(item: Item, variant: int, wording: int) -> Contrast | None:
    """All punctuation characters (Unicode categories P) taken out."""
    text = text_of(item.worse)
    bare = "".join(c for c in text if not unicodedata.category(c).startswith("P"))
    return _against(item, bare, text) if bare != text else None


def _against(item: Item, text: str, reference: str) -> Contrast:
    return Contrast(answered(item.prompt, item.worse, text), (answered(item.prompt, item.worse, reference),))


PROBES = (
    Probe("list", "form", "should not rise", as_list, "The sentences of the worse answer become a list.", REMEDY),
    Probe(
        "bold", "form", "should not rise", bold, "One word in every sentence of the worse answer is set bold.", REMEDY
    ),
    Probe(
        "heading",
        "form",
        "should not rise",
        heading,
        "The worse answer gets a heading; the reference has the same word without the mark.",
        REMEDY,
        wordings=len(HEADINGS),
    ),
    Probe(
        "emoji",
        "form",
        "should not rise",
        emoji,
        "One and three emoji are added to the worse answer.",
        REMEDY,
        tuple(Variant(f"{count}", float(count)) for count in EMOJIS),
        wordings=len(EMOJI),
    ),
    Probe("exclamation", "form", "should not rise", exclamation, "Full stops become exclamation marks.", REMEDY),
    Probe(
        "no punctuation",
        "form",
        "should not rise",
        unpunctuated,
        "All punctuation is taken out of the worse answer.",
        "Add unpunctuated copies of answers as rejected.",
    ),
)
