"""The trial of matrix products: finds a class of equal bits that covers all sizes, and the way to take for each.

For one weight and each size, candidates run on rows drawn from a few distinct random ones, in other places each time,
into outputs full of NaN. A class is all ways that give each distinct row the same bits as the way that it is named
after: torch at the largest size, our kernel, or cuBLASLt at the largest size. The first class in this order that has a
way for every size is taken.

Small sizes take what is fastest in the class: there a product takes the time of reading its weights. Larger ones take
torch's product where it is in the class, unless our kernel is clearly faster: single products timed alone say little
about a device at its power limit. A small size that takes clearly longer than a larger one is left out: its products
are computed with the larger.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.engine.padding import FINE_ROWS
from pipeline.engine.products import CUBLASLT, OURS, TORCH, Run, Way

DISTINCT_ROWS = 256
COMPARED_ROWS = 512
"""Rows compared at the same time, so that comparing needs little memory."""

TIMED_ROUNDS, TIMED_CALLS = 3, 4
CLEARLY_FASTER = 0.95
"""Share of torch's time below which our product or cuBLASLt's is taken instead."""

WAIT_CYCLES = 1_000_000
"""The device waits so many of its clock's cycles, half a millisecond to one, while calls are launched."""

LEFT_OUT_ROWS, LEFT_OUT_GAIN = 512, 0.9
"""A size up to so many rows is left out where a larger one of these takes less than this share of its time."""

TIMED_SIZES = (512, 1024, 2048, 4096, 8192)
"""Rows of the larger sizes that are timed; those between follow the next of these."""

Propose = Callable[[int, Tensor, int], Sequence[Way]]
"""(rows, weight, stride of x): what there is to try beside torch, cuBLASLt's first, then ours."""

Clock = Callable[[Callable[[], object]], float]
"""Seconds that the device spends in a call."""


class NoClass(Exception):
    """No class of equal bits covers all sizes; the message says where it ended, in one line."""


