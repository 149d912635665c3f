"""Distance from training answers: 1 for more of the same, four times as much twice as far out, whatever the features' scale."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.diagnose.novelty import Novelty


def draw(n: int, seed: int, width: int = 8) -> np.ndarray:
    """Correlated features of unequal scale."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(width, width)) * np.logspace(-2, 2, width)
    return rng.normal(size=(n, width)) @ mix + 5.0


def test_more_of_the_same_is_at_1():
    assert Novelty.fit(draw(2000, 0)).distance(draw(1000, 1)) == pytest.approx(1.0, abs=0.1)


def test_also_with_fewer_answers_than_features():
    """The reason for the second half: on the rows that were fitted the distance would be far too small."""
    found = [Novelty.fit(draw(48, seed, 64)).distance(draw(400, 100 + seed, 64)) for seed in range(10)]
    assert np.mean(found) == pytest.approx(1.0, abs=0.25)


def test_twice_as_far_from_the_mean_is_4():
    known, far = draw(2000, 0), draw(1000, 1)
    fitted = Novelty.fit(known)
    assert fitted.distance(fitted.mean + 2 * (far - fitted.mean)) == pytest.approx(4 * fitted.distance(far))


def test_it_is_the_mahalanobis_distance_with_a_tenth_of_the_mean_variance():
    known, new = draw(400, 0, 3), draw(5, 1, 3)
    half, other = known[::2], known[1::2]
    covariance = np.cov(half, rowvar=False)
    inverse = np.linalg.inv(0.9 * covariance + 0.1 * np.trace(covariance) / 3 * np.eye(3))

    def mean_square(rows: np.ndarray) -> float:
        return float(np.mean([(row - half.mean(0)) @ inverse @ (row - half.mean(0)) for row in rows]))

    assert Novelty.fit(known).distance(new) == pytest.approx(mean_square(new) / mean_square(other))


def test_a_change_along_a_narrow_direction_is_seen():
    """Known to fail for plain distance: 3 standard deviations of the narrowest feature are nothing beside the widest."""
    rng = np.random.default_rng(0)
    known = rng.normal(size=(2000, 2)) * [1.0, 1.5]
    moved = rng.normal(size=(500, 2)) * [1.0, 1.5] + [4.0, 0.0]
    assert Novelty.fit(known).distance(moved) > 5


def test_rows_without_features_are_left_out():
    known, new = draw(500, 0), draw(20, 1)
    broken = new.copy()
    broken[::2] = np.nan
    fitted = Novelty.fit(known)
    assert fitted.distance(broken) == pytest.approx(fitted.distance(new[1::2]))
    assert np.isnan(fitted.distance(np.full((3, 8), np.nan)))
