"""One packed forward pass of a Phi-3 model: embed → layers → head, on the rows that are asked for.

The mathematics and the rounding points are those of transformers' Phi-3: norm in float32, rounded,
then times its weight; cos and sin rounded to the model's dtype before use; silu(gate) rounded, then
times up; residual sums in the model's dtype.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine import attention
from pipeline.engine.pool import SlotPool
from pipeline.engine.projection import linear
from pipeline.engine.segment import Packed
from pipeline.engine.weights import Shape, Weights


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm over the last dimension (arXiv 1910.07467). (T, H) → (T, H)."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return wide.to(x.dtype) * weight


def rotary(positions: Tensor, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of every row's rotation (arXiv 2104.09864), angles in float32. Both (T, 1, D)."""
    half = torch.arange(0, shape.head_dim, 2, device=positions.device, dtype=torch.int64).float() / shape.head_dim
    angles = positions[:, None].float() * (1.0 / shape.rope_theta**half)  # (T, D/2)
    angles = torch.cat([angles, angles], -1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(T, heads, D) → the same, each head turned by its row's angle."""
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


@torch.inference_mode()
def forward(weights: Weights, pool: SlotPool, packed: Packed) -> Tensor:
    """Logits (W, V) of the rows that want them. Writes the K/V of all rows into the pool.

    K/V goes into the pool before attention reads it, so a segment may continue another one of the
    same pass.
    """
    shape = weights.shape
    attend = attention.plan(packed, shape, weights.dtype)
    cos, sin = rotary(packed.positions, shape, weights.dtype)
    turned = shape.heads + shape.kv_heads  # q and k, side by side
    hidden = F.embedding(packed.tokens, weights.embed)  # (T, H)
    for index, layer in enumerate(weights.layers):
        x = norm(hidden, layer.norm_attention, shape.norm_eps)
        qkv = linear(x, layer.qkv).view(packed.rows, -1, shape.head_dim)  # (T, Q + 2K, D)
        qkv[:, :turned] = rotate(qkv[:, :turned], cos, sin)
        pool.layer(index).index_copy_(0, packed.slots, qkv[:, shape.heads :])
        mixed = attend(qkv[:, : shape.heads], pool.layer(index))  # (T, Q·D)
        if index == shape.layers - 1:
            # Nothing depends on the other rows any more.
            mixed, hidden = mixed[packed.wanted], hidden[packed.wanted]
        hidden = hidden + linear(mixed, layer.o)
        x = norm(hidden, layer.norm_mlp, shape.norm_eps)
        gate, up = linear(x, layer.gate_up).chunk(2, -1)
        hidden = hidden + linear(up * F.silu(gate), layer.down)
    return linear(norm(hidden, weights.norm, shape.norm_eps), weights.head)
