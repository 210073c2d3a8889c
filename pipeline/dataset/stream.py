"""Data that can be read once: a named pipe, or whatever else is no regular file (`<(command)`, /dev/stdin).

A run opens it in its timed section and not before, so that whoever hands the data over sees by the opening that all of
loading and warming up is done. What would read them twice is refused by name before anything waits.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pipeline import paths
from pipeline.errors import UsageError
from pipeline.table import Say

PATIENCE_S = 0.5
"""How long a run waits for the pipe's writer before it says so."""


def is_stream(path: Path) -> bool:
    """Whether a path names something that is neither a regular file nor a folder. It is not opened."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def was_stream(manifest: Mapping[str, Any]) -> bool:
    """Whether a run that left this manifest read its data from a pipe, or would read them from one now."""
    noted = bool(manifest.get("dataset", {}).get("pipe"))
    return noted or is_stream(paths.given(manifest["request"]["dataset"]))


def refuse_again(code: str, what: str, path: Path | str, fix: str) -> UsageError:
    """The error for reading a pipe's data a second time: U117 what looks into a file twice, U304
    --repeat, U316 --resume, U348 shards, U502 reproduce."""
    return UsageError(
        code,
        what,
        where=paths.shown(Path(path)),
        expected="a file, which can be read again",
        actual="a pipe, whose data are gone once they are read",
        fix=fix,
    )


def open_stream(path: Path, say: Say) -> BinaryIO:
    """The pipe, opened to read, as soon as it has a writer; says so while it waits."""
    waiting = threading.Timer(PATIENCE_S, say, [f"waiting for somebody to write data into {paths.shown(path)}"])
    waiting.daemon = True
    waiting.start()
    try:
        return open(path, "rb", buffering=0)
    finally:
        waiting.cancel()
