"""Splits share no prompt, keep every row and come near the fraction; the key is the one real sets were split by."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.data.read import read
from guerdon.data.split import normalise, prompt_key, split
from guerdon.types import Comparison, ConfigError, DataError, Message

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def said(role: str, text: str) -> tuple[Message, ...]:
    return (Message(role=role, content=text),)


def pair(prompt: str | None, first: str = "x", second: str = "y") -> Comparison:
    opening = () if prompt is None else said("user", prompt)
    return Comparison(opening, (said("assistant", first), said("assistant", second)), (0, 1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pair("What's  up?"), pair("what S UP")),
        (pair("ﬁne"), pair("Fine!")),
        (pair(None, "How are you? Fine.", "How are you? Bad."), pair("how are you")),
        (pair(None, "Fine.", "Bad."), pair("fine")),
        (Comparison((*said("system", "s"), *said("user", "q")), pair("x").completions, (0, 1)), pair("q")),
        (
            Comparison(
                (*said("user", "q"), *said("assistant", "a"), *said("user", "r")), pair("x").completions, (0, 1)
            ),
            pair("q"),
        ),
    ],
    ids=["case and marks", "compatibility forms", "shared words", "first completion", "system first", "later turns"],
)
def test_prompts_that_count_as_one(one: Comparison, other: Comparison) -> None:
    assert prompt_key(one) == prompt_key(other)


def test_prompts_without_words_are_told_apart() -> None:
    assert normalise(" ?! ") == "?!"
    assert len({prompt_key(pair(text)) for text in ("?", "!", "😀", "a")}) == 4


PROMPTS = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60)


@given(PROMPTS, st.floats(0.01, 0.99), st.integers(0, 5))
def test_split_is_disjoint_and_complete(prompts: list[str], fraction: float, seed: int) -> None:
    rows = [pair(prompt, f"x{i}") for i, prompt in enumerate(prompts)]
    if len(set(prompts)) < 2:
        with pytest.raises(DataError, match="same prompt"):
            split(rows, fraction, seed)
        return
    train, held = split(rows, fraction, seed)
    assert train
    assert held
    assert not {prompt_key(c) for c in train} & {prompt_key(c) for c in held}
    assert sorted(map(rows.index, train)) == list(map(rows.index, train))
    assert sorted([*map(rows.index, train), *map(rows.index, held)]) == list(range(len(rows)))
    assert split(rows, fraction, seed) == (train, held)


def test_fraction_is_met_and_the_seed_matters() -> None:
    rows = [pair(f"prompt {i // 3}", f"x{i}") for i in range(999)]
    halves = [split(rows, 0.2, seed)[1] for seed in (0, 1)]
    assert [len(held) for held in halves] == [198, 198]  # 200 is no multiple of 3
    assert halves[0] != halves[1]


def test_one_huge_prompt_stays_in_train() -> None:
    rows = [pair("big", f"x{i}") for i in range(90)] + [pair(f"small {i}") for i in range(10)]
    assert [c.prompt[0]["content"][:5] for c in split(rows, 0.05, 0)[1]] == ["small"] * 5


def test_later_rows_move_few_others() -> None:
    rows = [pair(f"prompt {i}") for i in range(1000)]
    before = {prompt_key(c) for c in split(rows[:900], 0.1, 0)[1]}
    after = {prompt_key(c) for c in split(rows, 0.1, 0)[1]}
    assert len(before - after) < 20


def test_no_fraction_and_impossible_ones() -> None:
    rows = [pair("a"), pair("b")]
    assert split(rows, 0, 0) == (rows, [])
    for fraction in (1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="write a number from 0"):
            split(rows, fraction, 0)


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared preference data beside the checkout")
@pytest.mark.parametrize("name", ["webgpt", "hh-rlhf/harmless-base", "oasst-zh-ranked"])
def test_key_agrees_with_the_published_split_rule(name: str) -> None:
    """These sets were split where the first 8 digits of the same hash, as a fraction, lie in [.11, .22)."""
    shares = [int(prompt_key(c)[:8], 16) / 2**32 for c in read(DATA / name / "train.jsonl.gz")]
    assert min(shares) >= 0.22
    shares = [int(prompt_key(c)[:8], 16) / 2**32 for c in read(DATA / name / "test.jsonl.gz")]
    assert sum(0.11 <= share < 0.22 for share in shares) > 0.9 * len(shares)  # a few prompts were moved here by hand
