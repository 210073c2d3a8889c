"""The steps between a layer's matrix products, in plain torch: on any device, in any dtype.

Rounded where transformers' Phi-3 rounds: the norm in float32, rounded, then times its weight; cos and sin
rounded to the model's dtype before use; silu(gate) rounded, then times up; sums in the model's dtype.
`kernels/library.py` has the same three as CUDA kernels, `kernels/cpu.py` in C++.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.shape import Shape


class Ops(Protocol):
    """The operations of a layer beside its projections and attention."""

    def add_norm(self, hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """hidden (T, H) += delta; returns its RMS norm (arXiv 1910.07467) times weight, (T, H)."""

    def rotate_and_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, layer: Tensor, shape: Shape
    ) -> None:
        """q of qkv (T, Q + 2K, D) is turned in place by its row's cos and sin (T, D); k, turned, and v go to their
        slots of layer (slots, 2K, D)."""

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """silu(gate) · up of gate_up (T, 2I), as (T, I); gate_up may be overwritten."""


class TorchOps:
    def add_norm(self, hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        if delta is not None:
            hidden += delta
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return wide.to(hidden.dtype) * weight

    def rotate_and_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, layer: Tensor, shape: Shape
    ) -> None:
        turned = qkv[:, : shape.heads + shape.kv_heads]  # q and k, side by side
        low, high = turned.chunk(2, -1)
        turned.copy_(turned * cos[:, None] + torch.cat([-high, low], -1) * sin[:, None])
        layer.index_copy_(0, slots, qkv[:, shape.heads :])

    def swiglu(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return up * F.silu(gate)
