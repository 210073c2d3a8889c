"""The most that a stranger's file of each kind may hold before a parser sees it: bytes, and depth where it nests.

Each bound is many times what an honest source tree has. Parsers take a thousand times the room of what they read, and
some of them a time that grows with the square of its depth.
"""

from __future__ import annotations

import re

MOST_BYTES = {"YAML": 256 << 10, "Python": 1 << 20, "a lock": 2 << 20}
MOST_DEPTH = 64
"""Of YAML's lists and mappings."""

_BRACKETS = re.compile(rb"[\[\]{}]")
_IN_ONE_LINE = re.compile(rb"(?:[-?:][ \t]+){%d}" % MOST_DEPTH)
"""Lists in lists without a bracket: `- - - a`."""


def check(kind: str, content: bytes) -> None:
    """Check the size, depth and counts of a file before it is parsed.

    Raises ValueError where `content` is beyond the bounds of its kind, a key of `MOST_BYTES`.
    """
    if len(content) > MOST_BYTES[kind]:
        raise ValueError(f"{len(content):,} bytes, more than {MOST_BYTES[kind]:,} of {kind}")
    if kind == "YAML" and (_IN_ONE_LINE.search(content) or _depth(content) > MOST_DEPTH):
        raise ValueError(f"nested more than {MOST_DEPTH} deep")


def _depth(content: bytes) -> int:
    """How deep brackets nest. Those in texts count too: few texts have scores of them without their other halves."""
    depth = deepest = 0
    for found in _BRACKETS.finditer(content):
        depth = depth + 1 if found[0] in b"[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest
