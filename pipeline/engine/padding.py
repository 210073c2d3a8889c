"""The sizes that products are computed with, 136 up to 8,192 rows, and tensors with room for them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

FINE_ROWS = 256
"""Up to so many rows a product takes about the time of reading its weights."""

STEPS = {FINE_ROWS: 16, 2048: 32, 4096: 64}
"""Sizes up to so many rows are multiples of this."""

LARGE_STEP = 128
"""Beyond, where tiles are of 128 rows: padding costs little."""


@cache  # asked several times for each layer of a pass
def padded(rows: int) -> int:
    """The size that a product of so many rows is computed with."""
    step = next((step for limit, step in STEPS.items() if rows <= limit), LARGE_STEP)
    return max(1, -(-rows // step)) * step


def sizes(largest: int) -> list[int]:
    """All sizes up to that of `largest` rows, ascending."""
    found, size = [], 0
    while size < padded(largest):
        size = padded(size + 1)
        found.append(size)
    return found


def roomy(rows: int, width: int, like: Tensor) -> Tensor:
    """An uninitialised (rows, width) with room behind its last row for what a product pads it to."""
    size = padded(rows)
    room = torch.empty(size, width, dtype=like.dtype, device=like.device)
    return room if size == rows else room[:rows]
