"""guerdon evaluate: how good a reward model is on held-out comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guerdon.terminal import counting_bar, load_scorer, require_writable, show, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerdon.diagnose.mistakes import Mistake
    from guerdon.evaluate.agreement import Agreement
    from guerdon.evaluate.metrics import Evaluation
    from guerdon.evaluate.sheet import Calibration
    from guerdon.evaluate.table import ScoreTable
    from guerdon.model.contract import Contract


def evaluate(
    model: str,
    data: tuple[str, ...],
    json: str | None = None,
    table: str | None = None,
    html: str | None = None,
    format: str | None = None,
    ceiling: float | None = None,
    agreement: float | None = None,
    without_prompt: bool = False,
    max_error: float = 0.2,
    calibrate: bool = False,
    device: str | None = None,
    reward: str = "mean",
    seed: int = 0,
) -> None:
    """Measure a reward model: accuracy with a 95 % interval over prompts, trivial rules, calibration, by source.

    Args:
        model: Folder or hub id of a reward model; several, separated by commas, score as an ensemble.
        data: Comparisons to evaluate on.
        json: Write the metrics to this file, as JSON.
        table: Write the scores to this file (.jsonl or .parquet), one row per completion.
        html: Write a self-contained page with charts and the worst mistakes to this file.
        format: Format of the rows, when it is not to be recognised.
        ceiling: Best accuracy that the noise of these labels allows, if known; shown beside the accuracy.
        agreement: Share of pairs on which two raters agree, if known: gives the range of the ceiling. Default:
            measured, where the data hold pairs that were judged more than once.
        without_prompt: Score everything once more with the prompt removed, to see what the prompt is worth.
        max_error: Share of errors allowed among trusted pairs, for the margin to trust above.
        calibrate: Write the fitted temperature into the scoring contract of the model folder.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        reward: What leaves an ensemble: mean, min, mean-std:K, mean-var:K or quantile:Q.
        seed: Of the bootstrap, the folds and the pair drawn of each prompt.
    """
    from guerdon.data.read import load
    from guerdon.diagnose.mistakes import worst_mistakes
    from guerdon.evaluate.abstain import require_share
    from guerdon.evaluate.agreement import rater_agreement
    from guerdon.evaluate.metrics import evaluate as measure
    from guerdon.evaluate.metrics import warn_of_leakage
    from guerdon.evaluate.render import render
    from guerdon.evaluate.score import score_comparisons
    from guerdon.evaluate.sheet import calibrate as draw_up
    from guerdon.evaluate.trivial import score_without_prompt

    require_writable(json, table, html)
    require_share("the allowed error", max_error)
    given = _ceiling(ceiling, agreement)
    comparisons = load(data, format=format)
    rows = comparisons.comparisons
    reward_model = load_scorer(model, device, reward)
    if calibrate:
        _require_contract(model, reward_model.contract)
    with counting_bar("scoring", len(rows)) as advance:
        scores = score_comparisons(reward_model, rows, advance=advance)
    if table:
        scores.write(table)
    blank = None
    if without_prompt:
        with counting_bar("scoring without prompts", len(rows)) as advance:
            blank = score_without_prompt(reward_model, rows, advance=advance)
    measured = rater_agreement(rows, seed=seed) if given is None else None
    bound = given or (measured.ceiling if measured else None)
    limit = measured.ceiling_limits[1] if measured else bound[1] if bound else 1.0
    result = warn_of_leakage(measure(scores, without_prompt=blank, seed=seed), limit)
    sheet = draw_up(scores, max_error=max_error, seed=seed)
    title = f"{model} on {', '.join(data)}"
    show(render(result, ceiling=bound, title=title, calibration=sheet, agreement=measured))
    kept_out = ", ".join(f"{count} {reason}" for reason, count in comparisons.dropped.items())
    if kept_out:
        print(f"kept out of {comparisons.rows} rows: {kept_out}")
    record = result.to_dict() | {"calibration": sheet.to_dict()} | _label_noise(bound, measured)
    record |= {"rows": comparisons.rows, "dropped": comparisons.dropped, "model": model, "data": list(data)}
    write_json(json, record | {"scorer": reward_model.fingerprint})
    if html:
        _write_html(html, title, result, scores, bound, worst_mistakes(scores, rows), reward_model.fingerprint)
    if calibrate:
        _store(model, reward_model.contract, sheet)


def _write_html(
    path: str,
    title: str,
    result: Evaluation,
    scores: ScoreTable,
    bound: tuple[float, float] | None,
    examples: Sequence[Mistake],
    fingerprint: str,
) -> None:
    from guerdon.diagnose.report import write_report

    write_report(
        path,
        title=title,
        evaluations={"test": result},
        tables={"test": scores},
        ceiling=bound,
        examples=examples,
        facts={"scorer": fingerprint},
    )
    print(f"page: {path}")


def _ceiling(known: float | None, agreement: float | None) -> tuple[float, float] | None:
    """The ceiling range that the options give. Raises ConfigError when they contradict each other or are no shares."""
    from guerdon.evaluate.intervals import ceiling
    from guerdon.types import ConfigError

    if known is not None and agreement is not None:
        raise ConfigError("--ceiling and --agreement both set the ceiling; give one of them")
    if known is not None and not 0.5 <= known <= 1:
        raise ConfigError(f"the ceiling is {known}; give a share between 0.5 and 1, not a percentage")
    if known is not None:
        return known, known
    return None if agreement is None else ceiling(agreement)


def _label_noise(bound: tuple[float, float] | None, agreement: Agreement | None) -> dict[str, object]:
    """What the JSON says about the labels."""
    from dataclasses import asdict

    record: dict[str, object] = {"ceiling": list(bound)} if bound else {}
    return record | ({"agreement": asdict(agreement)} if agreement else {})


def _require_contract(model: str, contract: Contract | None) -> None:
    """Raise ConfigError, before any work, when there is no contract here to write a temperature into."""
    from pathlib import Path

    from guerdon.files import require_writable
    from guerdon.model.contract import FILE
    from guerdon.types import ConfigError

    if contract is None or not (Path(model) / FILE).is_file():
        raise ConfigError(
            f"{model}: --calibrate needs a local model folder with a {FILE}; load the model and save it with guerdon first"
        )
    require_writable(Path(model) / FILE)


def _store(model: str, contract: Contract | None, sheet: Calibration) -> None:
    from dataclasses import replace
    from pathlib import Path

    from guerdon.model.contract import FILE
    from guerdon.types import DataError

    if sheet.temperature is None or contract is None:
        raise DataError("too few prompts to fit a temperature; nothing was written, give --calibrate more comparisons")
    if sheet.temperature.at_bound:
        raise DataError(
            "no temperature fits: the margins order all pairs right, or no better than a coin; nothing was written"
        )
    replace(contract, temperature=sheet.temperature.value).write(Path(model))
    print(f"temperature {sheet.temperature.value:.6g} written to {Path(model) / FILE}; scores stay as they are")
