"""The shapes of a Phi-3 model and its tensors, as the network wants them.

Dimension letters, used in comments all over the engine:
T rows of a pass, H hidden size, Q query heads, K key/value heads, D head size, I intermediate size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """What of a checkpoint's configuration the computation depends on."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    norm_eps: float
    rope_theta: float
    max_positions: int
    """Longest context, prompt and answer together."""
    window: int | None
    """How many tokens a row sees, itself included; None: all before it."""
    tied: bool
    """The head is the embedding."""

    @property
    def qkv_rows(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def kv_elements_per_token(self) -> int:
        """K and V of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def flops_per_row(self) -> float:
        """Of the four projections in all layers, a multiply-add counted as two."""
        per_layer = self.hidden * (self.qkv_rows + self.heads * self.head_dim + 3 * self.intermediate)
        return 2.0 * self.layers * per_layer

    @property
    def swept_parameters(self) -> int:
        """Of the projections and the head: what a pass reads, however few rows it has."""
        return int(self.flops_per_row + self.flops_per_head_row) // 2

    @property
    def parameters_per_layer(self) -> int:
        return int(self.flops_per_row) // (2 * self.layers) + 2 * self.hidden

    @property
    def parameters(self) -> int:
        norms = (2 * self.layers + 1) * self.hidden
        return self.swept_parameters + norms + (0 if self.tied else self.vocab * self.hidden)

    @property
    def moved_elements_per_row(self) -> int:
        """Read or written between the matrix products: twice sum, norm and residual, rotation, attention, SwiGLU."""
        wide = self.heads * self.head_dim
        return self.layers * (8 * self.hidden + 2 * self.qkv_rows + 2 * wide + 3 * self.intermediate)

    @property
    def flops_per_head_row(self) -> float:
        """Of the head, for a row that wants logits."""
        return 2.0 * self.hidden * self.vocab


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer; projections are (out, in)."""

    norm_attention: Tensor  # (H)
    qkv: Tensor  # ((Q + 2K)·D, H): q, k, v stacked
    o: Tensor  # (H, Q·D)
    norm_mlp: Tensor  # (H)
    gate_up: Tensor  # (2I, H): gate, up stacked
    down: Tensor  # (H, I)


@dataclass(frozen=True)
class Weights:
    """All tensors of a model, on one device in one dtype."""

    shape: Shape
    embed: Tensor  # (V, H)
    layers: Iterable[LayerWeights]
    """In order. A tuple: all are resident. Anything else brings one at a time from a disk, each time it is walked
    through: a layer is to be used before the next is asked for."""
    norm: Tensor  # (H)
    head: Tensor  # (V, H); the same tensor as `embed` where tied

    @property
    def device(self) -> torch.device:
        return self.embed.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embed.dtype

    @property
    def streamed(self) -> bool:
        return not isinstance(self.layers, tuple)
