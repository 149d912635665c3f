"""Label Studio tasks with annotations: pairs judged by a `Pairwise` control, one task per question.

Read: full exports (`data`, `annotations`) and JSON-MIN (flat rows). `left` is the answer that the control's `toName` names
first. The two answers are found under the usual pairs of names. Written: tasks that Label Studio imports with this setup:

    <View><Text name="prompt" value="$prompt"/>
      <Pairwise name="comparison" toName="answer1,answer2"/>
      <Text name="answer1" value="$answer1"/><Text name="answer2" value="$answer2"/>
      <Choices name="verdict" toName="answer1"><Choice value="tie"/><Choice value="all bad"/><Choice value="flag"/></Choices>
      <Rating name="strength" toName="answer1" maxRating="3"/><TextArea name="rationale" toName="answer1"/></View>
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from guerdon.data.containers import columns
from guerdon.data.fields import Data, number
from guerdon.data.foreign.extras import KEY, extras_of, judgement_from, name_uuid, require_agreement, text_column
from guerdon.data.foreign.limits import Unsupported
from guerdon.data.messages import answer_of, messages_of, turns_of
from guerdon.data.write import compact
from guerdon.types import DataError, Judgement, Question

PAIRS = (("answer1", "answer2"), ("response1", "response2"), ("response_1", "response_2"), ("text1", "text2"),
         ("answer_a", "answer_b"), ("response_a", "response_b"), ("completion1", "completion2"))  # fmt: skip
PROMPTS = ("prompt", "question", "instruction")
VERDICTS = {
    "tie": "tie",
    "equal": "tie",
    "both good": "tie",
    "all bad": "all_bad",
    "both bad": "all_bad",
    "flag": "flag",
}


def fits(data: Data) -> bool:
    if isinstance(data.get("data"), Mapping) and isinstance(data.get("annotations"), list):
        return True
    return "annotation_id" in data and "lead_time" in data and _pair_names(data) is not None


def judge(data: Data) -> list[Judgement]:
    """The judgements of a task, one per annotation; drafts and annotations without an answer are left out."""
    if not isinstance(data.get("data"), Mapping):
        return [_flat(data)] if any(data.get(name) in ("left", "right") for name in data) else []
    given: Mapping[str, Any] = data["data"]
    question = question_of(given, str(data.get("id", "")))
    meta = data.get("meta") or {}
    extras = meta.get(KEY) or {} if isinstance(meta, Mapping) else {}
    if extras:
        about = extras.get("question") or {}
        question = Question(
            question.prompt, question.completions, tuple(about.get("models", ())), about.get("source", ""),
            about.get("id", ""),
        )  # fmt: skip
    found = []
    for annotation in data["annotations"]:
        own = extras.get("judgements", {}).get(annotation.get("unique_id"))
        if own is not None:
            judgement = judgement_from(own, question)
            require_agreement(_choice(annotation, ()), _choice(_annotation(judgement), ()), "the annotation")
            found.append(judgement)
        elif (seen := _judgement(annotation, question, given)) is not None:
            found.append(seen)
    return found


def question_of(given: Data, id: str) -> Question:
    """The question of a task's data. Raises DataError when the two answers are not found."""
    names = _pair_names(given)
    if names is None:
        raise DataError(f"no two answers in {columns(dict(given))}; name them answer1 and answer2")
    column = text_column(given, PROMPTS)
    raw = given.get(column) if column else None
    prompt = messages_of(raw, "prompt") if isinstance(raw, list) else turns_of(raw, column or "prompt", "user")
    source = given.get("source")
    return Question(
        prompt, tuple(answer_of(given[name], name) for name in names), (),
        source if isinstance(source, str) else "", str(given.get("id", id)),
    )  # fmt: skip


def _pair_names(data: Data) -> tuple[str, str] | None:
    return next((pair for pair in PAIRS if data.get(pair[0]) is not None and data.get(pair[1]) is not None), None)


def _flat(data: Data) -> Judgement:
    selected = next(value for value in data.values() if value in ("left", "right"))
    question = question_of({name: value for name, value in data.items() if name != "id"}, str(data.get("id", "")))
    result = [{"type": "pairwise", "value": {"selected": selected}}]
    about = {"id": data.get("annotation_id"), "completed_by": data.get("annotator"), "result": result}
    found = _judgement({**data, **about}, question, data)
    assert found is not None
    return found


