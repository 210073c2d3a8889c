"""Attention of a packed pass against softmax written out in float64, one row at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.engine.attention import buckets
from pipeline.engine.segment import Segment, pack
from pipeline.engine.shape import Shape

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = Shape(
    vocab=5, hidden=8, layers=1, heads=4, kv_heads=2, head_dim=8, intermediate=4, norm_eps=1e-5, rope_theta=1e4,
    max_positions=9000, window=None, tied=True,
)  # fmt: skip
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}


def written_out(q: Tensor, layer: Tensor, segments: list[Segment], shape: Shape) -> Tensor:
    """(T, Q·D) in float64."""
    q, layer = q.double(), layer.double()
    rows = []
    for segment in segments:
        for position in range(segment.start, segment.start + len(segment)):
            first = 0 if shape.window is None else max(0, position + 1 - shape.window)
            seen = layer[torch.from_numpy(segment.context[first : position + 1])]  # (N, 2K, D)
            heads = []
            for head in range(shape.heads):
                kv_head = head // (shape.heads // shape.kv_heads)
                scores = seen[:, kv_head] @ q[len(rows), head] / math.sqrt(shape.head_dim)
                heads.append(scores.softmax(0) @ seen[:, shape.kv_heads + kv_head])
            rows.append(torch.cat(heads))
    return torch.stack(rows)


def check(shape: Shape, lengths: list[tuple[int, int]], dtype: torch.dtype, seed: int = 0) -> None:
    """`lengths`: of each segment, the tokens before it and its own. Slots are scattered."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    slots = max(before + new for before, new in lengths) + 20
    segments = []
    for before, new in lengths:
        context = rng.permutation(slots)[: before + new]
        segments.append(Segment(np.ones(new, dtype=np.int64), before, context, 0))
    used = np.unique(np.concatenate([segment.context for segment in segments]))
    layer = torch.full((slots, 2 * shape.kv_heads, shape.head_dim), float("nan"), dtype=dtype)
    layer[torch.from_numpy(used)] = torch.randn(len(used), *layer.shape[1:]).to(dtype)
    q = torch.randn(sum(new for _, new in lengths), shape.heads, shape.head_dim).to(dtype) * 2
    attend = buckets.plan(pack(segments, torch.device("cpu")), shape, dtype)
    found = attend(q, layer)
    assert found.dtype == dtype
    expected = written_out(q, layer, segments, shape)
    assert found.shape == expected.shape
    assert (found.double() - expected).abs().max().item() < CLOSE[dtype]


LENGTHS = st.lists(st.tuples(st.integers(0, 40), st.one_of(st.just(1), st.integers(1, 17))), min_size=1, max_size=9)
HEADS = st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 2), (5, 1)])


@settings(max_examples=80)
@given(LENGTHS, HEADS, st.one_of(st.none(), st.integers(1, 30)), st.sampled_from(list(CLOSE)), st.integers(0, 9))
def test_any_mixture_of_segments(
    lengths: list, heads: tuple, window: int | None, dtype: torch.dtype, seed: int
) -> None:
    check(replace(SHAPE, heads=heads[0], kv_heads=heads[1], window=window), lengths, dtype, seed)


@pytest.mark.parametrize("window", [None, 1, 2, 7, 100])
@pytest.mark.parametrize("new", [1, 2, 13])
def test_a_row_sees_itself_and_what_is_before_it_within_the_window(new: int, window: int | None) -> None:
    check(replace(SHAPE, window=window), [(0, new), (31, new)], torch.float64)


def test_contexts_of_very_different_lengths_in_one_pass() -> None:
    check(SHAPE, [(5000, 1), (3, 1), (700, 1), (0, 1), (0, 37), (2000, 3), (1, 2)], torch.float32)


def test_many_short_segments() -> None:
    check(SHAPE, [(step % 90, 1) for step in range(150)], torch.float32)


def test_large_scores_do_not_overflow() -> None:
    shape = replace(SHAPE, heads=1, kv_heads=1)
    segment = Segment(np.ones(3, dtype=np.int64), 0, np.array([2, 0, 1]), 0)
    layer = torch.tensor([[1e4], [-1e4], [2e4]]).repeat(1, 2 * shape.head_dim).view(3, 2, shape.head_dim)
    q = torch.full((3, 1, shape.head_dim), 50.0)
    found = buckets.plan(pack([segment], torch.device("cpu")), shape, torch.float32)(q, layer)
    assert torch.equal(found, torch.full((3, shape.head_dim), 2e4))
