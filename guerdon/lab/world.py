"""The lab's world: seeded plain-English prompts, and the reading of a prompt back into its task and facts.

The grammar in `tasks` is used both ways: `prompts` fills templates, `read` matches a text against the same templates.
Nothing is remembered between the two, so whoever judges an answer knows only what the prompt says.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from guerdon.lab.tasks import POOLS, TASKS, Task
from guerdon.types import DataError

_SLOT = re.compile(r"\{(\w+?)\}")


@dataclass(frozen=True)
class Asked:
    """What a prompt asks: its task, and the value of every slot, those that follow from the prompt included."""

    task: Task
    values: Mapping[str, str]

    def rivals(self, slot: str) -> set[str]:
        """Values of the same kind in the prompt that would be wrong in place of `slot`."""
        right = {self.values[name] for name in (*self.task.facts, *self.task.allowed) if name in self.values}
        return {v for name, v in self.values.items() if stem(name) == stem(slot)} - right


def stem(slot: str) -> str:
    """The pool a slot is drawn from: `day2` -> `day`."""
    return slot.rstrip("0123456789")


@cache
def slots(template: str) -> tuple[str, ...]:
    """Names of the slots in a template, each once, in order."""
    return tuple(dict.fromkeys(_SLOT.findall(template)))


def draw(template: str, rng: random.Random) -> dict[str, str]:
    """A value for every slot; slots of one stem get different values."""
    wanted: dict[str, list[str]] = {}
    for slot in slots(template):
        wanted.setdefault(stem(slot), []).append(slot)
    return {
        s: v for pool, names in wanted.items() for s, v in zip(names, rng.sample(POOLS[pool], len(names)), strict=True)
    }


def stream(seed: int) -> Iterator[str]:
    """Endless seeded prompts, tasks drawn evenly; repeats are possible."""
    rng = random.Random(f"prompts {seed}")
    while True:
        template = rng.choice(rng.choice(TASKS).asks)
        yield template.format(**draw(template, rng))


def prompts(n: int, seed: int, exclude: Collection[str] = ()) -> list[str]:
    """`n` different prompts, none of them in `exclude`. The grammar holds many millions.

    Raises DataError when the stream keeps repeating itself before `n` are found.
    """
    seen, barren = set(exclude), 0
    found: list[str] = []
    for text in stream(seed):
        if len(found) >= n:
            break
        barren = barren + 1 if text in seen else 0
        if barren > 10_000:
            raise DataError(f"only {len(found)} new prompts can be drawn where {n} were asked for; ask for fewer")
        if not barren:
            seen.add(text)
            found.append(text)
    return found


@lru_cache(maxsize=65536)
def read(prompt: str) -> Asked | None:
    """The task and facts of a prompt of this world, recovered from its text alone; None for any other text."""
    text = " ".join(prompt.split())
    if len(text) > 1000:  # no prompt of this world is that long
        return None
    for task, pattern in _patterns():
        if match := pattern.fullmatch(text):
            values = match.groupdict()
            return Asked(task, values | task.derive(values))
    return None


@cache
def _patterns() -> tuple[tuple[Task, re.Pattern[str]], ...]:
    return tuple((task, re.compile(_pattern(ask))) for task in TASKS for ask in task.asks)


def _pattern(template: str) -> str:
    """A regular expression that a template's texts match, one named group per slot."""
    pieces, seen = [], set[str]()
    for i, piece in enumerate(_SLOT.split(template)):
        if i % 2 == 0:
            pieces.append(re.escape(piece))
        elif piece in seen:
            pieces.append(f"(?P={piece})")
        else:
            seen.add(piece)
            longest_first = sorted(POOLS[stem(piece)], key=len, reverse=True)
            pieces.append(f"(?P<{piece}>{'|'.join(map(re.escape, longest_first))})")
    return "".join(pieces)
