"""For each pass of a set, in the order in which they were done: its rows, and when its choices were there.

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
    """When a pass's choices were there. On a GPU the next pass runs by then, so a pass's time counts from the end of
    the one before."""
    handed_on_s: list[float] = field(default_factory=list)
    """Seconds, right after a pass's end, of handing on the answers that it finished: there they become text."""
