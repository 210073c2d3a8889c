"""A network of two small layers, and torch operations that fail as a full memory fails."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.engine.shape import Shape
from pipeline.engine.weights import LayerWeights, Weights

SHAPE = Shape(
    vocab=40, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate=48, norm_eps=1e-5, rope_theta=1e4,
    max_positions=128, window=None, tied=True,
)  # fmt: skip

STOP = frozenset({1})

NEW = 8


def ran_out(kind: str) -> BaseException:
    """As each platform says it."""
    return {
        "cuda": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        "tegra": RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:838"),
        "nvmap": RuntimeError("NvMapMemAllocInternalTagged: 1075072515 error 12"),
        "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        "host": MemoryError(),
    }[kind]


KINDS = ["cuda", "tegra", "nvmap", "cpu", "host"]


class Failing(TorchDispatchMode):
    """Counts the operations of torch, any of which may allocate, and fails at some of them."""

    def __init__(self, fails: Any, kind: str = "cuda") -> None:
        super().__init__()
        self.fails, self.kind, self.count = fails, kind, 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.fails(self.count):
            raise ran_out(self.kind)
        return operation(*args, **(kwargs or {}))


@functools.cache
def weights() -> Weights:
    torch.manual_seed(3)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size) * 0.4

    layers = tuple(
        LayerWeights(
            torch.rand(SHAPE.hidden) + 0.5,
            normal(SHAPE.qkv_rows, SHAPE.hidden),
            normal(SHAPE.hidden, SHAPE.heads * SHAPE.head_dim),
            torch.rand(SHAPE.hidden) + 0.5,
            normal(2 * SHAPE.intermediate, SHAPE.hidden),
            normal(SHAPE.hidden, SHAPE.intermediate),
        )
        for _ in range(SHAPE.layers)
    )
    embed = normal(SHAPE.vocab, SHAPE.hidden)
    return Weights(SHAPE, embed, layers, torch.rand(SHAPE.hidden) + 0.5, embed)


PROMPTS = [[2, 3, 4, 5 + i % 4, *range(10, 12 + i % 7)] for i in range(14)]
