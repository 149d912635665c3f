"""guerdon diagnose drift: is a policy's output still where the reward model was trained?"""

from __future__ import annotations

from pathlib import Path

from guerdon.terminal import counting_bar, load_model, require_writable, show, write_json


def drift(
    reference: str,
    current: str,
    model: str | None = None,
    labels: str | None = None,
    json: str | None = None,
    html: str | None = None,
    limit: int = 2000,
    resamples: int = 999,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Is this policy's output still where the reward model was trained? Features, rewards, texts, and accuracy at stake.

    Args:
        reference: Held-out comparisons of the kind the model was trained on, or prompts with completions.
        current: Prompts with the current policy's completions, or comparisons of them.
        model: Folder or hub id of the reward model; without it the files must be score or candidate tables.
        labels: Fresh comparisons of current answers, to measure the accuracy lost.
        json: Write the result to this file, as JSON.
        html: Write a page with pictures to this file.
        limit: Answers drawn per side, by prompt.
        resamples: Bootstrap samples for intervals, and relabellings for tests.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        seed: Of all draws.
    """
    from guerdon.diagnose.drift import measure_drift
    from guerdon.diagnose.drift_page import page, render
    from guerdon.diagnose.drift_samples import draw, read_table, score_sample
    from guerdon.files import write_text
    from guerdon.terminal import spinner
    from guerdon.types import ConfigError

    if limit < 40 or resamples < 499:
        raise ConfigError("--limit must be at least 40 answers and --resamples at least 499; the defaults are good")
    require_writable(json, html)
    given = {"reference": reference, "current": current} | ({"labels": labels} if labels else {})
    if model is None:
        samples = [read_table(path, limit, seed, needs_labels=side == "labels") for side, path in given.items()]
    else:
        drawn = [draw(path, limit, seed, needs_labels=side == "labels") for side, path in given.items()]
        scorer = load_model(model, device)
        with counting_bar("scoring", sum(len(one.conversations) for one in drawn)) as advance:
            samples = [score_sample(scorer, one, advance) for one in drawn]
    with spinner("comparing"):
        found = measure_drift(*samples, times=resamples, seed=seed)
    show(render(found, f"{current} against {reference}"))
    facts = given | {"model": model or "none: scores from the tables", "limit": str(limit), "seed": str(seed)}
    write_json(json, found.to_dict() | facts)
    if html:
        write_text(Path(html), page(found, "Is the reward model still at home?", facts))
