"""Rank groups: equal models share a letter, clearly different ones do not, and the published ones cannot be told apart."""

from __future__ import annotations

import numpy as np

from guerdon.evaluate.benchmarks.item import Item
from guerdon.evaluate.benchmarks.ranks import rank_groups
from guerdon.evaluate.benchmarks.run import find, run_scores

ITEMS = [Item(str(i), "all", (True, False), str(i)) for i in range(200)]


def scores(wins: int) -> np.ndarray:
    """The right candidate scores higher on the first `wins` items."""
    return np.array([[1.0, 0.0] if i < wins else [0.0, 1.0] for i in range(200)])


def test_letters_by_hand():
    groups = rank_groups(ITEMS, {"middle": scores(120), "worst": scores(20), "best": scores(121), "twin": scores(121)})
    assert groups == {"best": "a", "twin": "a", "middle": "a", "worst": "b"}
    assert list(groups)[-1] == "worst"


def test_items_that_one_model_did_not_score_are_left_out():
    holes = scores(100)
    holes[100:] = np.nan
    assert rank_groups(ITEMS, {"whole": scores(100), "holes": holes}) == {"whole": "a", "holes": "a"}
    assert rank_groups(ITEMS, {"whole": scores(100), "nothing": np.full((200, 2), np.nan)}) == {}
    assert rank_groups(ITEMS, {"alone": scores(100)}) == {}


def test_no_two_of_the_five_published_models_differ_on_judgebench(real_data):
    folder = real_data / "judgebench"
    judgebench = find("judgebench")
    items = judgebench.load(str(folder / "gpt-4o-pairs.jsonl.gz"))
    report = run_scores(judgebench, folder / "reward_model_scores.jsonl.gz", items)
    assert len(report.groups) == 5
    assert set(report.groups.values()) == {"a"}
