"""K/V of all live tokens, one slot a token.

A slot is a row of one big tensor a layer. Which slots are free is kept on the host; the lowest free
ones are handed out first, so that memory that was never needed is never touched.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.arrays import Ints
from pipeline.engine.weights import Shape


class SlotPool:
    """`slots` places for one token's K/V in every layer."""

    def __init__(self, shape: Shape, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        self.slots = slots
        # K and V of a token side by side: written by one call, gathered by one call.
        self.store = torch.empty(  # (layers, slots, 2K, D)
            shape.layers, slots, 2 * shape.kv_heads, shape.head_dim, dtype=dtype, device=device
        )
        self._free = np.ones(slots, dtype=bool)
        self.free = slots
        self.peak_used = 0

    def layer(self, index: int) -> Tensor:
        """(slots, 2K, D): the first K heads are keys, the others values."""
        return self.store[index]

    def take(self, count: int) -> Ints:
        """The lowest `count` free slots. The caller knows that there are as many."""
        if count > self.free:
            raise AssertionError(f"{count} slots wanted, {self.free} free: the scheduler must make room first")
        slots = np.flatnonzero(self._free)[:count]
        self._free[slots] = False
        self.free -= count
        self.peak_used = max(self.peak_used, self.slots - self.free)
        return slots

    def give_back(self, slots: Ints) -> None:
        if self._free[slots].any() or len(np.unique(slots)) != len(slots):
            raise AssertionError("a slot was given back twice")
        self._free[slots] = True
        self.free += len(slots)

    def reset(self) -> None:
        """All slots free again."""
        self._free[:] = True
        self.free = self.slots
