"""How large a pass and how many K/V slots fit into what the device has left.

A first plan, made once before the first allocation: activations of the largest pass, then slots out
of the rest, with a margin kept free.
"""

from __future__ import annotations

import torch

from pipeline.engine.weights import Shape
from pipeline.engine.work import Limits
from pipeline.errors import ResourceError

MARGIN = 0.10
"""Share of the free memory that stays free."""

BUDGET_ROWS = {"cpu": 256, "cuda": 8192}
"""Rows of a pass at most: beyond these a row gets no cheaper (`benchmarks/cpu.py`, `benchmarks/gpu.py`)."""

PASS_SHARE = 0.25
"""Of what is usable, for the activations of a pass; the rest is for K/V."""

LIVE = 4096
"""Answers at the same time at most; the measured cost of a pass lowers it."""

CONTEXTS = {"cpu": 2, "cuda": 32}
"""Slots for so many of the longest contexts at most; a CPU's answers are few at a time."""


def plan(shape: Shape, dtype: torch.dtype, device: torch.device, free_bytes: int) -> Limits:
    """The limits of an engine whose weights are resident already.

    Raises ResourceError (R302) when not even one prompt of the longest context would fit.
    """
    usable = int(free_bytes * (1 - MARGIN))
    row_bytes = activation_bytes_per_row(shape, dtype)
    budget_rows = BUDGET_ROWS[device.type]
    while budget_rows > 128 and budget_rows * row_bytes > PASS_SHARE * usable:
        budget_rows //= 2
    usable -= budget_rows * row_bytes
    kv_bytes = shape.kv_elements_per_token * dtype.itemsize
    slots = min(CONTEXTS[device.type] * shape.max_positions, usable // kv_bytes)
    if slots < shape.max_positions:
        raise ResourceError(
            "R302",
            "too little memory is left for the longest context",
            where=str(device),
            expected=f"{shape.max_positions:,} tokens of K/V, {shape.max_positions * kv_bytes / 2**20:,.0f} MiB",
            actual=f"{max(0, usable) / 2**20:,.0f} MiB beside activations and margin",
            fix="end other programs, or use a smaller model",
        )
    return Limits(budget_rows=budget_rows, slots=slots, live=LIVE)


def activation_bytes_per_row(shape: Shape, dtype: torch.dtype) -> int:
    """The most that is alive at once for a row inside a layer: the MLP with its two intermediate parts and the
    residual, or the norm in float32; attention's gathered keys are bounded by its bucket."""
    elements = 4 * shape.hidden + shape.qkv_rows + 4 * shape.intermediate
    return elements * dtype.itemsize + 2 * shape.hidden * 4
