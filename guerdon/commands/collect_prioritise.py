"""guerdon collect prioritise: which questions a reward model would learn most from, and whether choosing has paid so far."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
from tyro.conf import Positional

from guerdon.terminal import counting_bar, load_model
from guerdon.types import ConfigError, Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from guerdon.collect.prioritise import Seen
    from guerdon.model.reward import RewardModel

_CHUNK = 32  # questions scored at once


def collect_prioritise(
    study: Positional[str],
    model: str,
    database: str = "study.db",
    batch: int = 200,
    diversity: float = 0.25,
    most: int = 20_000,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Rank the open questions of a study by the current reward model, for the arms `uncertain` and `d-optimal`.

    Run it again whenever there is a newer model or the batch is used up. It also says whether active selection has earned its
    keep so far, by a controlled trial on the labels that are there; so it does when no question is open any more.

    Args:
        study: Name of the study.
        model: Folder or hub id of a reward model; several, separated by commas, are an ensemble, whose disagreement then counts.
        database: Database of the studies: a file, or an address such as postgresql+psycopg://...
        batch: Questions chosen together by the D-optimal criterion: about as many as are answered before the next run.
        diversity: Weight of prompt diversity in it; 0 leaves it out.
        most: Open questions looked at, a random choice where there are more.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        seed: Draws the questions looked at, and the splits of the trial.
    """
    from guerdon.collect.prioritise import keep, open_questions, weights
    from guerdon.collect.selection import selection_report
    from guerdon.collect.store import Store

    if batch < 1 or most < 1 or diversity < 0:
        raise ConfigError("--batch and --most must be at least 1, --diversity not below 0")
    with Store.open(database, make=False) as store:
        wanted = open_questions(store, study)
        judged = [j for j in store.current(study, kinds=("human",)) if j.answer == "ranked"]
        labelled = {j.question.id: j.question for j in judged}
        pool = [q for q in store.questions(study, "normal") if q.id in wanted]
        if not pool and not labelled:
            raise ConfigError(
                f"study {study!r} has no open question to rank and no label; import or generate questions"
            )
        if len(pool) > most:
            pool = random.Random(f"prioritise {seed}").sample(pool, most)
        every = {q.id: q for q in pool} | labelled
        models = [load_model(path, device) for path in model.split(",") if path]
        seen = _look(models, list(every.values()))
        found = weights([seen[q.id] for q in pool], [seen[name] for name in labelled], batch, diversity)
        features = {name: one.features for name, one in seen.items() if one.is_whole}
        report = selection_report(judged, features, seed=seed)
        keep(store, study, found, model, report)
        arms = store.study(study).settings.arms
    ranked = f"{len(found['uncertain']):,} open questions ranked" if pool else "no question is open any more"
    print(f"{study}: {ranked}, {len(labelled):,} with labels taken into account")
    failed = len(pool) - len(found["uncertain"])
    if failed:
        print(f"{failed:,} could not be scored and are left to the random arm")
    if not arms:
        print(
            "the study has no active arm, so nothing changes yet; add `uncertain` or `d-optimal` to its setting `arms`"
        )
    print(report.sentence)


def _look(models: list[RewardModel], questions: list[Question]) -> dict[str, Seen]:
    """Rewards and features of every question, on a common scale, with the members of an ensemble where there is one."""
    from guerdon.collect.prioritise import Seen, projected

    rewards: list[list[float]] = []  # of each text, by each member
    features: list[NDArray[np.float64]] = []
    with counting_bar("scoring", len(questions)) as advance:
        for start in range(0, len(questions), _CHUNK):
            some = questions[start : start + _CHUNK]
            texts = [q.prompt + completion for q in some for completion in q.completions]
            first, states = models[0].score_with_features(texts)
            others = [other.score(texts) for other in models[1:]]
            features.append(np.asarray(states, dtype=np.float64))
            for one, *more in zip(first, *others, strict=True):
                rewards.append([float(one), *map(float, more)] if more else list(one.members) or [float(one)])
            advance(len(some))
    scaled = projected(np.concatenate(features))
    scaled = scaled / (float(np.sqrt(np.nanmean(np.square(scaled - np.nanmean(scaled, axis=0))))) or 1.0)
    found, at = {}, 0
    most = max(map(len, rewards))  # a text that could not be scored has no members
    for question in questions:
        here = slice(at, at + len(question.completions))
        members = np.array([row if len(row) == most else [np.nan] * most for row in rewards[here]]).T
        found[question.id] = Seen(question, members.mean(axis=0), scaled[here], members if most > 1 else None)
        at = here.stop
    return found
