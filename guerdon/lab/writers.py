"""Writers of different quality: each turns a prompt into a completion, well or badly in its own way.

A writer is a row of knobs. Quality does not follow from how a text looks: of the long writers one is good and one is bad,
and so it is for the short, the courteous and the formatted ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from guerdon.lab import phrases, tasks
from guerdon.lab.world import Asked, draw, read, slots, stem


@dataclass(frozen=True)
class Writer:
    """How one writer answers. Shares are probabilities in [0, 1]; counts are expected numbers and may be fractions."""

    name: str
    accuracy: float = 0.9
    """share of the needed values that are right; a wrong one is a rival from the prompt or a value out of the blue"""
    misreading: float = 0.05
    """share of answers to another question than the one asked"""
    coverage: float = 0.95
    """share of the needed statements that are made at all"""
    terse: float = 0.0
    """share of answers given in as few words as will do"""
    courtesy: float = 1.5
    """count of courteous phrases"""
    detail: float = 0.5
    """count of true sentences beyond what was asked"""
    invention: float = 0.1
    """count of sentences with made-up values"""
    filler: float = 0.1
    """count of sentences about nothing"""
    repetition: float = 0.0
    """share of sentences said again"""
    echo: float = 0.0
    """share of answers that begin by repeating the question"""
    flattery: float = 0.0
    """share of answers that praise the asker"""
    formatting: float = 0.1
    """share of answers with a list or with bold values"""
    garble: float = 0.0
    """share of words whose letters are shuffled"""

    def write(self, prompt: str, rng: random.Random) -> str:
        """A completion for any prompt; for one that is not of the lab, only general remarks about its words."""
        asked = read(prompt)
        body = self._answer(asked, rng) if asked else _remarks(prompt, rng)
        for filler in rng.sample(phrases.FILLER, min(_count(self.filler, rng), len(phrases.FILLER))):
            body.insert(rng.randint(0, len(body)), filler)
        body = [again for s in body for again in ([s, s] if rng.random() < self.repetition else [s])]
        body = [" ".join(_garbled(w, rng) if rng.random() < self.garble else w for w in s.split()) for s in body]
        if rng.random() < self.echo:
            body.insert(0, prompt.split(". ")[-1])
        if rng.random() < self.flattery:
            body.insert(0, rng.choice(phrases.FLATTERY))
        if rng.random() < self.formatting and len(body) > 1:
            body = ["\n" + "\n".join(f"- {sentence}" for sentence in body) + "\n"]
        return _with_courtesies(body, _count(self.courtesy, rng), rng)

    def _answer(self, asked: Asked, rng: random.Random) -> list[str]:
        """The sentences that answer the question, in order, with details and inventions behind them."""
        if rng.random() < self.misreading:
            asked = _misread(asked, rng)
        said = dict(asked.values)
        for slot in asked.task.facts:
            if rng.random() >= self.accuracy:
                said[slot] = _wrong(asked, slot, rng)
        bold = {s: f"**{v}**" for s, v in said.items()} if rng.random() < self.formatting / 2 else said
        if rng.random() < self.terse:
            sentences = [asked.task.terse.format(**bold)]
        else:
            groups = [g for g in asked.task.answers if rng.random() < self.coverage] or [rng.choice(asked.task.answers)]
            sentences = [rng.choice(group).format(**bold) for group in groups]
        usable = [d for d in asked.task.details if set(slots(d)) <= said.keys()]
        details = rng.sample(usable, min(_count(self.detail, rng), len(usable)))
        sentences += [d.format(**said) for d in details]
        for _ in range(_count(self.invention, rng)):
            made_up = rng.choice([d for d in usable if d not in details] or usable)
            sentences.append(made_up.format(**{s: rng.choice(tasks.POOLS[stem(s)]) for s in slots(made_up)}))
        return [s[0].upper() + s[1:] for s in sentences]


WRITERS: tuple[Writer, ...] = (
    Writer("careful", accuracy=0.97, misreading=0.01, courtesy=2.0, detail=0.7, invention=0.0, filler=0.0),
    Writer("thorough", accuracy=0.95, coverage=1.0, courtesy=1.2, detail=2.2, invention=0.1, formatting=0.4),
    Writer("curt", accuracy=0.95, terse=0.7, courtesy=0.3, detail=0.1, invention=0.0, filler=0.0),
    Writer("warm", accuracy=0.85, misreading=0.1, courtesy=2.8, detail=0.6, flattery=0.4),
    Writer("hasty", accuracy=0.55, misreading=0.2, coverage=0.85, terse=0.4, courtesy=0.8, detail=0.2, echo=0.5),
    Writer("slick", accuracy=0.4, misreading=0.3, courtesy=2.2, detail=1.0, formatting=0.6, flattery=0.3, echo=0.6),
    Writer("inventive", accuracy=0.8, misreading=0.1, courtesy=1.2, detail=0.4, invention=1.5),
    Writer("absent", accuracy=0.9, misreading=0.65, courtesy=1.5, detail=0.8, echo=0.6),
    Writer("rambling", accuracy=0.75, misreading=0.15, courtesy=1.0, detail=0.8, filler=1.6, repetition=0.1, echo=0.2),
    Writer(
        "careless", accuracy=0.6, misreading=0.25, coverage=0.75, courtesy=0.8, repetition=0.25, garble=0.08, echo=0.5
    ),
)

SOUND = WRITERS[:4]
"""Writers whose answers are mostly right: the ones to learn from."""


def _count(expected: float, rng: random.Random) -> int:
    """A whole number with the given mean, one of the two nearest."""
    return int(expected) + (rng.random() < expected % 1)


def _wrong(asked: Asked, slot: str, rng: random.Random) -> str:
    """A wrong value of the right kind: mostly one that the prompt gives for something else."""
    rivals = sorted(asked.rivals(slot))
    if rivals and rng.random() < 0.7:
        return rng.choice(rivals)
    return rng.choice([v for v in tasks.POOLS[stem(slot)] if v != asked.values[slot]])


def _misread(asked: Asked, rng: random.Random) -> Asked:
    """Another question, about the same values as far as it has slots of the same name."""
    task = rng.choice([task for task in tasks.TASKS if task is not asked.task])
    ask = rng.choice(task.asks)
    values = draw(ask, rng)
    values |= {slot: asked.values[slot] for slot in values if slot in asked.values}
    return Asked(task, values | task.derive(values))


def _with_courtesies(body: list[str], n: int, rng: random.Random) -> str:
    first = rng.sample(phrases.COURTESIES_FIRST, min((n + rng.randint(0, 1)) // 2, len(phrases.COURTESIES_FIRST)))
    first.sort(key=phrases.COURTESIES_FIRST.index)  # a greeting comes before an offer of help
    last = rng.sample(phrases.COURTESIES_LAST, min(n - len(first), len(phrases.COURTESIES_LAST)))
    return " ".join([*first, *body, *last]).replace(" \n", "\n").replace("\n ", "\n").strip()


def _garbled(word: str, rng: random.Random) -> str:
    return "".join(rng.sample(word, len(word)))


def _remarks(prompt: str, rng: random.Random) -> list[str]:
    picked = rng.sample(prompt.split(), min(3, len(prompt.split())))
    return [f"About {' and '.join(picked)} one can say this and that." if picked else "There is nothing to answer."]
