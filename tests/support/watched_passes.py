"""Passes that run under a watcher, such as `failing_allocations.Failing`, and note how many tokens each piece has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from pipeline.engine.engine import MakePasses
from pipeline.engine.pass_runner import Passes, Piece
from pipeline.engine.segment import Segment


def watched(under: AbstractContextManager[Any], sizes: list[int] | None = None) -> MakePasses:
    """For `Engine(make_passes=…)`: every piece of a pass is computed inside of `under`, its size goes to `sizes`."""

    class Watched(Passes):
        def piece(self, segments: Sequence[Segment]) -> Piece:
            if sizes is not None:
                sizes.append(sum(map(len, segments)))
            with under:
                return super().piece(segments)

    return Watched
