"""The unit of work: a run of new tokens that continues a known context.

A part of a prompt, one step of an answer and the check of a draft are all segments; a pass is a list
of them, packed end to end without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.engine.arrays import Ints, upload

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    tokens: Ints
    """The new tokens, at least one."""
    start: int
    """Position of the first of them."""
    context: Ints
    """K/V slots of positions 0 … start + len(tokens) - 1; the last ones are those that the new tokens fill."""
    output_rows: int
    """How many tokens at the end get logits."""

    def __len__(self) -> int:
        return len(self.tokens)


def first_row(segment: Segment) -> Segment:
    """A segment's first row once more: to fill a pass up, since it writes what is written anyway."""
    return Segment(segment.tokens[:1], segment.start, segment.context[: segment.start + 1], 0)


@dataclass(frozen=True, slots=True)
class Packed:
    """A pass on the device. T tokens in all, W of them output rows, which get logits."""

    tokens: Tensor  # (T)
    positions: Tensor  # (T)
    slots: Tensor  # (T): where each token's K/V goes
    output_rows: Tensor  # (W): positions in the pass, ascending
    query_lengths: Ints  # (segments), on the host
    contexts: tuple[Ints, ...]  # one a segment, on the host

    @property
    def rows(self) -> int:
        """T."""
        return self.tokens.shape[0]


def pack(segments: Sequence[Segment], device: torch.device) -> Packed:
    """Build a pass: lay the segments, at least one, end to end, and upload them to the device."""
    lengths, starts, outputs = (
        np.array(counts, dtype=np.int64)
        for counts in zip(*[(len(s.tokens), s.start, s.output_rows) for s in segments], strict=True)
    )
    ends = np.cumsum(lengths)
    tokens, positions, slots, output_rows = upload(
        [
            np.concatenate([s.tokens for s in segments]),
            runs(starts, lengths),
            np.concatenate([s.context[s.start :] for s in segments]),
            runs(ends - outputs, outputs),
        ],
        device,
    )
    return Packed(tokens, positions, slots, output_rows, lengths, tuple(s.context for s in segments))


def runs(first: Ints, counts: Ints) -> Ints:
    """first[0], first[0] + 1, …: `counts[i]` ascending numbers from `first[i]` on, end to end."""
    before = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(first - before, counts)
