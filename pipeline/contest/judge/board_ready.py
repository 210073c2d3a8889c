"""Before a run, outside of its clock: the board cool and its caches empty, as it is before every other run."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass

from pipeline.device import board, channels
from pipeline.device.host import Host

COOL_C = 60.0
"""Every sensor of a Jetson is to be below. A guess until boards say better."""
PATIENCE_S, LOOK_S = 600.0, 2.0


@dataclass(frozen=True)
class Waited:
    waited_s: float
    why: str = ""
    """Why the board is not ready; empty: it is."""


def wait(host: Host, patience_s: float = PATIENCE_S, look_s: float = LOOK_S) -> Waited:
    """Wait until a Jetson has cooled down; another machine is taken as it is. Drops caches where that is allowed."""
    _drop_caches(host)
    if not board.look(host).is_jetson:
        return Waited(0.0)
    began_s = time.monotonic()
    while hot := _hot(host):
        if time.monotonic() - began_s >= patience_s:
            return Waited(time.monotonic() - began_s, f"not below {COOL_C:g} °C within {patience_s:g} s: {hot}")
        time.sleep(look_s)
    return Waited(time.monotonic() - began_s)


def _hot(host: Host) -> str:
    found = []
    for channel in channels.find(host):
        if channel.kind == "temperature":
            with contextlib.suppress(OSError, ValueError):
                value = channel.read()
                found += [f"{channel.name} {value:.1f}"] * (value >= COOL_C)
    return ", ".join(found)


def _drop_caches(host: Host) -> None:
    """Drop the page cache, so that a submission does not find in memory what the last one read. Only root may."""
    with contextlib.suppress(OSError):
        os.sync()
        host.path("proc/sys/vm/drop_caches").write_text("1\n")
