"""Contents of each pass of a set and the time of its choices: one entry a pass, in the order in which they were done.

Kept in lists while the clock runs, which costs a few appends a pass, and written down by others after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PassLog:
    """Seconds are counted from when the engine was called."""

    planned_s: float = 0.0
    """When the prefix tree stood and the first pass could be put together."""
    prompt_rows: list[int] = field(default_factory=list)
    answer_rows: list[int] = field(default_factory=list)
    """Drafts included."""
    end_s: list[float] = field(default_factory=list)
    """When a pass's choices were there. On a GPU the next one runs by then: a pass takes as long as from the end of the
    one before."""
    handed_on_s: list[float] = field(default_factory=list)
    """Seconds of handing on the answers that a pass finished, right after its end: their text is made there."""
