"""Argilla v2 records: fields, and the responses of each user to a ranking question.

Read: records as `to_dict` and `records.to_json` give them, and flattened ones (`to_list(flatten=True)`, hub sets), whose
columns are called NAME.responses and NAME.responses.users. The ranking question is the one whose values name fields; its
value is a list of names, best first, or of `{value, rank}` objects. Written: one record per question, for a dataset with
the fields `prompt`, `answer1`, `answer2`, ..., a ranking question `ranking` over the answers, a label question `verdict`
(tie, all bad, skip, flag), a rating `strength` and a text `rationale`. Argilla's SDK keeps only the order of a ranking, so
rankings with some ties in them are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.data.fields import Data, number
from guerdon.data.foreign.extras import KEY, extras_of, judgement_from, name_uuid, require_agreement
from guerdon.data.foreign.limits import Unsupported
from guerdon.data.messages import Unusable, answer_of, messages_of, turns_of
from guerdon.data.write import compact
from guerdon.types import DataError, Judgement, Question

PROMPTS = ("prompt", "question", "instruction", "input")
_OWN = ("id", "status", "_server_id", "external_id", "responses", "suggestions", "metadata", "vectors")


def fits(data: Data) -> bool:
    if isinstance(data.get("fields"), Mapping) and isinstance(data.get("responses"), Mapping | list):
        return True
    return any(name.endswith(".responses") for name in data)


def judge(data: Data) -> list[Judgement]:
    """The judgements of a record, one per user who answered its ranking (or, in our own records, its verdict)."""
    fields, responses, metadata = _parts(data)
    extras = metadata.get(KEY)
    if isinstance(extras, str):
        return _exact(fields, responses, json.loads(extras))
    ranking = next((name for name, given in responses.items() if _names_fields(given, fields)), None)
    if ranking is None:
        raise Unusable("no label")
    names = sorted({name for item in responses[ranking] for name in _order(item["value"])})
    question = _question(fields, names, str(data.get("id", "")))
    found = []
    for item in responses[ranking]:
        if item.get("status") in ("draft", "discarded"):
            continue
        user = str(item.get("user_id", "unknown"))
        places = _order(item["value"])
        if set(places) != set(names):
            raise DataError(f"{ranking!r}: user {user} ranked {', '.join(places)}, others {', '.join(names)}; rank all")
        own = {name: _of(given, user) for name, given in responses.items()}
        text = own.get("rationale") or own.get("reason") or own.get("comments") or ""
        found.append(
            Judgement(
                f"{question.id} {user}", user, "human", question, (), "ranked", tuple(places[name] for name in names),
                number(own.get("strength"), "strength"), rationale=str(text),
            )
        )  # fmt: skip
    return found


def _parts(data: Data) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]], Mapping[str, Any]]:
    """Fields, responses by question, and metadata, from either shape of a record."""
    if isinstance(data.get("fields"), Mapping):
        responses = data.get("responses") or {}
        if not isinstance(responses, Mapping):
            raise DataError("'responses' is a list, as in Argilla 1; export the records with Argilla 2")
        given = {name: [dict(item) for item in items] for name, items in responses.items()}
        return dict(data["fields"]), given, data.get("metadata") or {}
    found: dict[str, list[dict[str, Any]]] = {}
    for name in data:
        if name.endswith(".responses") and data[name]:
            users = data.get(f"{name}.users") or ["unknown"] * len(data[name])
            states = data.get(f"{name}.status") or [None] * len(data[name])
            found[name.removesuffix(".responses")] = [
                {"value": value, "user_id": user, "status": state}
                for value, user, state in zip(data[name], users, states, strict=True)
            ]
    fields = {name: value for name, value in data.items() if "." not in name and name not in (*_OWN, KEY)}
    return fields, found, data


def _exact(fields: Data, responses: Mapping[str, list[dict[str, Any]]], extras: Data) -> list[Judgement]:
    about = extras["question"]
    names = [f"answer{i + 1}" for i in range(about["answers"])]
    found = _question(fields, names, about["id"])
    question = Question(found.prompt, found.completions, tuple(about["models"]), about["source"], about["id"])
    judgements = [judgement_from(own, question) for own in extras["judgements"]]
    plain = {name: [{"value": item["value"], "user_id": item["user_id"]} for item in items]
             for name, items in responses.items()}  # fmt: skip
    require_agreement(plain, _responses(judgements), "'responses'")
    return judgements


def _names_fields(items: Sequence[Mapping[str, Any]], fields: Data) -> bool:
    values = [item.get("value") for item in items]
    return bool(values) and all(isinstance(value, list) and len(_order(value)) > 1 and _order(value).keys() <= fields.keys()
                                for value in values)  # fmt: skip


def _order(value: Sequence[Any]) -> dict[str, float]:
    """Name -> rank of a ranking's value."""
    found = {}
    for place, item in enumerate(value, 1):
        if isinstance(item, Mapping):
            rank = item.get("rank")
            found[str(item.get("value"))] = float(place if rank is None else rank)
        else:
            found[str(item)] = float(place)
    return found


