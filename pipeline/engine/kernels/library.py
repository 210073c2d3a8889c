"""The kernels as functions on tensors. Launched on torch's current stream; nothing here waits for the device.

All tensors are bfloat16 on one CUDA device, rows contiguous and aligned to 16 bytes, which holds for all
that `can_run` lets through. (`shape[0]`, since torch's `len` of a tensor takes as long as a launch.)
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_void_p
from functools import cache

import torch
from torch import Tensor

from pipeline.engine.kernels import build
from pipeline.engine.padding import roomy
from pipeline.engine.shape import Shape

HEAD_DIMS = (64, 96, 128)
"""The head dimensions that attention.cu is compiled for."""

LOWEST_CAPABILITY = (8, 0)

TILE_ROWS = 64
"""Query rows of a tile: ROWS in attention.cu."""

TILING_ROWS = (16, 32, 64, 64, 128, 128, 256)
"""Rows of a tile in each tiling of product.cu."""

WIDEST_ROW = 32_768
"""Values of a row of hidden states that add_norm can hold."""


def can_run(shape: Shape, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why the kernels cannot run this model here, in a few words; None: they can, once built."""
    if device.type != "cuda" or dtype is not torch.bfloat16:
        return f"they are for bfloat16 on CUDA, this is {str(dtype).removeprefix('torch.')} on {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < LOWEST_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is below 8.0"
    if shape.head_dim not in HEAD_DIMS or shape.hidden % 8 or shape.intermediate % 8 or shape.hidden > WIDEST_ROW:
        return (
            f"head size {shape.head_dim}, hidden {shape.hidden} or intermediate {shape.intermediate} does not fit them"
        )
    return None


@cache
def load(capability: tuple[int, int]) -> Kernels:
    """Build if need be and load. Raises build.CannotBuild."""
    return Kernels(ctypes.CDLL(str(build.build(capability))))


class Kernels:
    """Calls into one built library. Each raises RuntimeError with CUDA's error number if its launch is refused."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._add_norm = library.add_norm
        self._add_norm.argtypes = [*[c_void_p] * 4, c_int, c_int, c_float, c_void_p]
        self._rotate_and_store = library.rotate_and_store
        self._rotate_and_store.argtypes = [*[c_void_p] * 5, *[c_int] * 4, c_void_p]
        self._swiglu = library.swiglu
        self._swiglu.argtypes = [c_void_p, c_int, c_int, c_void_p]
        self._attend = library.attend
        self._attend.argtypes = [c_void_p, c_int, *[c_void_p] * 4, *[c_int] * 5, c_float, c_void_p]
        self._product = library.product
        self._product.argtypes = [c_void_p, c_int, c_void_p, c_void_p, *[c_int] * 4, c_void_p]

    def add_norm(self, hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """hidden (T, H) += delta; returns its RMS norm times weight, (T, H)."""
        rows, width = hidden.shape
        normed = roomy(rows, width, like=hidden)
        if rows:
            add = None if delta is None else delta.data_ptr()
            pointers = hidden.data_ptr(), add, weight.data_ptr(), normed.data_ptr()
            _check(self._add_norm(*pointers, rows, width, eps, stream()))
        return normed

    def rotate_and_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, layer: Tensor, shape: Shape
    ) -> None:
        """q of qkv (T, (Q + 2K)·D) is turned in place; k, turned, and v go to their slots of layer (slots, 2K, D)."""
        pointers = qkv.data_ptr(), cos.data_ptr(), sin.data_ptr(), slots.data_ptr(), layer.data_ptr()
        sizes = qkv.shape[0], shape.heads, shape.kv_heads, shape.head_dim
        _check(self._rotate_and_store(*pointers, *sizes, stream()))

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """silu(gate) · up of gate_up (T, 2I), as (T, I) in the place of gate."""
        rows, width = gate_up.shape
        if rows:
            _check(self._swiglu(gate_up.data_ptr(), rows, width // 2, stream()))
        return gate_up[:, : width // 2]

    def attend(self, qkv: Tensor, layer: Tensor, slots: Tensor, tiles: Tensor, shape: Shape, window: int) -> Tensor:
        """(T, Q·D). slots: int32, the contexts end to end; tiles: int32 (tiles, 5), as struct Tile in attention.cu."""
        out = roomy(qkv.shape[0], shape.heads * shape.head_dim, like=qkv)
        pointers = layer.data_ptr(), slots.data_ptr(), tiles.data_ptr(), out.data_ptr()
        sizes = tiles.shape[0], shape.kv_heads, shape.heads // shape.kv_heads, shape.head_dim, window
        _check(self._attend(qkv.data_ptr(), qkv.stride(0), *pointers, *sizes, shape.head_dim**-0.5, stream()))
        return out

    def product(self, x: Tensor, weight: Tensor, y: Tensor, tiling: int) -> None:
        """y (M, N) = x (M, K) · weight (N, K)ᵀ, the same bits with each tiling of `TILING_ROWS`; M at least 1, N and K
        multiples of 8."""
        pointers = x.data_ptr(), x.stride(0), weight.data_ptr(), y.data_ptr()
        _check(self._product(*pointers, x.shape[0], *weight.shape, tiling, stream()))


def stream() -> int:
    """The current stream of the current device, as CUDA takes it. By the call that torch.inductor's kernels use, which
    makes no object: a small pass takes the time of its hundreds of launches."""
    return int(torch._C._cuda_getCurrentRawStream(torch._C._cuda_getDevice()))


def _check(error: int) -> None:
    if error:
        raise RuntimeError(f"a kernel launch was refused: CUDA error {error}")
