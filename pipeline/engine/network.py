"""One packed forward pass of a Phi-3 model: embed → layers → head, on the rows that are asked for.

The mathematics and the rounding points are those of transformers' Phi-3, and live in what a `Backend`
brings: the steps between the matrix products (`ops.py` or our kernels) and attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.backend import Backend
from pipeline.engine.memory import HEAD_ROWS
from pipeline.engine.pool import SlotPool
from pipeline.engine.segment import Packed
from pipeline.engine.shape import Shape
from pipeline.engine.weights import LayerWeights, Weights

CPU_HEAD_ROWS = 128
"""Most rows whose logits are held at the same time on a CPU, where more at once are no faster and a small model's
logits soon outweigh its layers."""


@torch.inference_mode()
def choose(weights: Weights, pool: SlotPool, chunks: Sequence[Packed], backend: Backend) -> Tensor:
    """The likeliest token (W) of each output row, the first of equals. Otherwise as `forward`.

    The chunks of a pass go through each layer one after the other, so that every layer is read once; a chunk
    may continue those before it.
    """
    last = output_rows(weights, pool, chunks, backend)
    rows = CPU_HEAD_ROWS if weights.device.type == "cpu" else HEAD_ROWS
    return torch.cat([backend.linear(part, weights.head).argmax(-1) for part in last.split(rows)])


@torch.inference_mode()
def forward(weights: Weights, pool: SlotPool, packed: Packed, backend: Backend) -> Tensor:
    """Logits (W, V) of the output rows. Writes the K/V of all rows into the pool.

    K/V goes into the pool before attention reads it, so a segment may continue another one of the
    same pass. Nothing here waits for the device.
    """
    return backend.linear(output_rows(weights, pool, [packed], backend), weights.head)


@torch.inference_mode()
def output_rows(weights: Weights, pool: SlotPool, chunks: Sequence[Packed], backend: Backend) -> Tensor:
    """The output rows (W, H) after the last norm, as the head takes them. Otherwise as `choose`."""
    shape, add_norm = weights.shape, backend.ops.add_norm
    states = [_Rows(packed, weights, backend) for packed in chunks]
    for index, layer in enumerate(weights.layers):
        for rows in states:
            rows.advance(layer, pool.layer(index), last=index == shape.layers - 1)
    return torch.cat([add_norm(rows.hidden, rows.delta, weights.norm, shape.norm_eps) for rows in states])


class _Rows:
    """The rows of a chunk on their way through the layers."""

    def __init__(self, packed: Packed, weights: Weights, backend: Backend) -> None:
        self.packed, self.shape, self.ops, self.linear = packed, weights.shape, backend.ops, backend.linear
        self.attend = backend.plan(packed, weights.shape, weights.dtype)
        self.cos, self.sin = rotary(packed.positions, weights.shape, weights.dtype)
        self.hidden = F.embedding(packed.tokens, weights.embed)  # (T, H)
        self.delta: Tensor | None = None  # (T, H), what the layer before adds to it

    def advance(self, layer: LayerWeights, kv: Tensor, last: bool) -> None:
        shape, ops, linear = self.shape, self.ops, self.linear
        x = ops.add_norm(self.hidden, self.delta, layer.norm_attention, shape.norm_eps)
        self.delta = None  # added: attention needs the room
        qkv = linear(x, layer.qkv).view(self.packed.rows, -1, shape.head_dim)  # (T, Q + 2K, D)
        ops.rotate_and_store(qkv, self.cos, self.sin, self.packed.slots, kv, shape)
        mixed = self.attend(qkv, kv)  # (T, Q·D)
        if last:
            # Nothing depends on the other rows any more.
            mixed, self.hidden = mixed[self.packed.output_rows], self.hidden[self.packed.output_rows]
        delta = linear(mixed, layer.o)
        del qkv, mixed  # the MLP needs the room
        x = ops.add_norm(self.hidden, delta, layer.norm_mlp, shape.norm_eps)
        self.delta = linear(ops.swiglu(linear(x, layer.gate_up)), layer.down)


def rotary(positions: Tensor, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of every row's rotation (arXiv 2104.09864), angles in float32. Both (T, D)."""
    half = torch.arange(0, shape.head_dim, 2, device=positions.device, dtype=torch.int64).float() / shape.head_dim
    angles = positions[:, None].float() * (1.0 / shape.rope_theta**half)  # (T, D/2)
    angles = torch.cat([angles, angles], -1)
    return angles.cos().to(dtype), angles.sin().to(dtype)
