"""guerdon diagnose overopt: what optimising a reward does to gold, from a pool of scored answers."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from guerdon.terminal import require_writable, show, spinner, write_json


def overopt(
    pool: Positional[str],
    json: str | None = None,
    html: str | None = None,
    score: str | None = None,
    gold: str | None = None,
    data: str | None = None,
    rules: tuple[str, ...] = ("mean", "min", "mean-std:1", "mean-var:0.5"),
    standardise: bool = False,
    largest: int | None = None,
    examples: int = 5,
    resamples: int = 2000,
    seed: int = 0,
) -> None:
    """Over-optimisation without a policy: reward and gold of the best of n, from N scored answers per prompt.

    Args:
        pool: Scored answers (.jsonl, .jsonl.gz, .parquet): one row per answer, one per prompt with lists, or the output
            of guerdon score.
        json: Also write the result to this file, as JSON.
        html: Also write a page with charts to this file.
        score: Field of the score. Default: score, or scores.
        gold: Field of the gold value. Default: gold, where there is one.
        data: The file that guerdon score read, when the pool is its output: brings answers, prompts and gold.
        rules: How to combine the members of an ensemble: mean, min, mean-std:K, mean-var:K, quantile:Q.
        standardise: Put the members on one scale within each pool before they are combined.
        largest: Largest n; prompts with fewer answers are left out. Default: what all but the smallest 5 % of pools allow.
        examples: How many of the worst picks to show on the page.
        resamples: Of the bootstrap over prompts.
        seed: Of the bootstrap.
    """
    from guerdon.diagnose.overopt import overoptimisation
    from guerdon.diagnose.overopt_text import render
    from guerdon.evaluate.pools import read_pool

    require_writable(json, html)
    with spinner(f"reading {pool}"):
        answers = read_pool(pool, score=score, gold=gold, data=data)
    with spinner("measuring"):
        found = overoptimisation(
            answers,
            rules=rules,
            standardised=standardise,
            largest=largest,
            examples=examples,
            seed=seed,
            resamples=resamples,
        )
    show(render(found, pool))
    write_json(json, {"pool": pool} | found.to_dict())
    if html:
        from guerdon.diagnose.overopt_page import write_overopt_page

        facts = {"pool": pool, "score": score or "score", "gold": (gold or "gold") if found.has_gold else "none"}
        write_overopt_page(html, found, title=Path(pool).name, facts=facts)
        print(f"page: {html}")
