"""guerdon diagnose report: everything known about a run in one page and one model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from guerdon.terminal import counting_bar, load_model, require_writable

if TYPE_CHECKING:
    from guerdon.train.config import TrainConfig
    from guerdon.types import Comparison


def report(
    run: Positional[str],
    data: tuple[str, ...] = (),
    output: str | None = None,
    probes: int = 64,
    pool: str | None = None,
    agreement: float | None = None,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Evaluate and probe the model of a run; write RUN/report.html and the model card RUN/model/README.md.

    Args:
        run: Run folder of guerdon train.
        data: Comparisons to evaluate on. Default: the run's evaluation data, or the prompts it held out.
        output: Write the page here instead of RUN/report.html.
        probes: Comparisons to probe for biases, each about 70 scored texts; 0 leaves the probes out.
        pool: Also show what optimising the reward does to gold on this pool of scored answers (guerdon diagnose overopt).
        agreement: Share of pairs on which two raters agree, for the ceiling. Default: measured where pairs were judged twice.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        seed: Of the bootstrap, the folds and the probes.
    """
    folder = Path(run)
    page = Path(output) if output else folder / "report.html"
    require_writable(str(page), str(folder / "model" / "README.md"))
    write_run_report(
        folder, page, data=data, probes=probes, pool=pool, agreement=agreement, device=device, seed=seed, say=print
    )


def write_run_report(
    run: Path,
    page: Path,
    *,
    data: tuple[str, ...] = (),
    probes: int = 64,
    pool: str | None = None,
    agreement: float | None = None,
    device: str | None = None,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Measure the model of a finished run and write its page and its card. Raises ConfigError when the run is not finished."""
    import json

    from guerdon.diagnose.advice import Advice, advise
    from guerdon.diagnose.card import ProbeLine, model_card
    from guerdon.diagnose.mistakes import Mistake, worst_mistakes
    from guerdon.diagnose.overopt import overoptimisation
    from guerdon.diagnose.overopt_page import section as overopt_section
    from guerdon.diagnose.probes.measure import measure, select
    from guerdon.diagnose.probes.page import section as probe_section
    from guerdon.diagnose.report import write_report
    from guerdon.evaluate.agreement import rater_agreement
    from guerdon.evaluate.calibration import reliability
    from guerdon.evaluate.intervals import ceiling
    from guerdon.evaluate.metrics import evaluate
    from guerdon.evaluate.pools import read_pool
    from guerdon.evaluate.score import score_comparisons
    from guerdon.files import write_text
    from guerdon.train.config import from_yaml
    from guerdon.types import ConfigError

    if not (run / "run.json").is_file():
        raise ConfigError(
            f"{run}: holds no finished run; train one: guerdon train --output {run}, or finish it with --resume"
        )
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    config = from_yaml(run / "config.yaml")
    rows = _comparisons(config, data)
    model = load_model(str(run / "model"), device)
    sections: list[Any] = []
    on = ", ".join(Path(name).name for name in data or config.eval_data) or "held-out prompts"
    tables, evaluations, examples, advice, lines = {}, {}, list[Mistake](), list[Advice](), list[ProbeLine]()
    bound = ceiling(agreement) if agreement is not None else None
    if rows:
        with counting_bar("scoring", len(rows)) as advance:
            table = score_comparisons(model, rows, advance=advance)
        measured = rater_agreement(rows, seed=seed) if bound is None else None
        bound = bound or (measured.ceiling if measured else None)
        evaluation = evaluate(table, seed=seed)
        tables, evaluations, examples = {on: table}, {on: evaluation}, worst_mistakes(table, rows)
        advice = advise(evaluation, bound, reliability(table.pairs()))
    decided = [row for row in rows if len(set(row.ranks)) > 1]
    if probes and decided:
        with counting_bar("probing", len(select(rows, probes, seed))) as advance:
            found = measure(model, rows, limit=probes, seed=seed, advance=advance)
        sections += probe_section(found)
        lines = [ProbeLine(p.name, p.worst.effect, p.worst.low, p.worst.high, p.verdict) for p in found.probes]
    if pool:
        sections += overopt_section(overoptimisation(read_pool(pool), seed=seed))
    facts = {
        "context": f"{model.encoder.max_length} tokens, cut from the {model.encoder.truncation}",
        "contract": model.contract.hash if model.contract else "none",
        "members": str(model.members),
    }
    title = f"Reward model {run.name}"
    made = {"data": ", ".join(data or config.eval_data or config.data), "start": config.model}
    made |= {**facts, **record["versions"]}
    write_report(
        page, title=title, run=run, evaluations=evaluations, tables=tables, metrics=metrics, ceiling=bound, examples=examples,
        facts=made, sections=sections,
    )  # fmt: skip
    card = model_card(
        name=run.name, config=vars(config), record=record, facts=facts, evaluation=evaluations.get(on), evaluated_on=on,
        ceiling=bound, advice=advice, probes=lines,
    )  # fmt: skip
    write_text(run / "model" / "README.md", card)
    say(f"page: {page}\nmodel card: {run / 'model' / 'README.md'}")


def _comparisons(config: TrainConfig, data: tuple[str, ...]) -> list[Comparison]:
    """What to evaluate on: the data given, else what the run held out."""
    from guerdon.data.read import load
    from guerdon.train.start import load_data

    if data:
        return load(data).comparisons
    return load_data(config, lambda line: None)[1]
