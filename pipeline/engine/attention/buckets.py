"""Attention by scaled_dot_product_attention on segments put together into padded buckets.

Works on every device, in every dtype and with every torch from 2.4 on. The query heads that share a K/V
head become rows of one head (exact, and it needs no repeated K/V; `enable_gqa` came only with torch 2.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.attention import Attend
from pipeline.engine.segment import Packed
from pipeline.engine.shape import Shape

BUCKET_KEYS = 4096
"""Keys in one bucket at most, padding included: what is gathered stays in the processor's cache."""

PADDING = 1.25
"""A bucket may be so much larger than what it holds."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Segments of similar lengths: B of them, padded to Lq queries and Lk keys."""

    queries: Tensor  # (B·Lq): row of the pass
    keys: Tensor  # (B·Lk): slot
    mask: Tensor  # (B, 1, g·Lq, Lk): 0 or -inf, in the dtype of the queries
    real: Tensor | None  # (rows): which of the B·Lq queries are not padding; None: all
    size: tuple[int, int, int]  # B, Lq, Lk


def plan(packed: Packed, shape: Shape, dtype: torch.dtype) -> Attend:
    device = packed.tokens.device
    buckets = [_bucket(packed, members, shape, dtype, device) for members in _group(packed)]
    scale = shape.head_dim**-0.5

    def attend(qkv: Tensor, layer: Tensor) -> Tensor:
        q = qkv[:, : shape.heads]
        out = torch.empty(q.shape[0], shape.heads * shape.head_dim, dtype=q.dtype, device=q.device)
        for bucket in buckets:
            rows = bucket.queries if bucket.real is None else bucket.queries[bucket.real]
            mixed = _attend_bucket(q, layer, bucket, shape, scale)
            out.index_copy_(0, rows, mixed if bucket.real is None else mixed[bucket.real])
        return out

    return attend


def _attend_bucket(q: Tensor, layer: Tensor, bucket: Bucket, shape: Shape, scale: float) -> Tensor:
    """(B·Lq, Q·D), padding included."""
    b, lq, lk = bucket.size
    k_heads, d = shape.kv_heads, shape.head_dim
    group = shape.heads // k_heads
    kv = layer.index_select(0, bucket.keys).view(b, lk, 2 * k_heads, d).transpose(1, 2)  # (B, 2K, Lk, D)
    grouped = q.index_select(0, bucket.queries).view(b, lq, k_heads, group, d)
    grouped = grouped.permute(0, 2, 3, 1, 4).reshape(b, k_heads, group * lq, d)
    mixed = F.scaled_dot_product_attention(
        grouped, kv[:, :k_heads], kv[:, k_heads:], attn_mask=bucket.mask, scale=scale
    )
    return mixed.view(b, k_heads, group, lq, d).permute(0, 3, 1, 2, 4).reshape(b * lq, shape.heads * d)


def _group(packed: Packed) -> Iterator[list[int]]:
    """Segments sorted by lengths and cut where a bucket would get too large or too hollow."""
    lq = packed.query_lengths
    lk = np.array([len(context) for context in packed.contexts])
    members: list[int] = []
    real = 0
    for index in np.lexsort((lk, lq)).tolist():
        trial = [*members, index]
        # Sorted by queries first: the newest has the most queries, but any may have the most keys.
        keys = len(trial) * int(lk[trial].max())
        cost = len(trial) * int(lq[index]) * int(lk[trial].max())
        real_trial = real + int(lq[index] * lk[index])
        one_kind = not members or (lq[members[0]] == 1) == (lq[index] == 1)
        if members and (keys > BUCKET_KEYS or cost > PADDING * real_trial or not one_kind):
            yield members
            members, real = [index], int(lq[index] * lk[index])
        else:
            members, real = trial, real_trial
    if members:
        yield members


def _bucket(packed: Packed, members: list[int], shape: Shape, dtype: torch.dtype, device: torch.device) -> Bucket:
    starts = np.concatenate([[0], np.cumsum(packed.query_lengths)])
    b = len(members)
    lengths_q = packed.query_lengths[members]
    lengths_k = np.array([len(packed.contexts[m]) for m in members])
    lq, lk = int(lengths_q.max()), int(lengths_k.max())

    # Padding repeats the last real query and the first key: real numbers, so that nothing becomes NaN.
    step_q = np.minimum(np.arange(lq)[None], lengths_q[:, None] - 1)  # (B, Lq)
    queries = starts[members][:, None] + step_q
    keys = np.empty((b, lk), dtype=np.int64)
    for row, m in enumerate(members):
        context = packed.contexts[m]
        keys[row, : len(context)] = context
        keys[row, len(context) :] = context[0]

    at_q = (lengths_k - lengths_q)[:, None] + step_q  # (B, Lq): position of each query
    at_k = np.arange(lk)
    seen = at_k[None, None, :] <= at_q[:, :, None]
    if shape.window is not None:
        seen &= at_k[None, None, :] > at_q[:, :, None] - shape.window
    group = shape.heads // shape.kv_heads
    mask = torch.zeros(b, lq, lk, dtype=dtype).masked_fill_(torch.from_numpy(~seen), float("-inf"))
    real = np.flatnonzero((np.arange(lq)[None] < lengths_q[:, None]).ravel())
    return Bucket(
        queries=torch.from_numpy(queries.ravel()).to(device),
        keys=torch.from_numpy(keys.ravel()).to(device),
        mask=mask.repeat(1, group, 1)[:, None].to(device),
        real=None if len(real) == b * lq else torch.from_numpy(real).to(device),
        size=(b, lq, lk),
    )