def _of(items: Sequence[Mapping[str, Any]], user: str) -> Any:
    return next((item.get("value") for item in items if str(item.get("user_id")) == user), None)


def _question(fields: Data, names: Sequence[str], id: str) -> Question:
    missing = [name for name in names if name not in fields]
    if missing:
        raise DataError(f"no field {missing[0]!r}, which the ranking names")
    column = next((name for name in PROMPTS if fields.get(name) is not None and name not in names), None)
    raw = fields.get(column) if column else None
    prompt = messages_of(raw, "prompt") if isinstance(raw, list) else turns_of(raw, column or "prompt", "user")
    return Question(prompt, tuple(answer_of(fields[name], name) for name in names), (), "", id)


def to_record(question: Question, judgements: Sequence[Judgement]) -> dict[str, Any]:
    """The record of a question with its judgements as responses.

    Raises Unsupported when some, but not all, of more than two answers tie, and when one rater judged the question twice:
    Argilla holds one response per user.
    """
    if len({judgement.rater for judgement in judgements}) < len(judgements):
        raise Unsupported(
            "was judged twice by one rater, and Argilla holds one response per user; use --format judgements"
        )
    answers = {f"answer{i + 1}": _text(answer) for i, answer in enumerate(question.completions)}
    about = {"id": question.id, "source": question.source, "models": list(question.models), "answers": len(answers)}
    extras = {"question": about, "judgements": [extras_of(judgement) for judgement in judgements]}
    return {
        "id": question.id,
        "fields": {"prompt": compact(question.prompt, "user"), **answers},
        "metadata": {KEY: json.dumps(extras, ensure_ascii=False)},  # Argilla's metadata are flat
        "suggestions": {},
        "responses": _responses(judgements),
        "vectors": {},
    }


def _text(answer: Any) -> str:
    text = compact(answer, "assistant")
    if not isinstance(text, str):
        raise Unsupported("has an answer that is not one assistant text, and Argilla's text fields hold no turns")
    return text


def _responses(judgements: Sequence[Judgement]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for judgement in judgements:
        given: dict[str, Any] = {}
        ranks, count = judgement.ranks, len(set(judgement.ranks))
        if count == len(ranks) > 0:
            given["ranking"] = [f"answer{i + 1}" for i in sorted(range(len(ranks)), key=lambda i: ranks[i])]
        elif count > 1:
            raise Unsupported("ties some of its answers but not all, and Argilla keeps only the order of a ranking")
        else:
            given["verdict"] = "tie" if ranks else judgement.answer.replace("_", " ")
        if judgement.strength is not None:
            given["strength"] = judgement.strength
        if judgement.rationale:
            given["rationale"] = judgement.rationale
        for name, value in given.items():
            found.setdefault(name, []).append({"value": value, "user_id": name_uuid(judgement.rater)})
    return found
