"""What went over the network while a run went on: the rules want none.

The counters are those of this process's own network: in a container without one there is nothing but the loopback. On
a machine with a network other programs count too, so bytes are a doubt and no proof.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.device.host import Host

TABLE = "proc/self/net/dev"
_LINE = re.compile(r"^\s*([^\s:]+):\s*(\d+)(?:\s+\d+){7}\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Traffic:
    interfaces: tuple[str, ...]
    """Beside the loopback."""
    received_bytes: int
    sent_bytes: int


def look(host: Host) -> Traffic | None:
    """Since the interfaces came up; None where it cannot be read."""
    table = host.read(TABLE)
    if table is None:
        return None
    found = [(name, int(got), int(sent)) for name, got, sent in _LINE.findall(table) if name != "lo"]
    names = tuple(sorted(name for name, _, _ in found))
    return Traffic(names, sum(got for _, got, _ in found), sum(sent for _, _, sent in found))


def between(before: Traffic | None, after: Traffic | None) -> Traffic | None:
    """What went over the interfaces from one moment to a later one; None where either is not known."""
    if before is None or after is None:
        return None
    names = tuple(sorted({*before.interfaces, *after.interfaces}))
    return Traffic(names, after.received_bytes - before.received_bytes, after.sent_bytes - before.sent_bytes)
