"""The cost of a pass, from a handful of measured sizes.

The curve decides the pass budget, how many answers are worth running at a time, and how much of a draft is
worth checking; and it says how long what is left will take.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from statistics import median

from pipeline.engine.shape import Shape

NEAR_BEST = 0.65
"""A pass of answers is large enough when a row of the cheapest pass takes this share of the time of one of its own.
Not nearer: prompt rows make most passes larger, and every running answer holds slots (`benchmarks/cpu.py`: 32 of them
are as fast as 128, with half the slots)."""

BUDGET_NEAR_BEST = 0.99
"""The same for the largest passes: beyond this a larger pass would take more memory for nothing."""

ROUNDS, ROUND_S = 3, 0.03
"""Each size of a pass is timed in so many rounds, and in each round by passes for so long."""

PADDING_GAIN = 0.9
"""A pass is filled up to a larger one that takes less than this share of its time."""


@dataclass(frozen=True)
class PassCost:
    """Seconds of a pass by its rows: measured points, straight between them, the last slope beyond."""

    rows: tuple[int, ...]
    elapsed_s: tuple[float, ...]
    """As measured: a larger pass may take less (cuBLAS has such sizes)."""

    def seconds(self, rows: int) -> float:
        if rows <= self.rows[0] or len(self.rows) == 1:
            return self._least_s[0]
        return self._least_s[self._left(rows)] + self._slope(rows) * (rows - self.rows[self._left(rows)])

    def padded(self, rows: int) -> int:
        """To how many rows a pass is best filled up: to a measured size that takes clearly less, else not at all."""
        at = bisect_left(self.rows, rows)
        if at == len(self.rows):
            return rows
        around = self.elapsed_s[at : at + 1] if self.rows[at] == rows else self.elapsed_s[max(0, at - 1) : at + 1]
        best = min(range(at, len(self.rows)), key=self.elapsed_s.__getitem__)
        return self.rows[best] if self.elapsed_s[best] < PADDING_GAIN * max(around) else rows

    @cached_property
    def _least_s(self) -> tuple[float, ...]:
        """The least seconds of a pass of so many rows or more, by rows, since a pass can be filled up."""
        return tuple(accumulate(reversed(self.elapsed_s), min))[::-1]

    def one_more(self, rows: int) -> float:
        """Seconds that one row adds to a pass of `rows`."""
        return 0.0 if len(self.rows) == 1 or rows < self.rows[0] else self._slope(rows)

    def good_size(self, limit: int) -> int:
        """The smallest pass, of `limit` rows at most, in which a row costs hardly more than in the cheapest."""
        best = min(self.seconds(n) / n for n in (*self.rows, limit) if n <= limit)
        return next(n for n in range(1, limit + 1) if best >= NEAR_BEST * self.seconds(n) / n)

    def best_budget(self, limit: int) -> int:
        """The smallest measured pass, of `limit` rows at most, whose rows are as good as the cheapest."""
        sizes = [n for n in self.rows if n <= limit] or [limit]
        best = min(self.seconds(n) / n for n in sizes)
        return next(n for n in sizes if best >= BUDGET_NEAR_BEST * self.seconds(n) / n)

    def reading(self, sweep_s: float, largest: int) -> PassCost:
        """The curve where each pass also reads the weights from a disk meanwhile, which takes `sweep_s`; with points
        up to passes of `largest` rows."""
        doubled = accumulate(range(20), lambda n, _: 2 * n, initial=self.rows[-1])
        rows = sorted({*self.rows, *(n for n in doubled if n < largest), largest})
        return PassCost(tuple(rows), tuple(max(sweep_s, self.seconds(n)) for n in rows))

    def scaled(self, factor: float) -> PassCost:
        """The same curve of a device that is so many times as slow."""
        return PassCost(self.rows, tuple(factor * seconds for seconds in self.elapsed_s))

    def _left(self, rows: int) -> int:
        return min(bisect_right(self.rows, rows), len(self.rows) - 1) - 1

    def _slope(self, rows: int) -> float:
        i = self._left(rows)
        return (self._least_s[i + 1] - self._least_s[i]) / (self.rows[i + 1] - self.rows[i])


UNKNOWN = PassCost((1, 2), (1.0, 2.0))
"""Before anything is measured: every row costs the same, so no draft is worth a row."""


def measure(
    run_pass: Callable[[int], None],
    sizes: Sequence[int],
    on_step: Callable[[int, int], object] = lambda done, all: None,
    rounds: int = ROUNDS,
    before: Sequence[int] | None = None,
) -> PassCost:
    """Time `run_pass(rows)` at each of the ascending sizes, in turn from the largest, `rounds` times after a round that
    does not count, of the sizes `before` or of all; the median of each size counts.

    In turn, since a device whose clock goes up and down with heat and power would favour whatever came at a good
    moment. `run_pass` must not return before the device has finished. `on_step` is told, between two sizes, how many
    of all are done.
    """
    times: dict[int, list[float]] = {size: [] for size in sizes}
    steps = [(size, False) for size in reversed(sizes if before is None else before)]
    steps += [(size, True) for size in reversed(sizes)] * rounds
    for done, (size, counts) in enumerate(steps):
        on_step(done, len(steps))
        begun = time.perf_counter()
        while (start := time.perf_counter()) - begun < ROUND_S:
            run_pass(size)
            if counts:
                times[size].append(time.perf_counter() - start)
    return PassCost(tuple(sizes), tuple(median(times[size]) for size in sizes))


def measure_in_a_row(
    start_pass: Callable[[int], Callable[[], object]],
    sizes: Sequence[int],
    hot_after_s: float,
    on_step: Callable[[int, int], object] = lambda done, all: None,
) -> dict[int, float]:
    """Seconds of a pass of each of the ascending sizes while passes follow each other as those of a large set do: each
    is handed to the device while the one before runs, and counts from the end of that one to its own.

    `start_pass(rows)` hands a pass over and returns what waits for its end. Sizes are walked down and up in turn. What
    a device does before `hot_after_s` does not count: until it is at its power limit it is faster than it can go on,
    and a clock that fell too low for a moment makes what comes then too slow. The median of `ROUNDS` rounds.
    """
    times: dict[int, list[float]] = {size: [] for size in sizes}
    begun = ended = time.perf_counter()
    running: tuple[int, Callable[[], object], bool] | None = None

    def end() -> None:
        nonlocal ended
        if running is not None:
            size, wait, counts = running
            wait()
            now = time.perf_counter()
            if counts:
                times[size].append(now - ended)
            ended = now

    turn = rounds = 0
    while sizes and rounds < ROUNDS:
        hot = time.perf_counter() - begun >= hot_after_s
        for at, size in enumerate(sizes if turn % 2 else reversed(sizes)):
            on_step(rounds * len(sizes) + at * hot, ROUNDS * len(sizes))
            wait = start_pass(size)
            end()
            running = size, wait, hot
        turn, rounds = turn + 1, rounds + hot
    end()
    return {size: median(seconds) for size, seconds in times.items()}


def roofline(shape: Shape, element_bytes: int, flops_per_s: float, bytes_per_s: float, largest: int) -> PassCost:
    """The curve of a device of which only the rates that it reaches are known, up to passes of `largest` rows.

    The products take their arithmetic or the reading of their weights, whichever is longer; what lies between
    them is memory traffic on top (Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009).
    """
    sweep_s = shape.swept_parameters * element_bytes / bytes_per_s
    row_s, moved_s = shape.flops_per_row / flops_per_s, shape.moved_elements_per_row * element_bytes / bytes_per_s
    break_even = max(1, int(sweep_s / row_s))
    rows = sorted({n for n in (1, break_even, largest) if n <= largest})
    return PassCost(tuple(rows), tuple(max(sweep_s, n * row_s) + n * moved_s for n in rows))
