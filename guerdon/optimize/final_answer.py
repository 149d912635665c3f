r"""What a text gives as its final answer, and whether two answers are the same: plain rules, no model.

The final answer of a text is, in this order: the last `\boxed{...}`; what follows the last `####` (GSM8K); what follows
the last `answer is`, `answer:` or `answer =` on its line; else the last number of the text when a number is expected, and
its last line that is not blank otherwise. Only one place counts, so listing many answers does not help.

Numbers are compared as exact fractions: `1,000`, `1000.0`, `1e3` and `$1000` are one number, so are `1/2`, `0.5`, `\frac{1}{2}`.
A percent sign is a unit and is dropped, as in the MATH benchmark (Hendrycks et al. 2021, arXiv 2103.03874): `50%` is `50`.
Other answers are compared without case, surrounding punctuation, markup and the amount of white space.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
_NUMBER = re.compile(rf"[-+]?{_DIGITS}(?:\s?/\s?{_DIGITS})?")
_NUMBER_IN_TEXT = re.compile(rf"(?<![\w.,])(?<!\d[-+/])[-+]?\$?{_DIGITS}(?:\s?/\s?{_DIGITS})?(?!\w)")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_MARKED = re.compile(r"\banswer(?:\s+is\b\s*:?|\s*[:=])[ \t*]*(\S[^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_EDGES = " \t\r\n.,;:!?'\"`*_$()[]{}“”‘’"
_MOST_DIGITS = 100  # characters of a number; longer ones are compared as text


def grade(text: str, expected: str) -> bool:
    """True when the final answer of `text` is `expected`."""
    return any(same_answer(given, expected) for given in final_answers(text, number(expected) is not None))


def final_answers(text: str, wants_number: bool) -> list[str]:
    """The readings of the one place where the text gives its final answer, most literal first; [] for a blank text.

    `18 dollars. That is all` is read as the whole line, as its first sentence, and, when a number is wanted, as 18.
    """
    if (boxed := _last_boxed(text)) is not None:
        return [boxed]
    after = text.rpartition("####")[2].strip().split("\n")[0] if "####" in text else ""
    marked = [after] if after else _MARKED.findall(text)[-1:]
    if marked:
        readings = [marked[0], _SENTENCE_END.split(marked[0])[0]]
        if wants_number and (match := _NUMBER_IN_TEXT.search(_plain(marked[0]))):
            readings.append(match[0])
        return readings
    if wants_number:
        return _NUMBER_IN_TEXT.findall(_plain(text))[-1:]
    return [line for line in text.splitlines() if line.strip()][-1:]


def same_answer(given: str, expected: str) -> bool:
    """True when both are the same number, or the same words."""
    a, b = number(given), number(expected)
    if a is not None and b is not None:
        return a == b
    return _words(given) == _words(expected)


def canonical(text: str, wants_number: bool) -> str | None:
    """One spelling for the final answer of `text`, equal for answers that are the same; None when it gives none.

    The most literal reading that is a number, else, unless a number is wanted, the words of the first sentence.
    """
    readings = final_answers(text, wants_number)
    exact = next((value for reading in readings if (value := number(reading)) is not None), None)
    if exact is not None:
        return str(exact)
    words = _words(readings[1] if len(readings) > 1 else readings[0]) if readings and not wants_number else ""
    return words or None


def number(text: str) -> Fraction | None:
    """The exact value of a text that is a number and nothing else but currency, percent and final full stop; else None."""
    plain = _plain(text).strip().strip("$").removesuffix("%").strip().removesuffix(".")
    plain = re.sub(r"^([-+]?)\$", r"\1", plain)
    if len(plain) > _MOST_DIGITS or not _NUMBER.fullmatch(plain):
        return None
    above, slash, below = plain.replace(",", "").partition("/")
    denominator = Fraction(below.strip()) if slash else Fraction(1)
    return Fraction(above.strip()) / denominator if denominator else None


def _last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}` or `\fbox{...}`, braces balanced; None without one."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    opened = text.index("{", start)
    depth = 0
    for position in range(opened, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if not depth:
            return text[opened + 1 : position]
    return None


def _plain(text: str) -> str:
    """Compatibility forms unified, minus signs and LaTeX fractions written plainly."""
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2044", "/")
    text = _LATEX_TEXT.sub(r"\1", text.replace("\\$", "$").replace("\\%", "%").replace("{,}", ","))
    return _LATEX_FRACTION.sub(r"\1/\2", text)


def _words(text: str) -> str:
    words = " ".join(_plain(text).casefold().split())
    return words.strip(_EDGES) or words
