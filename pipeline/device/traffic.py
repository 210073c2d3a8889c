"""Network traffic that this process may have caused: the interfaces that it sees and the bytes that passed them.

Its own view, not the host's: in a container without a network there is only the loopback, which is left out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OWN = Path("/proc/self/net/dev")
LOOPBACK = "lo"


@dataclass(frozen=True)
class Traffic:
    """Bytes between two moments, over all interfaces but the loopback."""

    interfaces: tuple[str, ...]
    received_bytes: int
    sent_bytes: int


def counters(path: Path = OWN) -> dict[str, tuple[int, int]] | None:
    """Bytes received and sent so far, by interface; None where the system does not say."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()[2:]
        parted = [(name.strip(), numbers.split()) for name, numbers in (line.split(":", 1) for line in lines)]
        return {name: (int(numbers[0]), int(numbers[8])) for name, numbers in parted if name != LOOPBACK}
    except (OSError, ValueError, IndexError):
        return None


def between(before: dict[str, tuple[int, int]] | None, after: dict[str, tuple[int, int]] | None) -> Traffic | None:
    """The traffic between two readings of the counters; None where one of the two failed."""
    if before is None or after is None:
        return None
    moved = [
        [now - was for now, was in zip(after[name], before.get(name, (0, 0)), strict=True)] for name in sorted(after)
    ]
    return Traffic(tuple(sorted(before | after)), sum(pair[0] for pair in moved), sum(pair[1] for pair in moved))
