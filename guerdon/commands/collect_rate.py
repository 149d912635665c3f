"""guerdon collect rate: a study judged by a model, both ways round."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tyro.conf import Positional

from guerdon.terminal import counting_bar, require_writable
from guerdon.types import ConfigError


def collect_rate(
    study: Positional[str],
    model: str,
    database: str = "study.db",
    endpoint: str = "",
    rubric: str | None = None,
    constitution: str | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    price_prompt: float | None = None,
    price_answer: float | None = None,
    budget: float | None = None,
    temperature: float | None = 0.0,
    max_tokens: int | None = 1024,
    connections: int = 8,
    timeout: float = 120.0,
    key_env: str | None = None,
    unread: str | None = None,
    seed: int = 0,
) -> None:
    """Let a model judge the questions of a study, each in both orders; stored as judgements of kind `model`, never as a person's.

    Args:
        study: Name of the study.
        model: Name of the model, as its endpoint knows it.
        database: Database of the studies: a file, or an address such as postgresql+psycopg://...
        endpoint: Address of an OpenAI-compatible API, up to /v1. Default: GUERDON_CHAT_URL or OPENAI_BASE_URL.
        rubric: File that says what makes an answer better. Default: a short general one.
        constitution: File with a list of principles; one is drawn for each question.
        limit: Judge at most so many further questions (two calls each).
        dry_run: Say how many calls are left and estimate their cost; ask nothing.
        price_prompt: Price of a million prompt tokens, in your currency.
        price_answer: Price of a million answer tokens.
        budget: Stop once this run has cost so much; needs both prices.
        temperature: Sampling temperature; None leaves it out.
        max_tokens: Most tokens of an answer; None leaves it out.
        connections: Calls under way at once.
        timeout: Seconds for one attempt.
        key_env: Environment variable that holds the key. Default: GUERDON_CHAT_KEY, or OPENAI_API_KEY.
        unread: Also write every call that gave no verdict to this file, with what the model said (JSON lines).
        seed: Draws the principles.
    """
    from guerdon.collect.ai_rater import load_guide
    from guerdon.collect.chat_api import ChatApi, Prices, key_of
    from guerdon.collect.rate import Unread, estimate, jobs, rate, rater_name
    from guerdon.collect.store import Store

    prices = Prices(price_prompt, price_answer)
    if budget is not None and prices.cost(0, 0) is None:
        raise ConfigError("--budget needs --price-prompt and --price-answer")
    guide = load_guide(rubric, constitution)
    require_writable(unread)
    options = {"temperature": temperature, "max_tokens": max_tokens}
    options = {name: value for name, value in options.items() if value is not None}
    with Store.open(database, make=False) as store:
        rater = rater_name(model, guide)
        left = list(jobs(store, study, rater, limit))
        if dry_run:
            print(estimate(left, guide, prices, seed=seed).render())
            return
        api = ChatApi(endpoint, key_of(key_env), timeout=timeout, connections=connections, options=options)
        rows: list[Unread] = []
        try:
            with counting_bar(f"asking {model}", len(left)) as advance:
                done = rate(
                    store,
                    study,
                    api,
                    model,
                    guide,
                    limit=limit,
                    most=budget,
                    prices=prices,
                    seed=seed,
                    advance=advance,
                    unread=rows.append,
                )
        finally:
            print(api.usage.render(prices))
            if unread:
                lines = (json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
                Path(unread).write_text("".join(lines), encoding="utf-8")
            api.close()
    print(done.render())
