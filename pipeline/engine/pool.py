"""K/V of all tokens in use, one slot a token.

A slot is a row of one big tensor a layer. Which slots are free is kept on the host; those that were given
back are handed out before new ones, so that memory that was never needed is never touched.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pipeline.engine.arrays import Ints
from pipeline.engine.shape import Shape
from pipeline.errors import ResourceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Slots:
    """Which of `slots` places are free."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._is_free = np.ones(slots, dtype=bool)
        self._stack = np.arange(slots)[::-1].copy()  # the first `free` of them are free; the last of those goes first
        self._turn = np.zeros(slots, dtype=np.int64)
        self.free = slots
        self.peak_used = 0

    def take(self, count: int) -> Ints:
        """`count` free slots, given back ones before new ones. The caller knows that there are as many."""
        if count > self.free:
            raise AssertionError(f"{count} slots wanted, {self.free} free: the scheduler must make room first")
        slots = self._stack[self.free - count : self.free][::-1].copy()
        self._is_free[slots] = False
        self.free -= count
        self.peak_used = max(self.peak_used, self.slots - self.free)
        return slots

    def give_back(self, slots: Ints) -> None:
        turns = np.arange(len(slots))
        self._turn[slots] = turns
        if self._is_free[slots].any() or (self._turn[slots] != turns).any():  # of equal slots only the last turn stays
            raise AssertionError("a slot was given back twice")
        self._is_free[slots] = True
        self._stack[self.free : self.free + len(slots)] = slots[::-1]
        self.free += len(slots)

    def reset(self) -> None:
        """All slots free again; the peak is kept."""
        if self.free < self.slots:
            self.give_back(np.flatnonzero(~self._is_free))


class SlotPool(Slots):
    """Slots, and the K/V of one token in every layer for each of them."""

    def __init__(self, shape: Shape, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        """Raises ResourceError (R306) where the memory that was planned for is not there any more."""
        super().__init__(slots)
        self.store = self._allocate((shape.layers, slots, 2 * shape.kv_heads, shape.head_dim), dtype, device)

    def resize(self, slots: int) -> None:
        """More slots or fewer, all of them free: nothing may be in use. Raises ResourceError (R306), and is then as
        it was."""
        if self.free < self.slots:
            raise AssertionError("slots are in use")
        import torch  # noqa: PLC0415 - slots alone need none

        layers, before, *token = self.store.shape
        dtype, device = self.store.dtype, self.store.device
        self.store = torch.empty(0, dtype=dtype, device=device)  # never both at once
        try:
            self.store = self._allocate((layers, slots, *token), dtype, device)
        except ResourceError:
            self.store = self._allocate((layers, before, *token), dtype, device)
            raise
        super().__init__(slots)

    @staticmethod
    def _allocate(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """(layers, slots, 2K, D): K and V of a token side by side, written by one call, gathered by one call."""
        import torch  # noqa: PLC0415 - slots alone need none

        try:
            return torch.empty(size, dtype=dtype, device=device)
        except (RuntimeError, MemoryError) as error:  # Tegra's failure is a RuntimeError that names NVML
            raise ResourceError(
                "R306",
                "the memory that was planned for K/V cannot be allocated",
                where=str(device),
                expected=f"{prod(size) * dtype.itemsize / 2**20:,.0f} MiB for {size[1]:,} tokens",
                actual=str(error).splitlines()[0],
                fix="end what else uses the device, and run again",
            ) from error

    def layer(self, index: int) -> Tensor:
        """(slots, 2K, D): the first K heads are keys, the others values."""
        return self.store[index]
