"""A row of our attention kernel has the same bits whatever comes beside it: `pytest -m gpu`, on a machine with a GPU.

Depends it may on its query, its context and the window alone: not on which rows share its tile, on how many blocks that
it does not see its tile walks through, on where its context is cut into passes, or on where its K/V lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.engine.attention import paged
from pipeline.engine.kernels import library
from pipeline.engine.segment import Segment, pack
from pipeline.engine.shape import Shape

pytestmark = pytest.mark.gpu

BF16 = torch.bfloat16
SHAPE = Shape(
    vocab=99, hidden=512, layers=1, heads=8, kv_heads=2, head_dim=128, intermediate=64, norm_eps=1e-5, rope_theta=1e4,
    max_positions=4096, window=None, tied=True,
)  # fmt: skip
LENGTH = 700
SPIKES = (3, 31, 32, 95, 300, 511, 640)
"""Positions whose keys are far larger: there the maximum rises, by much or by little."""


class Prompt:
    """q, k, v of one prompt of LENGTH tokens."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape, self.device = shape, torch.device("cuda")
        generator = torch.Generator().manual_seed(seed)
        self.q = (torch.randn(LENGTH, shape.heads, shape.head_dim, generator=generator) * 2).to(BF16).cuda()
        kv = torch.randn(LENGTH, 2 * shape.kv_heads, shape.head_dim, generator=generator)
        kv[list(SPIKES), : shape.kv_heads] *= torch.linspace(1.01, 3, len(SPIKES))[:, None, None]
        self.kv = kv.to(BF16).cuda()
        self.kernels = library.load(torch.cuda.get_device_capability())

    def attend(self, parts: Sequence[tuple[int, int]], seed: int) -> list[Tensor]:
        """The rows (first, end) of each part, all in one pass, K/V scattered over a pool full of NaN."""
        shape, rng = self.shape, np.random.default_rng(seed)
        slots = rng.permutation(3 * LENGTH)[:LENGTH]
        layer = torch.full((3 * LENGTH, 2 * shape.kv_heads, shape.head_dim), float("nan"), dtype=BF16).cuda()
        layer[torch.from_numpy(slots).cuda()] = self.kv
        segments = [Segment(np.ones(end - first, dtype=np.int64), first, slots[:end], 0) for first, end in parts]
        query = torch.cat([self.q[first:end] for first, end in parts])
        qkv = torch.cat([query, torch.full_like(query[:, : 2 * shape.kv_heads], float("nan"))], 1).contiguous()
        attend = paged.planner(self.kernels)(pack(segments, self.device), shape, BF16)
        return list(attend(qkv, layer).split([end - first for first, end in parts]))


@pytest.mark.parametrize("window", [None, 1, 33, 200])
@pytest.mark.parametrize("group", [1, 4, 8])
@pytest.mark.parametrize("head_dim", [64, 96, 128])
def test_a_row_has_the_same_bits_in_every_tile(head_dim: int, group: int, window: int | None) -> None:
    shape = replace(SHAPE, head_dim=head_dim, kv_heads=8 // group, window=window)
    for seed in range(3):
        prompt = Prompt(shape, seed)
        (whole,) = prompt.attend([(0, LENGTH)], seed)
        assert whole.isfinite().all()
        rng = np.random.default_rng(seed)
        for turn in range(6):
            cuts = np.unique([0, LENGTH, *rng.integers(1, LENGTH, rng.integers(1, 40))])
            parts = list(zip(cuts.tolist(), cuts[1:].tolist(), strict=False))
            order = rng.permutation(len(parts)).tolist()
            found = prompt.attend([parts[index] for index in order], seed + turn)
            for index, rows in zip(order, found, strict=True):
                assert torch.equal(rows, whole[slice(*parts[index])]), parts[index]


@pytest.mark.parametrize("head_dim", [64, 96, 128])
def test_a_row_alone_has_the_bits_of_its_prompt(head_dim: int) -> None:
    """As the rows of an answer are computed: one token a segment, many segments or one a pass."""
    prompt = Prompt(replace(SHAPE, head_dim=head_dim), 9)
    (whole,) = prompt.attend([(0, LENGTH)], 0)
    together = prompt.attend([(row, row + 1) for row in range(LENGTH)], 1)
    assert torch.equal(torch.cat(together), whole)
    for row in (0, 1, 31, 32, 33, 300, 301, LENGTH - 1):
        assert torch.equal(prompt.attend([(row, row + 1)], row)[0], whole[row : row + 1])
