"""A pass on the device, and what happens when an allocation fails all the same.

A pass is a pure function of its segments: it writes only their own slots, and can be done again in pieces. So when
memory is short it is cut in two, each half is run on its own, and later passes are kept as small until a
number of them went well. Nothing else changes: the tokens are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from loguru import logger
from torch import Tensor

from pipeline.engine import network
from pipeline.engine.backend import Backend
from pipeline.engine.pool import SlotPool
from pipeline.engine.segment import Segment, pack
from pipeline.engine.weights import Weights
from pipeline.errors import ResourceError

GROW_AFTER = 8
"""Passes in a row that must go well before the budget is doubled again."""

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",  # torch's allocator on a CPU
    "CUDACachingAllocator",  # Tegra: an assertion in place of OutOfMemoryError (pytorch issues 112121, 185240)
    "NVML_SUCCESS",
    "NvMap",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is a failed allocation, however this platform says it."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@dataclass(frozen=True)
class Piece:
    """The tokens that one call of the network chose."""

    chosen: Tensor  # (W), on the host once `arrived`
    arrived: torch.cuda.Event | None


@dataclass(frozen=True)
class Started:
    """A pass that the device has been given."""

    pieces: list[Piece]

    def tokens(self) -> list[int]:
        """The likeliest token of every output row, in order, once the device has them."""
        for piece in self.pieces:
            if piece.arrived is not None:
                piece.arrived.synchronize()
        return [token for piece in self.pieces for token in piece.chosen.tolist()]


class Passes:
    """Runs passes of one model. `budget_rows` is what a pass may have now."""

    def __init__(self, weights: Weights, pool: SlotPool, backend: Backend, chunk_rows: int | None = None) -> None:
        """`chunk_rows`: how many rows go through a layer together; None: all of a pass."""
        self.weights, self.pool, self.backend, self.chunk_rows = weights, pool, backend, chunk_rows
        self.most_rows: int | None = None
        """None: no allocation has failed, or all is well again."""
        self.faults = 0
        self.smallest_rows: int | None = None
        self._went_well = 0

    def budget_rows(self, planned: int) -> int:
        """Rows of a pass at most. One that goes through the layers in chunks stays as large: its chunks shrink."""
        return planned if self.most_rows is None or self.chunk_rows is not None else min(planned, self.most_rows)

    def run(self, segments: Sequence[Segment]) -> Started:
        """Hand a pass to the device. Does not wait for a CUDA device.

        Raises ResourceError (R304) when not even one row can be computed.
        """
        before = self.faults
        pieces = self._run(segments)
        if self.faults == before and self.most_rows is not None:
            self._went_well += 1
            if self._went_well >= GROW_AFTER:
                self._went_well, self.most_rows = 0, 2 * self.most_rows
        return Started(pieces)

    def _run(self, segments: Sequence[Segment], retry: bool = True) -> list[Piece]:
        try:
            return [self.piece(segments)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = (str(error).splitlines() or ["MemoryError"])[0]
        # Here, behind the handler, nothing of the failed pass is held any more.
        rows = sum(map(len, segments))
        self._shrink(min(rows, self._chunk_rows(rows)), reason)
        if rows > 1:
            return [piece for half in cut(segments, rows // 2) for piece in self._run(half)]
        if retry:
            return self._run(segments, retry=False)
        raise ResourceError(
            "R304",
            "there is no memory for a pass of a single row",
            where=str(self.weights.device),
            actual=reason,
            fix="end other programs on the device; what was answered is kept",
        )

    def piece(self, segments: Sequence[Segment]) -> Piece:
        """Compute segments by one call of the network. Raises as a failed allocation does, and may then be repeated."""
        rows = self._chunk_rows(sum(map(len, segments)))
        chunks = [pack(part, self.weights.device) for part in split(segments, rows)]
        chosen = network.choose(self.weights, self.pool, chunks, self.backend)
        if chosen.device.type != "cuda":
            return Piece(chosen, None)
        on_host = torch.empty(chosen.shape, dtype=chosen.dtype, pin_memory=True)
        on_host.copy_(chosen, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return Piece(on_host, arrived)

    def _chunk_rows(self, rows: int) -> int:
        """Rows of a chunk in a pass of `rows` rows."""
        if self.chunk_rows is None:
            return rows
        return self.chunk_rows if self.most_rows is None else min(self.chunk_rows, self.most_rows)

    def _shrink(self, rows: int, reason: str) -> None:
        self.faults += 1
        self._went_well = 0
        self.most_rows = max(1, rows // 2)
        self.smallest_rows = min(self.most_rows, self.smallest_rows or self.most_rows)
        logger.warning("an allocation failed in a pass of {} rows, which is done again in pieces: {}", rows, reason)
        if self.weights.device.type == "cuda":
            torch.cuda.empty_cache()


def split(segments: Sequence[Segment], rows: int) -> Iterator[Sequence[Segment]]:
    """Parts of `rows` rows each, the last with what is left."""
    rest = segments
    while sum(map(len, rest)) > rows:
        part, rest = cut(rest, rows)
        yield part
    yield rest


def cut(segments: Sequence[Segment], rows: int) -> tuple[list[Segment], list[Segment]]:
    """The first `rows` rows and the others; a segment that lies across becomes two, the second continuing the first.

    In the given order a segment never depends on one behind it, so the halves can run one after the other.
    """
    first: list[Segment] = []
    for index, segment in enumerate(segments):
        if rows < len(segment):
            if rows == 0:
                return first, list(segments[index:])
            behind = min(segment.output_rows, len(segment) - rows)
            head = replace(
                segment,
                tokens=segment.tokens[:rows],
                context=segment.context[: segment.start + rows],
                output_rows=segment.output_rows - behind,
            )
            tail = replace(segment, tokens=segment.tokens[rows:], start=segment.start + rows, output_rows=behind)
            return [*first, head], [tail, *segments[index + 1 :]]
        first.append(segment)
        rows -= len(segment)
    return first, []
