"""Attention by our C++ code, which reads K/V where they lie in the pool: nothing is gathered, padded or masked.

The host only says which slots each row sees.
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.engine.arrays import Ints, upload
from pipeline.engine.attention import Attend, Plan
from pipeline.engine.kernels.cpu import CpuKernels
from pipeline.engine.segment import Packed, runs
from pipeline.engine.shape import Shape


def planner(kernels: CpuKernels) -> Plan:
    """Attention by `kernels`: says once for all layers what each row sees."""

    def plan(packed: Packed, shape: Shape, dtype: torch.dtype) -> Attend:
        contexts = np.concatenate(packed.contexts)
        slots, first, keys = upload([contexts, *seen(packed, shape.window)], packed.tokens.device)
        return lambda qkv, layer: kernels.attend(qkv, layer, slots, first, keys, shape)

    return plan


def seen(packed: Packed, window: int | None) -> tuple[Ints, Ints]:
    """For each row of the pass: its first key's place among the contexts end to end, and its number of keys."""
    lengths, contexts = packed.query_lengths, np.array([len(context) for context in packed.contexts])
    ends = runs(contexts - lengths + 1, lengths)  # keys of each row were there no window
    keys = ends if window is None else np.minimum(ends, window)
    starts = np.repeat(np.cumsum(contexts) - contexts, lengths)
    return starts + ends - keys, keys
