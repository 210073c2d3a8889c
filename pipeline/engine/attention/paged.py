"""Attention by our own kernel, which reads K/V where they lie in the pool: nothing is gathered or padded.

The host only says which tiles there are: TILE_ROWS rows of one segment, where a row is one query head of
those that share a K/V head (attention.cu does each tile once for every K/V head).
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.engine.arrays import Ints, upload
from pipeline.engine.attention import Attend, Plan
from pipeline.engine.kernels.library import TILE_ROWS, Kernels
from pipeline.engine.segment import Packed
from pipeline.engine.shape import Shape

UNLIMITED = 2**30
"""A window that no context reaches."""


def planner(kernels: Kernels) -> Plan:
    """Attention by our kernels: uploads a pass's slots and work list once, for all layers."""

    def plan(packed: Packed, shape: Shape, dtype: torch.dtype) -> Attend:
        contexts, table = host_tables(packed, shape.heads // shape.kv_heads)
        slots, flat = upload([contexts, table.ravel()], packed.tokens.device, np.int32)
        on_device = flat.view(-1, table.shape[1])
        window = shape.window or UNLIMITED
        return lambda qkv, layer: kernels.attend(qkv, layer, slots, on_device, shape, window)

    return plan


def host_tables(packed: Packed, group: int) -> tuple[Ints, Ints]:
    """Slots of the contexts end to end, and `tiles`."""
    return np.concatenate(packed.contexts), tiles(packed, group)


def tiles(packed: Packed, group: int) -> Ints:
    """The kernel's work list (tiles, 5): a segment's first row in the pass, its rows, its first slot, its slots, and
    the first (query, head) row of the tile."""
    queries = packed.query_lengths
    keys = np.array([len(context) for context in packed.contexts])
    counts = -(-queries * group // TILE_ROWS)
    segment = np.repeat(np.arange(len(queries)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    first = (np.arange(len(segment)) - before) * TILE_ROWS
    row, context = np.cumsum(queries) - queries, np.cumsum(keys) - keys
    return np.stack([row[segment], queries[segment], context[segment], keys[segment], first], axis=1)