def cuda_clock(call: Callable[[], object]) -> float:
    """The device waits first, until all is launched: a small product takes less time than its launch."""
    torch.cuda._sleep(WAIT_CYCLES)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def host_clock(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def choose(
    run: Run, propose: Propose, weights: Sequence[Tensor], stride: int, sizes: Sequence[int], clock: Clock = cuda_clock
) -> dict[int, Way]:
    """For each size but slow ones, the way to compute x · weightᵀ, where x has `stride` values from row to row.

    `weights`: of one shape; the first is tried. All take turns when times are measured, so that none is found in a
    cache. Raises NoClass; and RuntimeError where there is no memory for the largest size.
    """
    trial = Trial(run, weights, stride, sizes[-1])
    reasons = []
    for first in _firsts(propose(sizes[-1], weights[0], stride)):
        rows = trial.rows(first, sizes[-1])
        if rows is None:
            reasons.append(f"{first.text()}: it does not run, or gives equal rows different bits")
            continue
        try:
            return _without_slow(trial, dict(_ways(trial, rows, propose, sizes, clock)), clock)
        except NoClass as reason:
            reasons.append(f"the bits of {first.text()}: {reason}")
    raise NoClass("; ".join(reasons))


def _firsts(proposed: Sequence[Way]) -> Iterator[Way]:
    """The ways that may name a class of equal bits: torch's, then the first of ours and of cuBLASLt's."""
    yield Way(TORCH)
    for name in (OURS, CUBLASLT):
        yield from [way for way in proposed if way.name == name][:1]


def _ways(
    trial: Trial, rows: Tensor, propose: Propose, sizes: Sequence[int], clock: Clock
) -> Iterator[tuple[int, Way]]:
    """From the largest size down; a size that is not timed follows the next larger one that was."""
    followed: Way | None = None
    for size in sorted(sizes, reverse=True):
        timed = followed is None or size <= FINE_ROWS or size in TIMED_SIZES
        if not timed and followed is not None and trial.gives(followed, size, rows):
            yield size, followed
            continue
        candidates = [Way(TORCH), *propose(size, trial.weights[0], trial.stride)]
        ways = [way for way in candidates if trial.gives(way, size, rows)]
        if not ways:
            raise NoClass(f"no way gives them at {size} rows")
        way = _fastest(trial, ways, size, clock)
        followed = way if timed else followed
        yield size, way


def _without_slow(trial: Trial, ways: dict[int, Way], clock: Clock) -> dict[int, Way]:
    """The library has sizes that take longer than larger ones: 192 rows longer than 256, 448 longer than 512."""
    few = [size for size in sorted(ways) if size <= LEFT_OUT_ROWS]
    seconds = {size: trial.seconds([ways[size]], size, clock)[ways[size]] for size in few}
    slow = {n for n in few if min(seconds[m] for m in few if m >= n) < LEFT_OUT_GAIN * seconds[n]}
    return {size: way for size, way in ways.items() if size not in slow}


def _fastest(trial: Trial, ways: Sequence[Way], size: int, clock: Clock) -> Way:
    by_torch = Way(TORCH)
    if by_torch in ways and size > FINE_ROWS:
        ways = [way for way in ways if way.name != CUBLASLT]
    if len(ways) == 1:
        return ways[0]
    seconds = trial.seconds(ways, size, clock)
    best = min(ways, key=seconds.__getitem__)
    if by_torch in ways and seconds[best] > CLEARLY_FASTER * seconds[by_torch]:
        return by_torch
    return best


@dataclass
class Trial:
    """One weight's products on rows of which few are distinct."""

    run: Run
    weights: Sequence[Tensor]
    stride: int
    largest: int

    def __post_init__(self) -> None:
        weight = self.weights[0]
        inputs, device = weight.shape[1], weight.device
        self._distinct = min(DISTINCT_ROWS, self.largest)
        values = torch.randn(self._distinct, inputs, device=device).to(weight.dtype)
        shuffles = -(-self.largest // self._distinct) + 1
        self._which = torch.cat([torch.randperm(self._distinct, device=device) for _ in range(shuffles)])
        count = len(self._which)
        self._x = torch.empty(count, self.stride, dtype=weight.dtype, device=device)[:, :inputs]
        for start in range(0, count, COMPARED_ROWS):
            self._x[start : start + COMPARED_ROWS] = values[self._which[start : start + COMPARED_ROWS]]
        self._turn = 0

    def rows(self, way: Way, size: int) -> Tensor | None:
        """The result (distinct rows, N) of each distinct row, of which `size` rows hold all; None where equal rows get
        different bits, or the way does not run."""
        which = self._which[self._distinct : self._distinct + size]
        try:
            y = self._result(way, self._distinct, size)
        except RuntimeError:
            return None
        found = torch.empty(self._distinct, y.shape[1], dtype=y.dtype, device=y.device)
        found[which] = y
        return found if bool(found.isfinite().all()) and _same(y, which, found) else None

    def gives(self, way: Way, size: int, rows: Tensor) -> bool:
        """Whether the rows of a product of `size` rows have these bits. They lie elsewhere each time."""
        self._turn += 1
        start = self._turn * 37 % self._distinct
        try:
            y = self._result(way, start, size)
        except RuntimeError:
            return False
        return _same(y, self._which[start : start + size], rows)

    def seconds(self, ways: Sequence[Way], size: int, clock: Clock) -> dict[Way, float]:
        """Seconds of one product in each way; the median of rounds in which they take turns."""
        found: dict[Way, list[float]] = {way: [] for way in ways}
        count = TIMED_CALLS if size <= LEFT_OUT_ROWS else 1
        for turn in range(TIMED_ROUNDS + 1):
            for way in ways:
                took = clock(partial(self._repeat, way, size, count))
                if turn:
                    found[way].append(took / count)
        return {way: statistics.median(values) for way, values in found.items()}

    def _repeat(self, way: Way, size: int, count: int) -> None:
        for index in range(count):
            self.run(way, self._x[:size], self.weights[index % len(self.weights)])

    def _result(self, way: Way, start: int, size: int) -> Tensor:
        weight = self.weights[0]
        # The allocator hands this memory out next: an element that nobody writes stays NaN, and is seen.
        poison = torch.full((size, weight.shape[0]), float("nan"), dtype=weight.dtype, device=weight.device)
        del poison
        return self.run(way, self._x[start : start + size], weight)


def _same(y: Tensor, which: Tensor, rows: Tensor) -> bool:
    """Whether y is rows[which], bit for bit."""
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[y.element_size()]
    parts = zip(y.view(bits).split(COMPARED_ROWS), which.split(COMPARED_ROWS), strict=True)
    return all(torch.equal(part, rows.view(bits)[index]) for part, index in parts)
