"""Warm-up: time passes of made-up tokens, and derive from their cost how large passes are and how many answers run.

Sees no data of the run. The curve itself and how it is timed: `cost.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.engine import cost
from pipeline.engine.cost import PassCost
from pipeline.engine.pass_runner import Passes
from pipeline.engine.segment import Segment
from pipeline.engine.state import Limits

SIZES = (1, 8, 16, 32, 64, 128, 192, 256, 384, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
"""Tokens of the passes that are timed: close together where arithmetic begins to take longer than reading weights."""

LARGE = 1024
"""Passes of so many tokens and more are timed one right after the other on a GPU, as a set's prompts make them: the
device then runs at its power limit. Smaller ones mostly read weights, and wait for the results of the one before."""

HEAT_UP_S = 1.5
"""A GPU runs faster than it can go on for about a second: nothing is timed before."""

CONTEXT = 128
"""Tokens that each segment of a timed pass has as its context: about what the contest's prompts have."""

ANSWERS = 128
"""Tokens of a timed pass that are answers'; beyond them a pass grows by prompt tokens."""

TOKENS_PER_ANSWER = 8
"""There are at least as many running answers as the largest pass has tokens, divided by this: a pass of short prompts
begins that many."""


FEW_SIZES, FEW_ROUNDS, FEW_BEFORE = (1, 16, 64, 256), 1, 2
"""What is timed on a CPU for a small set, where timing all sizes would take as long as the set. Only so many of the
smallest sizes run before what counts: a CPU's first pass of a size takes as long as its next."""

HOLDS = 1.5
"""A kept curve still holds if the ratio of its two ends has changed by at most this factor."""


def measure(
    passes: Passes,
    limits: Limits,
    on_step: Callable[[int, int], object] = lambda done, all: None,
    few: bool = False,
) -> PassCost:
    """The cost curve of this model on this device, in seconds; `on_step(done, all)` between two steps. `few`: at a
    few sizes only, as is enough for a small set on a CPU. Raises ResourceError (R304) as any pass does."""
    weights, computing = passes.weights, passes
    if weights.streamed:
        # Computing is timed with one layer in the place of all, reading by one real pass.
        layers = (next(iter(weights.layers)),) * weights.shape.layers
        computing = Passes(replace(weights, layers=layers), passes.pool, passes.backend)
    largest = min(limits.chunk_rows or limits.budget_rows, limits.slots)
    sizes = [n for n in (FEW_SIZES if few else SIZES) if n <= largest]
    rounds = FEW_ROUNDS if few else cost.ROUNDS
    large = [n for n in sizes if n >= LARGE and weights.device.type == "cuda"]
    small = sizes[: len(sizes) - len(large)]
    before = small[:FEW_BEFORE] if few else small
    steps = cost.ROUNDS * len(large), len(before) + rounds * len(small)

    ready = {n: _segments(computing, n) for n in large}
    times = cost.measure_in_a_row(
        lambda tokens: computing.run(ready[tokens]).tokens, large, HEAT_UP_S, lambda done, _: on_step(done, sum(steps))
    )
    curve = cost.measure(
        lambda tokens: _run(computing, tokens),
        small,
        lambda done, _: on_step(steps[0] + done, sum(steps)),
        rounds,
        before,
    )
    curve = cost.PassCost((*curve.rows, *times), (*curve.elapsed_s, *times.values()))
    if weights.streamed:
        start = time.perf_counter()
        _run(passes, 1)
        curve = curve.reading(time.perf_counter() - start, limits.budget_rows)
    return curve


def held_again(
    passes: Passes,
    limits: Limits,
    known: PassCost,
    on_step: Callable[[int, int], object] = lambda done, all: None,
) -> PassCost | None:
    """A curve that was measured here before, scaled to this device's speed now. None if its two ends no longer have the
    ratio that they had, or if it is of other sizes."""
    largest = min(limits.budget_rows, limits.slots)
    if known.rows != tuple(n for n in SIZES if n <= largest) or len(known.rows) < 2:
        return None
    ends = known.rows[0], known.rows[-1]
    now = cost.measure(lambda tokens: _run(passes, tokens), ends, on_step, rounds=1, before=ends[:1])
    low, high = sorted(now.elapsed_s[i] / known.elapsed_s[i] for i in (0, -1))
    return known.scaled((low * high) ** 0.5) if high <= HOLDS * low else None


def fitting(limits: Limits, curve: PassCost) -> Limits:
    """`limits` with the pass size that makes a token cheapest, and with as many running answers as fill it: more would
    only hold slots. One for `TOKENS_PER_ANSWER` tokens of the largest pass at least."""
    if curve is cost.UNKNOWN:
        return limits
    budget = curve.best_budget(limits.budget_rows)
    answers = max(curve.good_size(budget), budget // TOKENS_PER_ANSWER)
    return replace(limits, budget_rows=budget, live=min(limits.live, answers))


def _run(passes: Passes, tokens: int) -> None:
    passes.run(_segments(passes, tokens)).tokens()


def _segments(passes: Passes, tokens: int) -> list[Segment]:
    """A pass of so many tokens: answers of one token up to `ANSWERS`, the rest as prompts come: runs of tokens, one of
    which is an output row. All over the same made-up context."""
    context = np.arange(min(CONTEXT, passes.pool.slots))
    passes.pool.store[:, : len(context)].zero_()  # what lay there could be denormal numbers, which are slow
    lengths = [1] * min(tokens, ANSWERS)
    while (left := tokens - sum(lengths)) > 0:
        lengths.append(min(left, len(context) // 2))
    # Different tokens: a GPU that multiplies equal rows needs less power and runs faster than it will.
    ids = np.random.default_rng(tokens).integers(0, passes.weights.shape.vocab, tokens)
    ends = np.cumsum(lengths)
    return [Segment(ids[end - n : end], len(context) - n, context, 1) for n, end in zip(lengths, ends, strict=True)]
