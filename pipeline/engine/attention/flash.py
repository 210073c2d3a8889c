"""Attention by the flash kernel that ships with torch (FlashAttention-2, arXiv 2307.08691), with variable lengths.

`aten::_flash_attention_forward` is not public; what it takes has not changed from torch 2.4 to 2.13, and
`backend.py` tries it before it is used. K/V of every segment's context are gathered end to end first.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.arrays import upload
from pipeline.engine.attention import Attend
from pipeline.engine.segment import Packed
from pipeline.engine.shape import Shape


def plan(packed: Packed, shape: Shape, dtype: torch.dtype) -> Attend:
    query_lengths = packed.query_lengths.tolist()
    key_lengths = [len(context) for context in packed.contexts]
    ends = [np.array([0, *accumulate(lengths)]) for lengths in (query_lengths, key_lengths)]
    slots, query_ends, key_ends = upload([np.concatenate(packed.contexts), *ends], packed.tokens.device, np.int32)
    longest = max(query_lengths), max(key_lengths)
    window = {} if shape.window is None or longest[1] <= shape.window else {"window_size_left": shape.window - 1}

    def attend(qkv: Tensor, layer: Tensor) -> Tensor:
        kv = layer.index_select(0, slots)  # (contexts end to end, 2K, D)
        q, k, v = qkv[:, : shape.heads], kv[:, : shape.kv_heads], kv[:, shape.kv_heads :]
        out = torch.ops.aten._flash_attention_forward(
            q, k, v, query_ends, key_ends, *longest, 0.0, True, False, scale=shape.head_dim**-0.5, **window
        )[0]
        return out.reshape(len(qkv), shape.heads * shape.head_dim)

    return attend
