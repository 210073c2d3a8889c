"""One who drives a plan at a time: a lock where locks hold, and a file that names its owner where they may not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline import files, paths
from pipeline.errors import UsageError
from pipeline.queues.attempts import boot_id, read

FRESH_S = 120.0
"""An owner on another machine that was silent for longer is gone."""


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[Path]:
    """Be the one who drives what lies in this folder; yields the file to touch at every look. Raises UsageError (U732)
    where there is one already."""
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = folder / "owner.lock", folder / "owner.json"
    handle = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = not _elsewhere(owner)
        except BlockingIOError:
            free = False
        if not free:
            told = read(owner) or {}
            raise UsageError(
                "U732",
                "another process works on this folder already",
                where=paths.shown(folder),
                actual=f"process {told.get('process', '?')} on {told.get('host', '?')}",
                fix="wait for it, or end it; --status only looks",
            )
        files.write_json(
            owner, {"host": socket.gethostname(), "boot_id": boot_id(), "process": os.getpid()}, durable=False
        )
        try:
            yield owner
        finally:
            owner.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _elsewhere(owner: Path) -> bool:
    """Whether an owner on another machine was active lately: over NFS the lock may be none."""
    told = read(owner)
    if told is None or told.get("boot_id") == boot_id():
        return False
    try:
        return abs(time.time() - owner.stat().st_mtime) < FRESH_S
    except FileNotFoundError:
        return False
