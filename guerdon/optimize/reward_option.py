"""How a reward is spelled on the command line, one `--reward` per part, and in the environment of other trainers.

runs/hh/model                     a reward model: folder, hub id, or several between commas for an ensemble
http://127.0.0.1:8000             a reward server
lab-gold                          the gold reward of the lab
model=runs/a/model:1.0            the same, with a weight; what stands after the last colon is always the weight
length=words:10:60:0.1            0.1 less for every word outside 10 to 60; also tokens
format=<think>.*</think>.*:0.2    0.2 when the whole answer matches the regular expression
answer=answers.jsonl:1.0          1 when the final answer is right; `exact=` when the whole text must be the answer
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from guerdon.client import Client
from guerdon.optimize.rewards import Masked, WeightedSum
from guerdon.optimize.verifiable import Answer, Format, LabGold, Length
from guerdon.types import ConfigError, GuerdonError, Scorer

FORMS = {
    "model": "model=FOLDER_OR_URL:WEIGHT",
    "length": "length=words:LOW:HIGH:WEIGHT",
    "format": "format=REGEX:WEIGHT",
    "answer": "answer=FILE:WEIGHT",
    "exact": "exact=FILE:WEIGHT",
    "lab-gold": "lab-gold:WEIGHT",
}
_KIND = re.compile(r"([A-Za-z][\w-]*)=(.*)", re.DOTALL)
_URL = re.compile(r"https?://", re.IGNORECASE)


class Part(NamedTuple):
    """One spelled part: `kind` is a key of `FORMS`."""

    kind: str
    value: str
    weight: float


def parse_rewards(
    texts: Sequence[str],
    *,
    load: Callable[[str], Scorer],
    connect: Callable[[str], Scorer] = Client,
    count_tokens: Callable[[str], int] | None = None,
    masked: Masked = "mask",
    option: str = "reward",
) -> WeightedSum:
    """The reward that the parts spell together; its parts are named by kind: `model`, `model-2`, `length`, ...

    load          a reward model from its path; called once per path, however often it is named
    connect       a server from its address
    count_tokens  tokens in a text, where the policy's tokenizer is known; `length=tokens` needs it
    masked        what becomes of a row that a part could not score, see `WeightedSum`
    option        where the parts were given, for messages: reward, held-out

    Raises ConfigError naming the part that cannot be used, and what `load` and `connect` raise.
    """
    if not texts:
        raise ConfigError(f"no {option} is given; name a reward model, a server or a rule: --{option} runs/hh/model")
    parts: dict[str, tuple[Scorer, float]] = {}
    for text in texts:
        try:
            part = parse_part(text)
            scorer = _scorer(part, load, connect, count_tokens)
        except GuerdonError as error:
            raise ConfigError(f"{option} '{text.strip()}': {error}") from error
        number = sum(name == part.kind or name.startswith(f"{part.kind}-") for name in parts) + 1
        name = part.kind if number == 1 else f"{part.kind}-{number}"
        parts[name] = (scorer, part.weight)
    return WeightedSum(parts, masked)


def parse_part(text: str) -> Part:
    """One part from its spelling. Raises ConfigError for an unknown kind and a missing or unusable weight."""
    text = text.strip()
    if text == "lab-gold":
        return Part("lab-gold", "", 1.0)
    if text.startswith("lab-gold:"):
        return Part("lab-gold", "", _weight(text.removeprefix("lab-gold:")))
    named = None if _URL.match(text) else _KIND.fullmatch(text)
    if named is None:
        _require_bare(text)
        return Part("model", text, 1.0)
    kind, rest = named[1], named[2]
    if kind not in FORMS or kind == "lab-gold":
        close = difflib.get_close_matches(kind, FORMS, n=1)
        hint = f"did you mean {FORMS[close[0]]}?" if close else f"write one of {', '.join(FORMS.values())}"
        raise ConfigError(f"there is no part called '{kind}'; {hint}")
    value, colon, number = rest.rpartition(":")
    if not colon or not value:
        raise ConfigError(f"needs a value and a weight; write {FORMS[kind]}")
    if kind == "model" and re.fullmatch(r"https?://[^/:]+|https?", value) and not number.startswith("//"):
        raise ConfigError(f"is :{number} the port or the weight? write both, as in model={value}:{number}:1.0")
    return Part(kind, value, _weight(number))


def _require_bare(text: str) -> None:
    """A bare part is a path or an address, without a weight."""
    if not text:
        raise ConfigError("is empty; name a reward model, a server or a rule")
    if close := difflib.get_close_matches(text, ["lab-gold"], n=1, cutoff=0.8):
        raise ConfigError(f"is not known; did you mean {close[0]}?")
    if not _URL.match(text) and re.search(r":[-+.\de]+$", text):
        raise ConfigError(f"a part with a weight needs its kind; write model={text}")


def _weight(number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise ConfigError(f"what stands after the last colon is the weight, and '{number}' is no finite number")
    return weight


def _scorer(
    part: Part,
    load: Callable[[str], Scorer],
    connect: Callable[[str], Scorer],
    count_tokens: Callable[[str], int] | None,
) -> Scorer:
    if part.kind == "length":
        return _length(part.value, count_tokens)
    if part.kind == "format":
        return Format(part.value)
    if part.kind in ("answer", "exact"):
        return Answer.read(part.value, whole=part.kind == "exact")
    if part.kind == "lab-gold":
        return LabGold()
    return connect(part.value) if _URL.match(part.value) else load(part.value)


def _length(value: str, count_tokens: Callable[[str], int] | None) -> Length:
    unit, _, limits = value.partition(":")
    low, _, high = limits.partition(":")
    if unit not in ("words", "tokens") or not (low.isdigit() and high.isdigit()):
        raise ConfigError(f"the length must be words:LOW:HIGH or tokens:LOW:HIGH in whole numbers, not '{value}'")
    return Length("words" if unit == "words" else "tokens", int(low), int(high), count_tokens)
