"""The files of a run: a folder an attempt, made by whoever queues it, and what its job writes there.

runs/<key>/attempt-<n>/intent.json     the queue has taken the job
                       arrived.json    a process of it is on a board, perhaps waiting for that board to be free
                       started.json    the job has begun: node, boot, process; made by one process only
                       outcome.json    what came of it, whole or not there
runs/<key>/result.json                 a hard link to one outcome, never replaced
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import ResourceError

INTENT, ARRIVED, STARTED = "intent.json", "arrived.json", "started.json"
OUTCOME, RESULT = "outcome.json", "result.json"
MOST_BYTES = 8 << 20
"""More is none of ours: what a job writes of itself is bounded."""
NAME = re.compile(r"attempt-(\d{1,4})")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Attempt:
    folder: Path
    number: int
    submitted: bool
    """Whether the queue said that it has the job."""
    arrived: bool
    """Whether a process of it is, or was, on a board."""
    started: dict[str, Any] | None
    outcome: dict[str, Any] | None

    @property
    def node(self) -> str | None:
        return None if self.started is None else self.started.get("node")


def of_run(run: Path) -> list[Attempt]:
    """All attempts of a run, by number."""
    try:
        numbers = sorted(int(found[1]) for name in os.listdir(run) if (found := NAME.fullmatch(name)))
    except FileNotFoundError:
        return []
    return [_read(run / f"attempt-{number}", number) for number in numbers]


def _read(folder: Path, number: int) -> Attempt:
    return Attempt(
        folder, number, (folder / INTENT).exists(), (folder / ARRIVED).exists(), read(folder / STARTED),
        read(folder / OUTCOME),
    )  # fmt: skip


def read(path: Path) -> dict[str, Any] | None:
    """A JSON object that we wrote; None where there is none that is whole."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        value = json.loads(content) if len(content) <= MOST_BYTES else None
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def result(run: Path) -> dict[str, Any] | None:
    return read(run / RESULT)


def begin(run: Path, number: int) -> Path | None:
    """A new attempt's folder; None where somebody made it before."""
    run.mkdir(parents=True, exist_ok=True)
    folder = run / f"attempt-{number}"
    try:
        folder.mkdir()
    except FileExistsError:
        return None
    return folder


def arrive(attempt: Path, node: str) -> None:
    """Say that a process of the job is on a board."""
    files.write_json(attempt / ARRIVED, {"node": node, "at_s": time.time()}, durable=False)


def claim(attempt: Path, node: str) -> bool:
    """Say that the job has begun; False where another process said so before: the queue has started it twice."""
    told = {"node": node, "boot_id": boot_id(), "process": os.getpid(), "at_s": time.time()}
    return once(attempt / STARTED, files.json_bytes(told))


def once(path: Path, content: bytes) -> bool:
    """Write a file that nobody wrote before: whole, or not at all. False where it is there already."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return link(part, path)
    except OSError as error:
        if trouble := files.resource_trouble(error, path):
            raise trouble from error
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def link(source: Path, target: Path) -> bool:
    """The one step that only one of many can do. False where the target is there already.

    A shared folder may have done it and answer that it failed: then the two names are one file all the same.
    """
    try:
        os.link(source, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            if os.path.samefile(source, target):
                return True
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def settle(run: Path, attempt: Path) -> bool:
    """Make this attempt's outcome the run's result. False where another's is."""
    return link(attempt / OUTCOME, run / RESULT)


def write_outcome(attempt: Path, outcome: dict[str, Any], patience_s: float = 600.0, pause_s: float = 5.0) -> None:
    """Write what came of it, and wait out a shared folder that is full or away. Raises ResourceError in the end."""
    until_s = time.monotonic() + patience_s
    while True:
        try:
            return files.write_json(attempt / OUTCOME, outcome)
        except (ResourceError, OSError):
            if time.monotonic() >= until_s:
                raise
            time.sleep(pause_s)


def boot_id() -> str | None:
    """Another one after every start of the machine."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return None


def this_node() -> str:
    """This machine's name as the queue knows it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
