"""What every queue can do: take a job by its name, list, cancel, and say which boards it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


class QueueSilent(Exception):
    """The queue did not answer, or not with sense: nothing is known, so nothing is concluded."""


@dataclass(frozen=True)
class Job:
    name: str
    """Its identity. A queue's own numbers are none: after a crash Slurm gives them to other jobs."""
    command: tuple[str, ...]
    log: Path
    """Where its outputs go."""
    limit_s: float
    """A net: a job ends itself before."""
    avoid: tuple[str, ...] = ()
    """Nodes that it should not run on."""
    node: str | None = None
    """The only node that will do."""
    first: bool = False
    """Before all others."""


@dataclass(frozen=True)
class Listed:
    name: str
    state: Literal["waiting", "running", "held"]
    node: str | None = None


@dataclass(frozen=True)
class Node:
    name: str
    up: bool
    why: str = ""
    """Of one that is not."""


class Queue(Protocol):
    """All raise QueueSilent."""

    def submit(self, job: Job) -> None: ...

    def jobs(self) -> list[Listed]:
        """The jobs that wait or run; what has ended is not listed."""
        ...

    def cancel(self, name: str) -> None: ...

    def nodes(self) -> list[Node]: ...
