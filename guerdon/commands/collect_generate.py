"""guerdon collect generate: candidates for a study, written now by one or several models."""

from __future__ import annotations

from typing import Annotated, TypeVar

from tyro.conf import Positional, arg

from guerdon.terminal import counting_bar
from guerdon.types import ConfigError

T = TypeVar("T")


def collect_generate(
    study: Positional[str],
    prompts: tuple[str, ...],
    model: tuple[str, ...],
    database: str = "study.db",
    endpoint: tuple[str, ...] = (),
    n: Annotated[int, arg(aliases=["-n"])] = 2,
    limit: int | None = None,
    price_prompt: tuple[float, ...] = (),
    price_answer: tuple[float, ...] = (),
    temperature: float | None = 1.0,
    max_tokens: int | None = 2048,
    keep_cut: bool = False,
    connections: int = 8,
    timeout: float = 120.0,
    key_env: str | None = None,
    name: str = "generated",
) -> None:
    """Have each prompt answered n times and add the questions to a study; who wrote what is stored and never shown to raters.

    Args:
        study: Name of the study.
        prompts: Files, folders or hub sets with prompts (see docs/data.md).
        model: Names of the models, as their endpoints know them; several take turns.
        database: Database of the studies: a file, or an address such as postgresql+psycopg://...
        endpoint: Address of an OpenAI-compatible API, up to /v1; one for all models, or one each. Default: GUERDON_CHAT_URL.
        n: Candidates for each prompt.
        limit: Take only the first so many prompts.
        price_prompt: Price of a million prompt tokens, in your currency; one for all models, or one each.
        price_answer: Price of a million answer tokens, likewise.
        temperature: Sampling temperature; None leaves it out.
        max_tokens: Most tokens of an answer; None leaves it out.
        keep_cut: Keep answers that were cut off at --max-tokens.
        connections: Prompts under way at once.
        timeout: Seconds for one attempt.
        key_env: Environment variable that holds the key. Default: GUERDON_CHAT_KEY, or OPENAI_API_KEY.
        name: Source of the questions, which evaluation breaks results down by.
    """
    from guerdon.collect.chat_api import ChatApi, Prices, key_of
    from guerdon.collect.generate import Source, generate
    from guerdon.collect.store import Store
    from guerdon.data.rows import load_prompts

    if not model:
        raise ConfigError("name a model: --model NAME")
    asked = load_prompts(prompts)[:limit]
    options = {"temperature": temperature, "max_tokens": max_tokens}
    options = {key: value for key, value in options.items() if value is not None}
    urls = _each("--endpoint", endpoint, len(model)) or ("",) * len(model)
    costs = zip(
        _each("--price-prompt", price_prompt, len(model)) or (None,) * len(model),
        _each("--price-answer", price_answer, len(model)) or (None,) * len(model),
        strict=True,
    )
    sources = [
        Source(
            ChatApi(url, key_of(key_env), timeout=timeout, connections=connections, options=options), one, Prices(*cost)
        )
        for one, url, cost in zip(model, urls, costs, strict=True)
    ]
    with Store.open(database, make=False) as store, counting_bar(f"asking {', '.join(model)}", len(asked)) as advance:
        done = generate(
            store, study, asked, sources, n, name=name, connections=connections, keep_cut=keep_cut, advance=advance
        )
    for source in sources:
        print(f"{source.model}: {source.api.usage.render(source.prices)}")
        source.api.close()
    print(done.render(study))


def _each(option: str, given: tuple[T, ...], models: int) -> tuple[T, ...]:
    """One value for each model: those given, or the only one for all. Raises ConfigError for any other number."""
    if len(given) not in (0, 1, models):
        raise ConfigError(f"{option} is given {len(given)} times for {models} models; give it once, or once for each")
    return given * models if len(given) == 1 else given
