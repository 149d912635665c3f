"""guerdon diagnose probes: where a reward model can be gamed, by edits that need no model."""

from __future__ import annotations

from guerdon.terminal import counting_bar, load_scorer, require_writable, show, write_json


def probes(
    model: str,
    data: tuple[str, ...],
    json: str | None = None,
    html: str | None = None,
    limit: int = 200,
    format: str | None = None,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Probe a reward model: padding, lists, praise, confidence, gibberish, refusals, swapped prompts, groups and more.

    Args:
        model: Folder or hub id of a reward model.
        data: Comparisons whose answers are edited; those with a tied label are left out.
        json: Write the report to this file, as JSON.
        html: Write a self-contained page to this file.
        limit: Comparisons to probe, different prompts first; each costs about 70 scored texts.
        format: Format of the rows, when it is not to be recognised.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        seed: Of the choice of comparisons, wordings and placebos.
    """
    from guerdon.data.read import load
    from guerdon.diagnose.probes.measure import measure, select
    from guerdon.diagnose.probes.page import write_page
    from guerdon.diagnose.probes.render import render
    from guerdon.types import ConfigError

    if limit < 1:
        raise ConfigError(f"--limit must be 1 or more, got {limit}")
    require_writable(json, html)
    loaded = load(data, format=format)
    chosen = select(loaded.comparisons, limit, seed)
    reward_model = load_scorer(model, device)
    with counting_bar("probing", len(chosen)) as advance:
        report = measure(reward_model, loaded.comparisons, limit=limit, seed=seed, advance=advance)
    title = f"{model} on {', '.join(data)}"
    show(render(report, title=title))
    contract = reward_model.contract.hash if reward_model.contract else None
    write_json(json, report.to_dict() | {"model": model, "data": list(data), "seed": seed, "contract": contract})
    if html:
        facts = {"model": model, "data": ", ".join(data), "contract": contract or "none", "seed": str(seed)}
        write_page(html, report, title=title, facts=facts)
