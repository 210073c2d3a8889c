"""One packed forward pass of a Phi-3 model: embed → layers → head, on the rows that are asked for.

The mathematics and the rounding points are those of transformers' Phi-3, and live in what a `Backend`
brings: the steps between the matrix products (`ops.py` or our kernels) and attention.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.backend import Backend
from pipeline.engine.pool import SlotPool
from pipeline.engine.projection import linear
from pipeline.engine.segment import Packed
from pipeline.engine.weights import Shape, Weights

HEAD_ROWS = 1024
"""Rows whose logits are held at the same time."""


@torch.inference_mode()
def choose(weights: Weights, pool: SlotPool, packed: Packed, backend: Backend) -> Tensor:
    """The likeliest token (W) of each row that wants one, the first of equals. Otherwise as `forward`."""
    last = _layers(weights, pool, packed, backend)
    return torch.cat([linear(part, weights.head).argmax(-1) for part in last.split(HEAD_ROWS)])


@torch.inference_mode()
def forward(weights: Weights, pool: SlotPool, packed: Packed, backend: Backend) -> Tensor:
    """Logits (W, V) of the rows that want them. Writes the K/V of all rows into the pool.

    K/V goes into the pool before attention reads it, so a segment may continue another one of the
    same pass. Nothing here waits for the device.
    """
    return linear(_layers(weights, pool, packed, backend), weights.head)


def _layers(weights: Weights, pool: SlotPool, packed: Packed, backend: Backend) -> Tensor:
    """(W, H): the rows that want logits, after the last norm."""
    shape, ops = weights.shape, backend.ops
    attend = backend.plan(packed, shape, weights.dtype)
    cos, sin = rotary(packed.positions, shape, weights.dtype)
    hidden = F.embedding(packed.tokens, weights.embed)  # (T, H)
    delta = None  # what the layer before adds to it
    for index, layer in enumerate(weights.layers):
        x = ops.add_norm(hidden, delta, layer.norm_attention, shape.norm_eps)
        qkv = linear(x, layer.qkv).view(packed.rows, -1, shape.head_dim)  # (T, Q + 2K, D)
        ops.rotate_and_store(qkv, cos, sin, packed.slots, pool.layer(index), shape)
        mixed = attend(qkv, pool.layer(index))  # (T, Q·D)
        if index == shape.layers - 1:
            # Nothing depends on the other rows any more.
            mixed, hidden = mixed[packed.wanted], hidden[packed.wanted]
        delta = linear(mixed, layer.o)
        del qkv, mixed  # the MLP needs the room
        x = ops.add_norm(hidden, delta, layer.norm_mlp, shape.norm_eps)
        delta = linear(ops.swiglu(linear(x, layer.gate_up)), layer.down)
    return ops.add_norm(hidden, delta, weights.norm, shape.norm_eps)


def rotary(positions: Tensor, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of every row's rotation (arXiv 2104.09864), angles in float32. Both (T, D)."""
    half = torch.arange(0, shape.head_dim, 2, device=positions.device, dtype=torch.int64).float() / shape.head_dim
    angles = positions[:, None].float() * (1.0 / shape.rope_theta**half)  # (T, D/2)
    angles = torch.cat([angles, angles], -1)
    return angles.cos().to(dtype), angles.sin().to(dtype)
