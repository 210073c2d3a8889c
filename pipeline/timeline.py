"""When each part of a run happened, on the one clock that all its intervals are measured with.

For the manifest: whoever verifies a run sees that the data came after the warm-up, that sections follow one another,
and that the telemetry covers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    start_s: float
    elapsed_s: float

    def since(self, zero_s: float) -> list[float]:
        """Start and end, counted from a moment: the clock's own zero says nothing to anybody."""
        return [self.start_s - zero_s, self.start_s - zero_s + self.elapsed_s]


def describe(zero_s: float, timed: Sequence[Interval], **parts: Interval) -> dict[str, Any]:
    """Seconds after `zero_s`: name to start and end; `timed` to a list of those."""
    return {
        **{name: interval.since(zero_s) for name, interval in parts.items()},
        "timed": [section.since(zero_s) for section in timed],
    }
