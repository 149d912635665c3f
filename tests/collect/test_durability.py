"""Zero lost, zero doubled: the benchmark of durability in small. The full one is benchmarks/collect_durability.md."""

from __future__ import annotations

from benchmarks.collect_durability import measure


def test_killed_and_cut_nothing_is_lost_and_nothing_doubled(url):
    """Eight raters, two kills with SIGKILL, connections reset all the while; every answer is sent until acknowledged."""
    found = measure(url, votes=96, raters=8, kills=2, every=1.0)
    assert found.problems == ()
    assert (found.lost, found.doubled, found.beyond_overlap) == (0, 0, 0)
    assert found.votes == found.stored == found.exported >= 96
    assert found.kills == 2
    assert found.resent > 0
