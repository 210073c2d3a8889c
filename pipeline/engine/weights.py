"""The tensors of a Phi-3 model as the network reads them. Dimension letters: `shape.py`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.shape import Shape


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
    head: Tensor  # (V, H); where tied, `embed` itself or its values in the layout for products

    @property
    def device(self) -> torch.device:
        return self.embed.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embed.dtype

    @property
    def streamed(self) -> bool:
        return not isinstance(self.layers, tuple)
