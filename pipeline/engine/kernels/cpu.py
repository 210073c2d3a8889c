"""cpu.cpp as functions on tensors: float32, on the CPU, rows contiguous."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from pipeline.engine.kernels import cpu_build
from pipeline.engine.shape import Shape


def can_run(shape: Shape, dtype: torch.dtype) -> str | None:
    """Why the library cannot run this model, in a few words; None: it can, once built."""
    if dtype is not torch.float32:
        return f"it is for float32, this is {str(dtype).removeprefix('torch.')}"
    if shape.head_dim % 16 or shape.hidden % 8 or shape.intermediate % 8:
        return f"head size {shape.head_dim}, hidden {shape.hidden} or intermediate {shape.intermediate} does not fit it"
    return None


@cache
def load() -> CpuKernels:
    """Build if need be and load. Raises cpu_build.CannotBuild, OSError."""
    return CpuKernels(ctypes.CDLL(str(cpu_build.build())))


class CpuKernels:
    """Calls into the library, with as many threads as torch takes."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._attend, self._add_norm = library.attend, library.add_norm
        self._rotate_and_store, self._swiglu = library.rotate_and_store, library.swiglu
        self._attend.argtypes = [*[c_void_p] * 6, *[c_int64] * 4, c_float, c_int]
        self._add_norm.argtypes = [*[c_void_p] * 4, c_int64, c_int64, c_float, c_int]
        self._rotate_and_store.argtypes = [*[c_void_p] * 5, *[c_int64] * 4, c_int]
        self._swiglu.argtypes = [c_void_p, c_void_p, c_int64, c_int64, c_int]
        for each in (self._attend, self._add_norm, self._rotate_and_store, self._swiglu):
            each.restype = None

    def add_norm(self, hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """hidden (T, H) += delta; returns its RMS norm times weight, (T, H)."""
        normed = torch.empty_like(hidden)
        pointers = hidden.data_ptr(), None if delta is None else delta.data_ptr(), weight.data_ptr(), normed.data_ptr()
        self._add_norm(*pointers, *hidden.shape, eps, torch.get_num_threads())
        return normed

    def rotate_and_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, layer: Tensor, shape: Shape
    ) -> None:
        """q of qkv (T, Q + 2K, D) is turned in place; k, turned, and v go to their slots of layer (slots, 2K, D)."""
        pointers = qkv.data_ptr(), cos.data_ptr(), sin.data_ptr(), slots.data_ptr(), layer.data_ptr()
        sizes = qkv.shape[0], shape.heads, shape.kv_heads, shape.head_dim
        self._rotate_and_store(*pointers, *sizes, torch.get_num_threads())

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """silu(gate) · up of gate_up (T, 2I), as (T, I)."""
        rows, width = gate_up.shape
        out = gate_up.new_empty(rows, width // 2)
        self._swiglu(gate_up.data_ptr(), out.data_ptr(), rows, width // 2, torch.get_num_threads())
        return out

    def attend(self, qkv: Tensor, layer: Tensor, slots: Tensor, first: Tensor, keys: Tensor, shape: Shape) -> Tensor:
        """(T, Q·D). Row t sees the `keys[t]` slots from `slots[first[t]]` on; all three int64, keys at least 1."""
        rows, width = qkv.shape[0], shape.heads * shape.head_dim
        out = qkv.new_empty(rows, width)
        pointers = qkv.data_ptr(), layer.data_ptr(), slots.data_ptr(), first.data_ptr(), keys.data_ptr(), out.data_ptr()
        sizes = rows, shape.heads, shape.kv_heads, shape.head_dim
        self._attend(*pointers, *sizes, shape.head_dim**-0.5, torch.get_num_threads())
        return out
