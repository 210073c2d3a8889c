"""The dimensions of a Phi-3 model, and the counts that follow from them: parameters, operations, K/V per token.

Imports no torch, so that plans, reports and the YAML border can use it. Dimension letters, used in comments all over
the engine: T tokens of a pass, H hidden size, Q query heads, K key/value heads, D head size, I intermediate size,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """The part of a checkpoint's configuration that the computation depends on."""

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
        """The four projections in all layers; a multiply-add counts as two."""
        per_layer = self.hidden * (self.qkv_rows + self.heads * self.head_dim + 3 * self.intermediate)
        return 2.0 * self.layers * per_layer

    @property
    def swept_parameters(self) -> int:
        """Projections and head: the weights that a pass reads, however few rows it has."""
        return int(self.flops_per_row + self.flops_per_head_row) // 2

    @property
    def parameters_per_layer(self) -> int:
        return int(self.flops_per_row) // (2 * self.layers) + 2 * self.hidden

    @property
    def parameters(self) -> int:
        norms = (2 * self.layers + 1) * self.hidden
        return self.swept_parameters + norms + (0 if self.tied else self.vocab * self.hidden)

    @property
    def tensors(self) -> int:
        """Six in a layer, the embeddings, the last norm, and a head unless it is tied: `model/loader.py` names them."""
        return 6 * self.layers + 3 - self.tied

    @property
    def moved_elements_per_row(self) -> int:
        """Elements that are read or written between the matrix products: sum, norm and residual (twice), rotation,
        attention, SwiGLU."""
        wide = self.heads * self.head_dim
        return self.layers * (8 * self.hidden + 2 * self.qkv_rows + 2 * wide + 3 * self.intermediate)

    @property
    def flops_per_head_row(self) -> float:
        """The head, for one output row."""
        return 2.0 * self.hidden * self.vocab
