"""A queue by its name on the command line, and the Python that jobs are called with."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import paths
from pipeline.errors import UsageError
from pipeline.queues.local import Local
from pipeline.queues.queue import Queue
from pipeline.queues.slurm import Slurm

NAMES = ("local", "slurm")
PYTHON = (
    "env",
    "PYTHONPATH=" + ":".join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")])),
    sys.executable,
)
"""Finds the same packages as this process."""


def check(on: str, partition: str | None) -> None:
    """Check that there is such a queue, before anything is written.

    Raises UsageError: U737 no such queue, U744 a partition of this machine.
    """
    if on not in NAMES:
        raise UsageError(
            "U737", "there is no such queue", where="--on", expected=", ".join(NAMES), actual=on,
            fix="give one of these",
        )  # fmt: skip
    if partition and on != "slurm":
        raise UsageError(
            "U744", "only Slurm has partitions", where="--partition", expected="--on slurm", actual=f"--on {on}",
            fix="give --on slurm too, or leave --partition out",
        )  # fmt: skip


def of(on: str, partition: str | None, folder: Path, passed: Sequence[str] = (), local: Local | None = None) -> Queue:
    """The queue, its list in `folder` where this machine is one; `passed` are more environment variables for its jobs.

    Raises what `Slurm` does."""
    return Slurm(partition, tuple(passed)) if on == "slurm" else local or Local(folder)
