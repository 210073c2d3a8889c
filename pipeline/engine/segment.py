"""The unit of work: a run of new tokens that continues a known context.

A part of a prompt, one step of an answer and the check of a draft are all segments; a pass is a list
of them, packed end to end without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.arrays import EMPTY, Ints, upload


@dataclass(frozen=True, slots=True)
class Segment:
    tokens: Ints
    """The new tokens, at least one."""
    start: int
    """Position of the first of them."""
    context: Ints
    """K/V slots of positions 0 … start + len(tokens) - 1; the last ones are those that the new tokens fill."""
    wanted: int
    """How many rows at the end want logits."""

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Packed:
    """A pass on the device. T rows in all, W of them want logits."""

    tokens: Tensor  # (T)
    positions: Tensor  # (T)
    slots: Tensor  # (T): where each row's K/V goes
    wanted: Tensor  # (W): rows, ascending
    query_lengths: Ints  # (segments), on the host
    contexts: tuple[Ints, ...]  # one a segment, on the host

    @property
    def rows(self) -> int:
        return len(self.tokens)


def pack(segments: Sequence[Segment], device: torch.device) -> Packed:
    """Lay segments end to end."""
    lengths = np.array([len(segment) for segment in segments], dtype=np.int64)
    ends = np.cumsum(lengths)
    tokens, positions, slots, wanted = upload(
        [
            np.concatenate([EMPTY, *(s.tokens for s in segments)]),
            np.concatenate([EMPTY, *(np.arange(s.start, s.start + len(s)) for s in segments)]),
            np.concatenate([EMPTY, *(s.context[s.start :] for s in segments)]),
            np.concatenate([EMPTY, *(np.arange(end - s.wanted, end) for s, end in zip(segments, ends, strict=True))]),
        ],
        device,
    )
    return Packed(tokens, positions, slots, wanted, lengths, tuple(s.context for s in segments))
