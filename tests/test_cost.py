"""The curve of a pass: through what was measured, never falling, and what is decided by it."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.cost import BUDGET_NEAR_BEST, MEASURE_S, NEAR_BEST, UNKNOWN, PassCost, measure


@st.composite
def curves(draw: st.DrawFn) -> PassCost:
    rows = sorted(draw(st.sets(st.integers(1, 5000), min_size=1, max_size=8)))
    steps = draw(st.lists(st.floats(0, 10), min_size=len(rows), max_size=len(rows)))
    elapsed_s = list(itertools.accumulate(steps, initial=draw(st.floats(1e-3, 10))))[: len(rows)]
    return PassCost(tuple(rows), tuple(elapsed_s))


@given(curves())
def test_the_curve_goes_through_what_was_measured(cost: PassCost) -> None:
    for rows, elapsed_s in zip(cost.rows, cost.elapsed_s, strict=True):
        assert cost.seconds(rows) == pytest.approx(elapsed_s)


@given(curves(), st.integers(1, 9000), st.integers(1, 9000))
def test_more_rows_never_cost_less(cost: PassCost, a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert 0 < cost.seconds(low) <= cost.seconds(high) * (1 + 1e-9)
    assert cost.one_more(low) >= 0


@given(curves(), st.integers(1, 9000))
def test_one_more_row_costs_the_difference_to_the_next_pass(cost: PassCost, rows: int) -> None:
    difference = cost.seconds(rows + 1) - cost.seconds(rows)
    assert cost.one_more(rows) == pytest.approx(difference, abs=1e-6 + 1e-9 * cost.seconds(rows))


@given(curves(), st.integers(1, 9000))
def test_a_good_size_is_within_the_limit_and_nearly_the_best(cost: PassCost, limit: int) -> None:
    size = cost.good_size(limit)
    assert 1 <= size <= limit
    sizes = [*(n for n in cost.rows if n <= limit), limit]
    best_s = min(cost.seconds(n) / n for n in sizes)
    assert cost.seconds(size) / size <= best_s / NEAR_BEST * (1 + 1e-9)
    assert all(cost.seconds(n) / n > best_s / NEAR_BEST * (1 - 1e-9) for n in range(1, size))


def test_between_two_points_the_curve_is_straight_and_beyond_the_last_it_goes_on() -> None:
    cost = PassCost((10, 20, 30), (1.0, 2.0, 5.0))
    assert [cost.seconds(n) for n in (1, 10, 15, 25, 40)] == [1.0, 1.0, 1.5, 3.5, 8.0]
    assert [cost.one_more(n) for n in (5, 10, 20, 50)] == [0.0, 0.1, 0.3, 0.3]


def test_before_anything_is_measured_every_row_costs_the_same() -> None:
    assert {UNKNOWN.seconds(n) / n for n in (1, 2, 50, 4096)} == {1.0}


def test_measuring_begins_with_the_largest_and_leaves_each_first_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    lasts = {1: iter([9.0, 2.0, 3.0]), 8: iter([9.0, 1.0, 1.5]), 64: iter([0.5, 7.0, 6.0])}
    asked: list[int] = []

    def run_pass(rows: int) -> None:
        asked.append(rows)
        now[0] += next(lasts[rows])

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    cost = measure(run_pass, [1, 8, 64])
    assert asked == [64, 64, 64, 8, 8, 8, 1, 1, 1]
    # 8 rows were quicker than 1: noise, so the larger value stands.
    assert cost == PassCost((1, 8, 64), (2.0, 2.0, 6.0))


def test_a_quick_pass_is_measured_more_often_and_its_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    lasts = iter([9.0, *[0.25 * MEASURE_S, 0.2 * MEASURE_S, 5 * MEASURE_S]])

    def run_pass(rows: int) -> None:
        now[0] += next(lasts)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    assert measure(run_pass, [4]).elapsed_s == (pytest.approx(0.25 * MEASURE_S),)


@given(curves(), st.integers(128, 9000))
def test_the_best_budget_is_a_measured_size_that_nothing_smaller_equals(cost: PassCost, limit: int) -> None:
    budget = cost.best_budget(limit)
    sizes = [n for n in cost.rows if n <= limit]
    if not sizes:
        assert budget == limit
        return
    each = {n: cost.seconds(n) / n for n in sizes}
    assert budget in sizes
    assert each[budget] * BUDGET_NEAR_BEST <= min(each.values()) * (1 + 1e-9)
    assert all(each[n] * BUDGET_NEAR_BEST > min(each.values()) * (1 - 1e-9) for n in sizes if n < budget)
