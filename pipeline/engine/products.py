"""Matrix products whose rows have the same bits whatever comes beside them: which way computes which size.

A product is padded to one of the sizes of `padding.py`, or the next larger one that is not slow: what lies behind the
last row is computed and thrown away, and nothing of it gets into a row. For every weight shape and each of these sizes,
`Products` has a way that was tried on the device and gave the bits of one class (`product_trial.py`): torch's own
product, cuBLASLt without split K, or our kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.kernels import cublaslt, library
from pipeline.engine.padding import padded

TORCH, CUBLASLT, OURS = "torch", "cublaslt", "ours"


@dataclass(frozen=True)
class Way:
    """How one product of one size is computed."""

    name: str
    """TORCH, CUBLASLT or OURS."""
    tiling: int = 0
    """Number of our tiling, where the product is ours."""
    algorithm: bytes = b""
    """cuBLASLt's algorithm, where the product is its."""

    def text(self) -> str:
        return f"{self.name} {self.tiling}" if self.name == OURS else self.name


@dataclass(frozen=True)
class Key:
    """A kind of product: its shape and types without the rows."""

    outputs: int
    inputs: int
    stride: int
    """Values from one row of x to the next."""


class Runner:
    """Computes a product of exactly `len(x)` rows in a given way."""

    def __init__(self, kernels: library.Kernels | None, blas: cublaslt.Library | None) -> None:
        self.kernels, self.blas = kernels, blas

    def __call__(self, way: Way, x: Tensor, weight: Tensor) -> Tensor:
        """(M, N). Raises RuntimeError where the device or its library refuses."""
        if way.name == TORCH:
            return F.linear(x, weight)
        y = x.new_empty(x.shape[0], weight.shape[0])
        if way.name == OURS and self.kernels is not None:
            self.kernels.product(x, weight, y, way.tiling)
        elif way.name == CUBLASLT and self.blas is not None:
            self.blas.product(x, weight, y, way.algorithm)
        else:
            raise RuntimeError(f"{way.name} is not there")
        return y


Run = Callable[[Way, Tensor, Tensor], Tensor]
"""Computes a product in a given way, as `Runner` does."""


class Products:
    """x · weightᵀ in the ways that the trial chose, for the weights and sizes that it tried."""

    def __init__(self, run: Run, ways: Mapping[Key, Mapping[int, Way]]) -> None:
        self._run, self.ways = run, ways
        self._known: dict[tuple[torch.Size, int, int], tuple[int, Way]] = {}  # by shape of the weight, stride, rows

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (T, in) times weight (out, in) transposed, (T, out). Raises KeyError for a weight that was not tried."""
        rows = x.shape[0]
        known = self._known.get((weight.shape, x.stride(0), rows))
        if known is None:
            return self._first(x, weight)
        size, way = known
        return self._run(way, x, weight) if size == rows else self._run(way, _with_room(x, size), weight)[:rows]

    def _first(self, x: Tensor, weight: Tensor) -> Tensor:
        """Look up the way of a product that is called for the first time, and compute it."""
        if len(x) == 0:
            return x.new_empty(0, len(weight))
        key = Key(weight.shape[0], weight.shape[1], x.stride(0))
        if key not in self.ways:
            x = x.clone(memory_format=torch.contiguous_format)
            key = replace(key, stride=x.stride(0))
        table = self.ways[key]
        size = min((size for size in table if size >= padded(len(x))), default=None)
        if size is None:
            return torch.cat([self(part, weight) for part in x.split(max(table))])
        self._known[weight.shape, key.stride, len(x)] = size, table[size]
        return self(x, weight)


def _with_room(x: Tensor, size: int) -> Tensor:
    """x lengthened to `size` rows: by what lies behind it in its own storage, else as a copy with room."""
    width, strides = x.shape[1], x.stride()
    end = x.storage_offset() + (size - 1) * strides[0] + width
    if end * x.element_size() <= x.untyped_storage().nbytes():
        return x.as_strided((size, width), strides)
    copy = x.new_empty(size, strides[0])[:, :width]  # the same stride: it was tried with it
    copy[: x.shape[0]] = x
    return copy


def summary(ways: Mapping[Key, Mapping[int, Way]]) -> dict[str, str]:
    """For each kind of product which way computes which sizes, in one line: "≤ 64: ours 0, ≤ 8192: torch"."""
    lines = {}
    for key, table in ways.items():
        runs: list[tuple[int, str]] = []
        for size, way in sorted(table.items()):
            if runs and runs[-1][1] == way.text():
                runs[-1] = size, way.text()
            else:
                runs.append((size, way.text()))
        lines[f"{key.outputs} × {key.inputs}"] = ", ".join(f"≤ {size:,}: {name}" for size, name in runs)
    return lines
