"""The end of a queue where a job runs: on the board, once, with nothing beside it, and its outcome settled."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.queues import attempts
from pipeline.queues.states import Seen, settles

NODE = "node"
"""The kind of an outcome that is the board's fault, or ours."""

Work = Callable[[Path], dict[str, Any]]
"""From the attempt's folder to its outcome, which has a `kind`."""


def run(attempt: Path, work: Work, allowed: Mapping[str, int]) -> str:
    """Do what an attempt is for, and settle it. Returns in a word what was done."""
    run_folder, node = attempt.parent, attempts.this_node()
    if attempts.result(run_folder) is not None:
        return "settled before"
    attempts.arrive(attempt, node)
    with device(node):
        if attempts.result(run_folder) is not None:  # while this one waited for the board
            return "settled before"
        if not attempts.claim(attempt, node):
            return "begun before"
        try:
            outcome = work(attempt)
        except Exception as error:  # nobody's fault but ours: seen, and tried elsewhere
            outcome = {"kind": NODE, "why": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        attempts.write_outcome(attempt, {"attempt": attempt.name, "node": node, **outcome})
    return settle_where_due(run_folder, attempt, allowed)


def settle_where_due(run_folder: Path, attempt: Path, allowed: Mapping[str, int]) -> str:
    seen = [
        Seen(each.number, True, each.started is not None, None if each.outcome is None else str(each.outcome["kind"]))
        for each in attempts.of_run(run_folder)
    ]
    own = next(each for each in seen if attempt.name == f"attempt-{each.number}")
    if not settles(seen, own, allowed):
        return "another attempt may do better"
    return "settled" if attempts.settle(run_folder, attempt) else "another was first"


@contextlib.contextmanager
def device(node: str) -> Iterator[None]:
    """This board for one job alone: waits until no other has it. On the node's own disk, where locks hold."""
    path = Path(tempfile.gettempdir()) / f"phi3-board-{os.getuid()}-{node}.lock"
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
