"""Which way of computing is taken, and that one which is wrong or missing is passed over with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.engine import self_test
from pipeline.engine.attention import Attend, buckets, paged
from pipeline.engine.kernels import library
from pipeline.engine.ops import TorchOps
from pipeline.engine.segment import Packed, Segment, pack
from pipeline.engine.shape import Shape

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SHAPE = Shape(
    vocab=5, hidden=64, layers=1, heads=4, kv_heads=2, head_dim=16, intermediate=48, norm_eps=1e-5, rope_theta=1e4,
    max_positions=900, window=None, tied=True,
)  # fmt: skip


@pytest.mark.parametrize("dtype", list(self_test.NEAR))
@pytest.mark.parametrize("window", [None, 20])
def test_plain_torch_passes_every_trial(dtype: torch.dtype, window: int | None) -> None:
    shape = replace(SHAPE, window=window)
    assert self_test.attention_error(buckets.plan, shape, dtype, CPU) <= self_test.NEAR[dtype]
    assert self_test.ops_error(TorchOps(), shape, dtype, CPU) <= self_test.NEAR[dtype]


def three_keys_only(packed: Packed, shape: Shape, dtype: torch.dtype) -> Attend:
    return buckets.plan(packed, replace(shape, window=3), dtype)


def nothing_written(packed: Packed, shape: Shape, dtype: torch.dtype) -> Attend:
    return lambda qkv, layer: torch.full((len(qkv), shape.heads * shape.head_dim), float("nan"), dtype=dtype)


@pytest.mark.parametrize("plan", [three_keys_only, nothing_written])
def test_attention_that_is_wrong_does_not_pass(plan) -> None:
    assert self_test.attention_error(plan, SHAPE, torch.float32, CPU) > 10 * self_test.NEAR[torch.float32]


class Unrotated(TorchOps):
    def rotate_and_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, layer: Tensor, shape: Shape
    ) -> None:
        layer.index_copy_(0, slots, qkv[:, shape.heads :])


class Unwritten(TorchOps):
    def swiglu(self, gate_up: Tensor) -> Tensor:
        return torch.full_like(gate_up[:, : gate_up.shape[1] // 2], float("nan"))


class NoSum(TorchOps):
    def add_norm(self, hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        return super().add_norm(hidden, None, weight, eps)


@pytest.mark.parametrize("ops", [Unrotated(), Unwritten(), NoSum()], ids=lambda ops: type(ops).__name__)
def test_steps_that_are_wrong_do_not_pass(ops: TorchOps) -> None:
    assert self_test.ops_error(ops, SHAPE, torch.float32, CPU) > 10 * self_test.NEAR[torch.float32]


@pytest.mark.parametrize("error", [RuntimeError("no kernel image\nmore"), TypeError("an argument"), AttributeError("")])
def test_a_way_that_does_not_run_is_passed_over_with_its_reason(error: Exception) -> None:
    def refuse() -> float:
        raise error

    reason = self_test.refusal(refuse, torch.float32)
    assert reason == (str(error).splitlines() or ["AttributeError"])[0]
    assert self_test.refusal(lambda: 1.0, torch.float32) == "it is 1 off float64"
    assert self_test.refusal(lambda: 0.0, torch.float32) is None


def test_the_kernels_say_why_they_cannot_run_here() -> None:
    assert "bfloat16 on CUDA" in library.can_run(SHAPE, torch.bfloat16, CPU)
    assert "float32" in library.can_run(SHAPE, torch.float32, torch.device("cuda"))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 150)), min_size=1, max_size=8), st.integers(1, 8))
def test_the_kernels_tiles_cover_every_row_and_head_once(lengths: list[tuple[int, int]], group: int) -> None:
    segments = [
        Segment(torch.ones(new, dtype=torch.int64).numpy(), before, torch.arange(before + new).numpy(), 0)
        for before, new in lengths
    ]
    slots, tiles = paged.host_tables(pack(segments, CPU), group)
    covered = []
    for row, queries, context, keys, first in tiles.tolist():
        assert len(slots[context : context + keys]) == keys
        for at in range(first, min(first + library.TILE_ROWS, queries * group)):
            covered.append((row + at // group, at % group))
    rows = sum(new for _, new in lengths)
    assert sorted(covered) == [(row, head) for row in range(rows) for head in range(group)]
