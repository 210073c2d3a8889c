"""This machine as a queue of one board: jobs as processes, one at a time, in the order in which they came.

Its list is a folder, so that whoever comes after a killed caller finds the job that still runs, and does not start a
second one. No daemon: the next job is started when somebody looks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.queues.attempts import boot_id, read, this_node
from pipeline.queues.queue import Job, Listed, Node


class Local:
    def __init__(
        self, folder: Path, names: Sequence[str] = (), environment: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """`folder` keeps the list. `names` are the boards, each with one job at a time; left out: this machine.
        `environment` has the variables of a board's jobs, by its name."""
        self.folder = folder
        self.names = tuple(names) or (this_node(),)
        self._environment = environment or {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, job: Job) -> None:
        path = self.folder / f"{job.name}.json"
        if path.exists():
            return
        files.write_json(
            path,
            {
                "name": job.name, "command": list(job.command), "log": str(job.log), "limit_s": job.limit_s,
                "avoid": list(job.avoid), "node": job.node, "order": [not job.first, time.time()],
            },
            durable=False,
        )  # fmt: skip
        self._start_next()

    def jobs(self) -> list[Listed]:
        self._start_next()
        return [Listed(each["name"], "running" if each.get("pid") else "waiting", each.get("on"))
                for each in self._kept()]  # fmt: skip

    def cancel(self, name: str) -> None:
        told = read(self.folder / f"{name}.json")
        if told is not None:
            self._end(told)

    def nodes(self) -> list[Node]:
        return [Node(name, True) for name in self.names]

    def _kept(self) -> list[dict[str, Any]]:
        """The jobs that wait or run, in order; what has ended is taken off the list."""
        kept = []
        for path in self.folder.glob("*.json"):
            told = read(path)
            if told is None:
                continue
            if told.get("pid") and not self._alive(told):
                path.unlink(missing_ok=True)
            elif told.get("pid") and time.time() > told["began_s"] + told["limit_s"]:
                self._end(told)
            else:
                kept.append(told)
        return sorted(kept, key=lambda each: each["order"])

    def _start_next(self) -> None:
        kept = self._kept()
        free = [name for name in self.names if name not in {each.get("on") for each in kept}]
        for told in kept:
            fit = [name for name in free if told["node"] in (None, name)]
            better = [name for name in fit if name not in told["avoid"]]
            if told.get("pid") or not fit:
                continue
            name = (better or fit)[0]
            free.remove(name)
            with open(told["log"], "ab") as log:
                child = subprocess.Popen(
                    told["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    env={**os.environ, "SLURMD_NODENAME": name, **self._environment.get(name, {})},
                )  # fmt: skip
            self._children[told["name"]] = child
            told |= {"pid": child.pid, "tick": _tick(child.pid), "boot_id": boot_id(), "on": name}
            files.write_json(self.folder / f"{told['name']}.json", told | {"began_s": time.time()}, durable=False)

    def _alive(self, told: dict[str, Any]) -> bool:
        child = self._children.get(told["name"])
        if child is not None:
            return child.poll() is None
        return told["boot_id"] == boot_id() and told["tick"] is not None and _tick(told["pid"]) == told["tick"]

    def _end(self, told: dict[str, Any]) -> None:
        """Take a job off the list, and end it with all that it started if it runs."""
        if told.get("pid") and self._alive(told):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(told["pid"], signal.SIGTERM)
                time.sleep(0.2)
                os.killpg(told["pid"], signal.SIGKILL)
        child = self._children.pop(told["name"], None)
        if child is not None:
            child.wait()
        (self.folder / f"{told['name']}.json").unlink(missing_ok=True)


def _tick(pid: int) -> int | None:
    """When a process began, in the kernel's ticks: a number that was given to another process has another one."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[19])
