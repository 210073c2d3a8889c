"""Before anything is queued: a short job on every board shows that the shared folder is shared and has hard links,
and that clocks agree.

    python -m pipeline.queues.boards FOLDER
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files, paths
from pipeline.errors import EnvironmentProblem
from pipeline.queues import attempts
from pipeline.queues.queue import Job, Node, Queue, QueueSilent

PATIENCE_S, LOOK_S = 120.0, 0.5
MOST_APART_S = 60.0

Answer = Mapping[str, Any]
"""What a board says of itself."""


def look(folder: Path, more: Mapping[str, Any]) -> None:
    """On a board: leave an answer, with `more` that the caller wants to know."""
    node, token = attempts.this_node(), folder / "token"
    linked = token.exists() and attempts.link(token, folder / f"link-{node}")
    files.write_json(folder / f"{node}.json", {"node": node, "at_s": time.time(), "linked": linked, **more})


def check(
    queue: Queue, place: Path, command: Sequence[str], tell: Callable[[str], object]
) -> list[tuple[Node, Answer]]:
    """The boards that will do, and the answer of each; `command` calls `look` with a folder behind it. Raises
    EnvironmentProblem for the first that will not: E633 no board at all, E634 the folder is not shared, E635 no hard
    links, E636 clocks apart."""
    nodes = queue.nodes()
    up = [each for each in nodes if each.up]
    for each in nodes:
        if not each.up:
            tell(f"{each.name} is not used: {each.why}. When it is well: scontrol update nodename={each.name} "
                 "state=resume")  # fmt: skip
    if not up:
        raise EnvironmentProblem(
            "E633", "no board is up", where="sinfo", actual=", ".join(f"{each.name}: {each.why}" for each in nodes),
            fix="look at their reasons: scontrol show node; then resume them",
        )  # fmt: skip
    folder = place / "probes" / str(time.time_ns())
    folder.mkdir(parents=True)
    (folder / "token").touch()
    began_s = time.time()
    for each in up:
        queue.submit(Job(f"probe-{folder.name}-{each.name}", (*command, str(folder)), folder / f"{each.name}.log", 60.0,
                         node=each.name, first=True))  # fmt: skip
    answers = _answers(queue, folder, up)
    return [(each, _judged(each, answers.get(each.name), began_s, folder)) for each in up]


def _answers(queue: Queue, folder: Path, up: Sequence[Node]) -> dict[str, dict[str, Any]]:
    until_s, gone_s = time.monotonic() + PATIENCE_S, 0.0
    found: dict[str, dict[str, Any]] = {}
    while len(found) < len(up) and time.monotonic() < until_s:
        found = {each.name: told for each in up if (told := attempts.read(folder / f"{each.name}.json"))}
        try:
            listed = {each.name for each in queue.jobs() if each.name.startswith(f"probe-{folder.name}")}
        except QueueSilent:
            listed = {"unknown"}
        gone_s = 0.0 if listed else gone_s or time.monotonic()
        if gone_s and time.monotonic() - gone_s > 10.0:
            break  # they have run, and their answers are not here
        time.sleep(LOOK_S)
    return found


def _judged(node: Node, told: dict[str, Any] | None, began_s: float, folder: Path) -> Answer:
    if told is None:
        raise EnvironmentProblem(
            "E634",
            "a board left no answer in the shared folder: it is not shared, or the board cannot run our program",
            where=node.name,
            expected=f"{folder}/{node.name}.json within {PATIENCE_S:g} s",
            fix=f"mount the folder and the checkout on {node.name} under the same paths; {folder}/{node.name}.log has "
            "what the job said, if it is shared",
        )
    if not told.get("linked"):
        raise EnvironmentProblem(
            "E635", "the shared folder has no hard links on this board, and every result needs one",
            where=f"{node.name}: {paths.shown(folder)}", fix="use a file system that has them, such as NFS or ext4",
        )  # fmt: skip
    now_s = time.time()
    if not began_s - MOST_APART_S <= told["at_s"] <= now_s + MOST_APART_S:
        raise EnvironmentProblem(
            "E636", "clocks of this machine and a board differ by minutes", where=node.name,
            expected=f"at most {MOST_APART_S:g} s", actual=f"{told['at_s'] - now_s:+.0f} s",
            fix="let both follow one time server: timedatectl set-ntp true",
        )  # fmt: skip
    return told


if __name__ == "__main__":
    look(Path(sys.argv[1]), {})
