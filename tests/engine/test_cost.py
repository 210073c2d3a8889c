"""The curve of a pass: through what was measured, never falling, and what is decided by it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.cost import (
    BUDGET_NEAR_BEST,
    NEAR_BEST,
    ROUND_S,
    ROUNDS,
    UNKNOWN,
    PassCost,
    measure,
    measure_in_a_row,
)


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


class Clock:
    """Passes that take what they are told to, on a clock that nothing else moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lasts: dict[int, list[float]]) -> None:
        self.now, self.asked = 0.0, []
        self.lasts = {rows: iter(times) for rows, times in lasts.items()}
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def run_pass(self, rows: int) -> None:
        self.asked.append(rows)
        self.now += next(self.lasts[rows])


def test_sizes_are_measured_in_turn_and_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {1: [9.0, 2.0, 3.0, 1.0], 8: [9.0, 1.0, 1.5, 4.0], 64: [0.5, 7.0, 6.0, 8.0]})
    cost = measure(clock.run_pass, [1, 8, 64])
    assert clock.asked == [64, 8, 1] * (1 + ROUNDS)
    assert cost == PassCost((1, 8, 64), (2.0, 1.5, 7.0))
    assert [cost.seconds(n) for n in (1, 8, 64)] == [1.5, 1.5, 7.0]  # a pass of 1 row can be filled up to 8


def test_what_runs_before_can_be_fewer_sizes_and_counts_as_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, steps = Clock(monkeypatch, {1: [9.0, 2.0], 8: [9.0, 3.0], 64: [4.0]}), []
    cost = measure(clock.run_pass, [1, 8, 64], lambda *step: steps.append(step), rounds=1, before=[1, 8])
    assert clock.asked == [8, 1, 64, 8, 1]
    assert cost == PassCost((1, 8, 64), (2.0, 3.0, 4.0))
    assert steps == [(done, 5) for done in range(5)]


def test_a_quick_pass_is_run_more_often_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = 0.3 * ROUND_S
    clock = Clock(monkeypatch, {4: [9.0, *[quick, quick, 3 * quick, quick], *[2 * quick, 5 * quick], 9.0]})
    assert measure(clock.run_pass, [4]).elapsed_s == (pytest.approx(2 * quick),)


def test_passes_in_a_row_count_from_end_to_end_once_the_device_is_hot(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    clock = Clock(monkeypatch, {1024: [1.0, 5.0, 6.0, 10.0], 2048: [2.0, 7.0, 9.0, 8.0]})

    def start_pass(rows: int) -> Callable[[], None]:
        log.append(f"start {rows}")

        def wait() -> None:
            log.append(f"end {rows}")
            clock.run_pass(rows)

        return wait

    times = measure_in_a_row(start_pass, [1024, 2048], hot_after_s=2.0)
    assert log[:5] == ["start 2048", "start 1024", "end 2048", "start 1024", "end 1024"]  # down and up in turn
    assert clock.asked == [2048, 1024, 1024, 2048, 2048, 1024, 1024, 2048]
    assert times == {1024: 6.0, 2048: 8.0}  # the first of each was cold


def test_no_size_to_measure_in_a_row_takes_no_time() -> None:
    assert measure_in_a_row(lambda rows: pytest.fail("no pass is wanted"), [], hot_after_s=1.0) == {}


def test_a_pass_is_filled_up_only_to_a_size_that_is_clearly_faster() -> None:
    cost = PassCost((1, 128, 192, 256, 512), (15.0, 17.0, 21.5, 17.5, 27.0))
    padded = {n: cost.padded(n) for n in (1, 100, 128, 129, 192, 203, 256, 257, 512, 900)}
    assert padded == {1: 1, 100: 100, 128: 128, 129: 256, 192: 256, 203: 256, 256: 256, 257: 257, 512: 512, 900: 900}


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.integers(1, 3000))
def test_filling_up_never_makes_a_pass_smaller_or_dearer(elapsed_s: list[float], rows: int) -> None:
    cost = PassCost(tuple(2**n for n in range(len(elapsed_s))), tuple(elapsed_s))
    padded = cost.padded(rows)
    assert padded >= rows
    assert cost.padded(padded) == padded
    assert cost.seconds(padded) == pytest.approx(cost.seconds(rows)) or padded == rows


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
