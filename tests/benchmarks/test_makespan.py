"""The order of runs and what it costs: every run once, the last round longest first, near the bound."""

from __future__ import annotations

import sys
from collections import Counter
from statistics import mean

from pipeline import paths
from pipeline.contest.judge import ordering

sys.path.insert(0, str(paths.ROOT))  # `benchmarks` is not installed

from benchmarks import makespan


def test_every_run_once_and_the_last_round_longest_first() -> None:
    expected_s = {f"s{number}": float(number) for number in range(20)}
    order = ordering.rounds(expected_s, 3, seed=7)
    assert Counter(order) == Counter(f"{name}-r{number}" for name in expected_s for number in (1, 2, 3))
    assert order[40:] == [f"s{number}-r3" for number in reversed(range(20))]
    assert order == ordering.rounds(expected_s, 3, seed=7) != ordering.rounds(expected_s, 3, seed=8)


def test_boards_take_the_next_run_when_they_are_free() -> None:
    assert ordering.makespan_s([3, 1, 1, 1], 2) == 3
    assert ordering.makespan_s([1, 1, 1, 3], 2) == 4
    assert ordering.makespan_s([], 2) == 0


def test_three_rounds_end_near_the_bound() -> None:
    bound_h, over = makespan.simulate(47, 3, 16, draws=10)
    assert 1 < bound_h < 2.5
    assert mean(over["three rounds"]) < 0.06 < mean(over["random"])