def _judgement(annotation: Data, question: Question, given: Data) -> Judgement | None:
    who = annotation.get("completed_by")
    rater = str((who.get("email") or who.get("id")) if isinstance(who, Mapping) else who)
    end = _seconds(annotation.get("created_at"))
    lead = number(annotation.get("lead_time"), "lead_time")
    about: dict[str, Any] = {"id": str(annotation.get("id")), "rater": rater, "kind": "human", "question": question}
    about |= {"order": (0, 1), "submitted_at": end, "shown_at": math.nan if lead is None else end - lead}
    about |= {"rationale": _first(annotation, "textarea", "text") or ""}
    if annotation.get("was_cancelled"):
        return Judgement(**about, answer="skip")
    choice = _choice(annotation, _pair_names(given) or ())
    if choice in ("all_bad", "flag"):
        return Judgement(**about, answer="all_bad" if choice == "all_bad" else "flag")
    ranks = {"left": (0.0, 1.0), "right": (1.0, 0.0), "tie": (0.0, 0.0)}.get(choice)
    strength = number(_first(annotation, "rating", "rating"), "rating")
    return Judgement(**about, answer="ranked", ranks=ranks, strength=strength) if ranks else None


def _choice(annotation: Data, names: Sequence[str]) -> str:
    """`left`, `right`, `tie`, `all_bad`, `flag` or "": what the controls of an annotation say."""
    if annotation.get("was_cancelled"):
        return "skip"
    for item in annotation.get("result") or ():
        value = item.get("value") or {}
        if item.get("type") == "pairwise" and value.get("selected") in ("left", "right"):
            shown = item.get("to_name")
            shown = shown.split(",") if isinstance(shown, str) else list(shown or ())
            is_turned = len(names) == 2 and shown == [names[1], names[0]]
            return {"left": "right", "right": "left"}[value["selected"]] if is_turned else str(value["selected"])
        if item.get("type") == "choices":
            for choice in value.get("choices") or ():
                if str(choice).lower() in VERDICTS:
                    return VERDICTS[str(choice).lower()]
    return ""


def _first(annotation: Data, kind: str, name: str) -> Any:
    for item in annotation.get("result") or ():
        if item.get("type") == kind:
            value = (item.get("value") or {}).get(name)
            return value[0] if isinstance(value, list) and value else value
    return None


def to_task(question: Question, judgements: Sequence[Judgement]) -> dict[str, Any]:
    """The task of a question with its judgements as annotations. Raises Unsupported for more than two candidates."""
    if len(question.completions) > 2:
        raise Unsupported(
            f"asks about {len(question.completions)} answers, and Label Studio's Pairwise holds two; use --format argilla"
        )
    about = {"id": question.id, "source": question.source, "models": list(question.models)}
    return {
        "data": {
            "id": question.id,
            "prompt": compact(question.prompt, "user"),
            "answer1": compact(question.completions[0], "assistant"),
            "answer2": compact(question.completions[1], "assistant"),
        },
        "meta": {KEY: {"question": about, "judgements": {name_uuid(j.id): extras_of(j) for j in judgements}}},
        "annotations": [_annotation(judgement) for judgement in judgements],
    }


def _annotation(judgement: Judgement) -> dict[str, Any]:
    times = judgement.shown_at, judgement.submitted_at
    row: dict[str, Any] = {
        "unique_id": name_uuid(judgement.id),
        "was_cancelled": judgement.answer == "skip",
        "ground_truth": False,
        "result": list(_result(judgement)),
    }
    if judgement.rater.isdecimal():  # Label Studio knows its users by number
        row["completed_by"] = int(judgement.rater)
    if not any(map(math.isnan, times)):
        row["lead_time"] = times[1] - times[0]
    if not math.isnan(times[1]):
        row["created_at"] = datetime.fromtimestamp(times[1], UTC).isoformat()
    return row


def _result(judgement: Judgement) -> Iterator[dict[str, Any]]:
    ranks = judgement.ranks
    if ranks and ranks[0] != ranks[1]:
        value: dict[str, Any] = {"selected": "left" if ranks[0] < ranks[1] else "right"}
        yield {"from_name": "comparison", "to_name": "answer1,answer2", "type": "pairwise", "value": value}
    verdict = "tie" if ranks and ranks[0] == ranks[1] else {"all_bad": "all bad", "flag": "flag"}.get(judgement.answer)
    if verdict:
        yield {"from_name": "verdict", "to_name": "answer1", "type": "choices", "value": {"choices": [verdict]}}
    if judgement.strength is not None:
        value = {"rating": judgement.strength}
        yield {"from_name": "strength", "to_name": "answer1", "type": "rating", "value": value}
    if judgement.rationale:
        value = {"text": [judgement.rationale]}
        yield {"from_name": "rationale", "to_name": "answer1", "type": "textarea", "value": value}


def _seconds(value: object) -> float:
    if not isinstance(value, str):
        return math.nan
    try:
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return math.nan
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
