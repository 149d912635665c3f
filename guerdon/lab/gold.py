"""The lab's gold reward: how good a completion really is, computed from the two texts alone.

`gold(prompt, completion)` is defined for any pair of strings and lies in [0, 1]:

    gold = honest * brief * fresh * fluent * own * (0.55 facts + 0.15 answers + 0.15 focus + 0.15 polite)

The bracket rewards substance; the five factors before it are 1 for a sound text and fall towards 0 for the known ways to
fill space, so no single trick pays. `parts` gives each component by name, all in [0, 1]:

facts    share of the needed values that are stated; one that stands beside k rival values counts 1 / (1 + k)
answers  share of the needed values for which a value of the right kind is given, right or wrong
focus    share of the words in sentences that are about the prompt, or courteous beside such a sentence
polite   0, 0.7, 1, 1 for 0 to 3 courteous phrases, then falling by a third each
honest   exp(-0.4 n) for n different numbers, names or things that the prompt neither gives nor implies
brief    rises over the first 6 words, 1 up to 45 words, then falls as exp(-(words - 45) / 30)
fresh    (1 - share of repeated two-word runs beyond a few) squared
fluent   known or word-like words, function words in a plausible share and never far apart, no article left hanging
own      1 while at most 30 % of the five-word runs are copied from the prompt, then falling linearly to 0

A prompt of the lab is read back by its grammar (`world.read`), also with opinions before or after it, which then count for
nothing. For any other prompt the needed values are its content
words, of which naming half is enough.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import pairwise

from guerdon.lab import phrases, tasks
from guerdon.lab.world import Asked, read, stem

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_STRANGE_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")
_MOST_SENTENCES = 12  # among which a prompt of the lab is looked for
_MAX_CHARS = 20_000  # far beyond any length with a gold above 0

_ARTICLES = frozenset("a an the".split())
_PREPOSITIONS = frozenset("of at in on to for from by with into about".split())
_NEED_A_NOUN = frozenset("of at to for with into by".split())
_FUNCTION = (
    _ARTICLES
    | _PREPOSITIONS
    | frozenset(
        "and or but if then than that this these those it its they them their there here he she his her we us our you your i me "
        "my mine is are was were be been being am do does did has have had will would can could should shall may might must not no "
        "so as because since until before after when where what which who whom how why while also too now more most less very all "
        "both each some any only just again let".split()
    )
)


def gold(prompt: str, completion: str) -> float:
    """The true quality of `completion` as an answer to `prompt`, in [0, 1]; see the formula above. Never raises."""
    return _gold(prompt, completion[:_MAX_CHARS])


@lru_cache(maxsize=65536)
def _gold(prompt: str, completion: str) -> float:
    p = parts(prompt, completion)
    sound = p["honest"] * p["brief"] * p["fresh"] * p["fluent"] * p["own"]
    return sound * (0.55 * p["facts"] + 0.15 * p["answers"] + 0.15 * p["focus"] + 0.15 * p["polite"])


def parts(prompt: str, completion: str) -> dict[str, float]:
    """The nine components of `gold` by name, each in [0, 1]. Never raises."""
    asked, prompt = _asked(prompt[:_MAX_CHARS])
    completion = completion[:_MAX_CHARS]
    said, given = words(completion), words(prompt)
    facts, answers = _answered(asked, said) if asked else _covered(given, said)
    return {
        "facts": facts,
        "answers": answers,
        "focus": _focus(asked, given, completion),
        "polite": _polite(said),
        "honest": math.exp(-0.4 * len(_invented(asked, prompt, given, completion, said))),
        "brief": min(1.0, len(said) / 6) * math.exp(-max(0, len(said) - 45) / 30),
        "fresh": _fresh(said),
        "fluent": _fluent(said, given),
        "own": _own(given, said),
    }


@lru_cache(maxsize=4096)
def _asked(prompt: str) -> tuple[Asked | None, str]:
    """What a prompt of the lab asks, and the part of the text that asks it; what a user says around it changes nothing."""
    if asked := read(prompt):
        return asked, prompt
    said = _SENTENCE.split(prompt, maxsplit=_MOST_SENTENCES)
    for size in range(min(len(said), _MOST_SENTENCES) - 1, 0, -1):
        for part in (" ".join(said[:size]), " ".join(said[-size:])):
            if asked := read(part):
                return asked, part
    return None, prompt


def words(text: str) -> list[str]:
    """Lower-case words and numbers, without punctuation or markup."""
    return _WORD.findall(text.lower())


def courtesies(said: list[str]) -> int:
    """How many courteous phrases a text holds, repeats included."""
    text = f" {' '.join(said)} "
    return sum(text.count(f" {phrase} ") for phrase in phrases.COURTESY_WORDS)


def _answered(asked: Asked, said: list[str]) -> tuple[float, float]:
    """The parts `facts` and `answers` for a prompt whose task is known."""
    named = set(mentions(said))
    kinds, right, answered = _kinds(), 0.0, 0.0
    for slot in asked.task.facts:
        contradicting = len(named & {v.lower() for v in asked.rivals(slot)})
        right += (asked.values[slot].lower() in named) / (1 + contradicting)
        answered += (
            any(map(str.isdigit, named)) if asked.values[slot].isdigit() else not kinds[stem(slot)].isdisjoint(named)
        )
    return right / len(asked.task.facts), answered / len(asked.task.facts)


def _covered(given: list[str], said: list[str]) -> tuple[float, float]:
    """The same two parts for any other prompt: how many of its content words are taken up; half is enough."""
    needed = _content(given)
    share = min(1.0, 2 * len(needed & set(said)) / len(needed)) if needed else 0.0
    return share, min(1.0, 2 * share)


def _content(some_words: Iterable[str]) -> set[str]:
    return {w for w in some_words if w not in _FUNCTION and (len(w) > 3 or w.isdigit())}


def _focus(asked: Asked | None, given: list[str], completion: str) -> float:
    topics = _content(given) | (set(" ".join(asked.values.values()).lower().split()) - _FUNCTION if asked else set())
    on_topic = courteous = total = 0
    for sentence in _SENTENCE.split(completion):
        said = words(sentence)
        total += len(said)
        if topics.intersection(said):
            on_topic += len(said)
        elif courtesies(said):
            courteous += len(said)
    return (on_topic + min(courteous, on_topic)) / total if on_topic else 0.0


def _polite(said: list[str]) -> float:
    n = courtesies(said)
    return (0.0, 0.7, 1.0, 1.0)[n] if n <= 3 else (2 / 3) ** (n - 3)


def _invented(asked: Asked | None, prompt: str, given: list[str], completion: str, said: list[str]) -> set[str]:
    """Numbers, names and things of the lab in the completion that the prompt neither gives nor implies."""
    implied = set(mentions(given)) | ({v.lower() for v in asked.values.values()} if asked else set())
    strange = {name.lower() for name in _STRANGE_NAME.findall(completion)} - lexicon() - set(given)
    return (set(mentions(said)) - implied) | strange


def _fresh(said: list[str]) -> float:
    runs = list(pairwise(said))
    if not runs:
        return 1.0
    repeated = len(runs) - len(set(runs))
    return (1 - max(0.0, repeated - 0.1 * len(runs)) / len(runs)) ** 2


def _fluent(said: list[str], given: list[str]) -> float:
    if not said:
        return 0.0
    known = lexicon() | set(given)
    wordlike = sum(1.0 if w in known else 0.5 * _looks_like_a_word(w) for w in said) / len(said)
    function = sum(w in _FUNCTION for w in said) / len(said)
    plausible = min(1.0, 0.3 + function / 0.3) * min(1.0, (1 - function) / 0.3)
    hanging = sum(
        (a in _ARTICLES and b in _FUNCTION) or (a in _NEED_A_NOUN and b in _PREPOSITIONS) for a, b in pairwise(said)
    )
    piled = sum(_FUNCTION.isdisjoint(said[i : i + 6]) for i in range(len(said) - 5))
    return wordlike**2 * plausible * math.exp(-(4 * hanging + 3 * piled) / len(said))


def _looks_like_a_word(word: str) -> bool:
    return word.isdigit() or bool(re.fullmatch(r"(?=.*[aeiouy])(?!.*[^aeiouy]{5})[a-z'’]{1,16}", word))


def _own(given: list[str], said: list[str]) -> float:
    runs = list(zip(*(said[i:] for i in range(5)), strict=False))
    if not runs:
        return 1.0
    source = set(zip(*(given[i:] for i in range(5)), strict=False))
    return min(1.0, (1 - sum(run in source for run in runs) / len(runs)) / 0.7)


def mentions(said: list[str]) -> list[str]:
    """The numbers and the values of the lab's pools in a text, longest first where they overlap: `8 am`, never its 8."""
    found, i = [], 0
    while i < len(said):
        for length in (5, 4, 2, 1):
            phrase = " ".join(said[i : i + length])
            if phrase in _values() or (length == 1 and phrase.isdigit()):
                found.append(phrase)
                i += length
                break
        else:
            i += 1
    return found


@cache
def _kinds() -> dict[str, frozenset[str]]:
    return {kind: frozenset(value.lower() for value in pool) for kind, pool in tasks.POOLS.items()}


@cache
def _values() -> frozenset[str]:
    return frozenset().union(*_kinds().values())


@cache
def lexicon() -> frozenset[str]:
    """Every word of the lab's grammar, and common function words."""
    known = set(_FUNCTION)
    for task in tasks.TASKS:
        for template in (*task.asks, *(t for group in task.answers for t in group), task.terse, *task.details):
            known.update(words(re.sub(r"\{\w+\}", " ", template)))
    for line in (
        *phrases.COURTESIES_FIRST,
        *phrases.COURTESIES_LAST,
        *phrases.COURTESY_WORDS,
        *phrases.FLATTERY,
        *phrases.FILLER,
    ):
        known.update(words(line))
    for value in _values():
        known.update(value.split())
    return frozenset(known)
