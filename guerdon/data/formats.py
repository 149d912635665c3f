"""What the columns of a row mean: one function per format, from a raw row to a `Comparison`.

In: raw rows. Out: comparisons without `id` and `source`, which the reader fills in. A format's function raises
DataError when the structure cannot be read and `Unusable` when it can but holds no preference.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from guerdon.data import judgements
from guerdon.data.containers import Row, columns, describe
from guerdon.data.fields import Data, answers_of, label, need, need_list, number, strength_of
from guerdon.data.foreign import argilla, label_studio, lmarena, openai
from guerdon.data.labels import labels_of
from guerdon.data.messages import (
    Messages,
    Unusable,
    answer_of,
    common_start,
    from_text,
    is_transcript,
    sharegpt_of,
    text_of,
    transcript_of,
    turns_of,
)
from guerdon.types import Comparison, ConfigError, DataError, Judgement


class Format(NamedTuple):
    """`needs` is what people are told, `fits` looks at a raw row, `convert` reads it.

    `judge` is set for formats that hold judgements: it gives those of a row, from which labels are made over all rows.
    """

    needs: str
    fits: Callable[[Data], bool]
    convert: Callable[[Data], Comparison]
    judge: Callable[[Data], list[Judgement]] | None = None


def guerdon(data: Data) -> Comparison:
    """Our own rows: everything a `Comparison` holds, by the same names."""
    given = need_list(data, "completions")
    ranks = need_list(data, "ranks")
    if len(ranks) != len(given):
        raise DataError(f"{len(given)} completions but {len(ranks)} ranks; give one rank for each completion")
    weight = number(data.get("weight"), "weight")
    if weight is not None and not 0 <= weight < math.inf:
        raise DataError(f"'weight' is {weight}; write a finite number that is not negative")
    annotator = data.get("annotator")
    return Comparison(
        prompt=turns_of(data.get("prompt"), "prompt", "user"),
        completions=answers_of(given, "completions"),
        ranks=tuple(label(rank, "ranks") for rank in ranks),
        strength=strength_of(data.get("strength"), "strength"),
        annotator=None if annotator is None else str(annotator),
        weight=1.0 if weight is None else weight,
        probabilities=tuple(label(value, "probabilities") for value in data.get("probabilities") or ()),
    )


def trl(data: Data) -> Comparison:
    """TRL preference rows: text or messages, with or without `prompt` and `margin`.

    Message lists may repeat the prompt or not, also when the prompt is text. Without a prompt column the prompt is the
    common leading messages; whole texts cannot be parted, so their prompt is empty.
    """
    prompt = turns_of(data.get("prompt"), "prompt", "user")
    sides = [answer_of(need(data, side), side) for side in ("chosen", "rejected")]
    lists = all(isinstance(data[side], list | tuple) for side in ("chosen", "rejected"))
    shared = common_start(sides) if lists else 0
    start = sides[0][:shared]
    if lists and start and (not prompt or (isinstance(data["prompt"], str) and prompt[0] in start)):
        return _pair(start, [side[shared:] for side in sides], data)
    return _pair(prompt, [_without(prompt, side) for side in sides], data)


def hh(data: Data) -> Comparison:
    """Anthropic HH rows: `chosen` and `rejected` are whole transcripts, or follow a transcript in `prompt`."""
    head = data.get("prompt") or ""
    sides = []
    for side in ("chosen", "rejected"):
        text = text_of(need(data, side) or "", side)
        if not text.strip():
            raise Unusable("empty answer")
        sides.append(transcript_of(text_of(head, "prompt") + text, side))
    shared = common_start(sides)
    return _pair(sides[0][:shared], [side[shared:] for side in sides], data)


def scored(data: Data) -> Comparison:
    """`text` and `score` lists of equal length, a higher score is better; strength is highest minus lowest score."""
    texts, scores = need_list(data, "text"), need_list(data, "score")
    if len(texts) != len(scores):
        raise DataError(f"{len(texts)} texts but {len(scores)} scores; give one score for each text")
    values = [label(score, "score") for score in scores]
    whole = [text_of(text, f"text[{i}]") for i, text in enumerate(texts)]
    if len(whole) < 2:
        raise Unusable("fewer than two answers")
    if all(map(is_transcript, whole)):
        sides = [transcript_of(text, "text") for text in whole]
        shared = common_start(sides)
        prompt, answers = sides[0][:shared], [side[shared:] for side in sides]
    else:
        prompt, answers = (), [answer_of(text, "text") for text in whole]
    best_first = sorted(set(values), reverse=True)
    ranks = tuple(float(best_first.index(value)) for value in values)
    return Comparison(prompt, tuple(answers), ranks, strength=max(values) - min(values))


def sharegpt(data: Data) -> Comparison:
    """LLaMA-Factory sharegpt rows: `conversations` and one answer each in `chosen` and `rejected`, as from/value."""
    prompt = sharegpt_of(need(data, "conversations"), "conversations")
    return _pair(prompt, [_sharegpt_answer(data, side) for side in ("chosen", "rejected")], data)


def _sharegpt_answer(data: Data, side: str) -> Messages:
    value = need(data, side)
    return answer_of(value, side) if value is None or isinstance(value, str) else sharegpt_of(value, side)


def alpaca(data: Data) -> Comparison:
    """LLaMA-Factory alpaca rows: instruction, input, history, and chosen/rejected or `output` listed best first."""
    prompt = turns_of(data.get("system"), "system", "system")
    for turn in data.get("history") or []:
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise DataError(f"'history' holds {describe(turn)}; write pairs of user and assistant text")
        prompt += from_text(text_of(turn[0], "history"), "user") + from_text(text_of(turn[1], "history"), "assistant")
    parts = [text_of(need(data, "instruction"), "instruction"), text_of(data.get("input") or "", "input")]
    prompt += turns_of("\n".join(filter(None, parts)), "instruction", "user")
    if isinstance(data.get("output"), list | tuple):
        answers = answers_of(data["output"], "output")
        return Comparison(prompt, answers, tuple(map(float, range(len(answers)))))
    return _pair(prompt, [answer_of(need(data, side), side) for side in ("chosen", "rejected")], data)


def nemo(data: Data) -> Comparison:
    """NeMo RL rows: `context` and `completions`, each with `rank` (0 is best) and `completion`."""
    items = need_list(data, "completions")
    for item in items:
        if not isinstance(item, Mapping) or "rank" not in item or "completion" not in item:
            raise DataError(f"'completions' holds {describe(item)}; write objects with 'rank' and 'completion'")
    answers = answers_of([item["completion"] for item in items], "completions")
    ranks = tuple(label(item["rank"], "rank") for item in items)
    return Comparison(turns_of(need(data, "context"), "context", "user"), answers, ranks)


def helpsteer3(data: Data) -> Comparison:
    """HelpSteer3 rows: `overall_preference` from -3 (response1 much better) to 3; its size is the strength."""
    value = label(need(data, "overall_preference"), "overall_preference")
    answers = tuple(answer_of(need(data, name), name) for name in ("response1", "response2"))
    ranks = (float(value > 0), float(value < 0))
    return Comparison(turns_of(need(data, "context"), "context", "user"), answers, ranks, strength=abs(value))


def _has(*names: str) -> Callable[[Data], bool]:
    return lambda data: all(name in data for name in names)


def _fits_hh(data: Data) -> bool:
    opening = data.get("prompt") or data.get("chosen")
    return _has("chosen", "rejected")(data) and is_transcript(opening)


def _fits_alpaca(data: Data) -> bool:
    return "instruction" in data and (isinstance(data.get("output"), list) or _has("chosen", "rejected")(data))


def _judged(needs: str, fits: Callable[[Data], bool], judge: Callable[[Data], list[Judgement]]) -> Format:
    """A format of judgements. Row by row, as scoring reads it, it is the first judgement that can be a label."""

    def convert(data: Data) -> Comparison:
        found = labels_of(judge(data), "raw", "both").comparisons
        if not found:
            raise Unusable("no label")
        return found[0]

    return Format(needs, fits, convert, judge)


# Looked through in this order: a format above another one is the more particular of the two.
FORMATS: dict[str, Format] = {
    "judgements": _judged(
        "judgement, rater, question, answer", judgements.is_judgement, lambda data: [judgements.from_row(data)]
    ),
    "lmarena": _judged("model_a, model_b, winner, conversation_a, conversation_b", lmarena.fits, lmarena.judge),
    "label-studio": _judged("data with answer1, answer2, and annotations", label_studio.fits, label_studio.judge),
    "argilla": _judged("fields and responses, or columns NAME.responses", argilla.fits, argilla.judge),
    "openai": Format("input, preferred_output, non_preferred_output", openai.fits, openai.convert),
    "guerdon": Format("completions, ranks and optionally prompt", _has("completions", "ranks"), guerdon),
    "nemo": Format("context, completions [{rank, completion}]", _has("context", "completions"), nemo),
    "sharegpt": Format("conversations, chosen, rejected", _has("conversations", "chosen", "rejected"), sharegpt),
    "alpaca": Format("instruction and chosen, rejected or a list output", _fits_alpaca, alpaca),
    "scored": Format("text and score, both lists", _has("text", "score"), scored),
    "helpsteer3": Format(
        "context, response1, response2, overall_preference",
        _has("context", "response1", "response2", "overall_preference"),
        helpsteer3,
    ),
    "hh": Format("chosen, rejected that start with 'Human:'", _fits_hh, hh),
    "trl": Format("chosen, rejected and optionally prompt, margin", _has("chosen", "rejected"), trl),
}


def recognise(rows: Sequence[Row]) -> str:
    """The first format that fits more than half of these rows, so that one bad row is not taken for another format."""
    for name, form in FORMATS.items():
        if 2 * sum(form.fits(row.data) for row in rows) > len(rows):
            return name
    needs = "; ".join(f"{name} needs {form.needs}" for name, form in FORMATS.items())
    raise DataError(
        f"{rows[0].place}: no format fits the columns {columns(rows[0].data)}; "
        f"rename them to what a format needs ({needs})"
    )


def named(name: str) -> Format:
    """The format of that name. Raises ConfigError for an unknown one."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"unknown format {name!r}; {hint}choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _without(prompt: Messages, answer: Messages) -> Messages:
    repeats = bool(prompt) and len(answer) > len(prompt) and answer[: len(prompt)] == prompt
    return answer[len(prompt) :] if repeats else answer


def _pair(prompt: Messages, sides: Sequence[Messages], data: Data) -> Comparison:
    chosen, rejected = sides
    return Comparison(prompt, (chosen, rejected), (0.0, 1.0), strength=strength_of(data.get("margin"), "margin"))
