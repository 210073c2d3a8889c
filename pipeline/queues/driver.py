"""Brings runs to their results: looks at files and queue, does the next step for each, and forgets everything.

It may be killed at any moment; the next one goes on from what it finds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.queues import attempts
from pipeline.queues.attempts import Attempt
from pipeline.queues.job import NODE
from pipeline.queues.queue import Job, Listed, Queue
from pipeline.queues.states import Seen, Step, next_step

GIVEN_UP = "given-up"
"""The folder of an outcome that no attempt wrote."""


@dataclass(frozen=True)
class Wanted:
    """A run that is to have a result."""

    key: str
    limit_s: float
    avoid: tuple[str, ...] = ()
    node: str | None = None
    first: bool = False


@dataclass(frozen=True)
class Run:
    """A run's state, node, result and attempts at one moment."""

    key: str
    state: str
    """planned, queued, running, ended, settled."""
    node: str | None
    result: dict[str, Any] | None
    attempts: tuple[Attempt, ...]


@dataclass
class Driver:
    """Submits, watches and settles the jobs of a set of runs."""

    queue: Queue
    runs: Path
    prefix: str
    """Of the jobs' names: of this plan and no other."""
    command: Callable[[Path], Sequence[str]]
    """From an attempt's folder to what its job calls."""
    allowed: Mapping[str, int]
    grace_s: float = 30.0
    """A job that the list lacks so long is gone: lists and shared folders lag."""
    launch_s: float = 120.0
    """A job that the list has as running so long, and that has come to no board, never will."""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._missing: dict[str, float] = {}
        self._launched: dict[str, float] = {}
        """Since when a job runs, as the list has it."""

    def name(self, key: str, number: int) -> str:
        return f"{self.prefix}-{key}-a{number}"

    def look(self, wanted: Sequence[Wanted], window: int) -> list[Run]:
        """One look at all, in order: settle, submit up to `window` open jobs, give up. Raises QueueSilent.

        Few are open at a time: what Slurm loses in a crash are these, and where a run went decides where the next goes.
        """
        listed = {each.name: each for each in self.queue.jobs()}
        up = sum(each.up for each in self.queue.nodes())
        found, open_jobs = [], sum(name.startswith(f"{self.prefix}-") for name in listed)
        for each in sorted(wanted, key=lambda one: not one.first):
            run = self._run(each.key, listed)
            seen = [self._seen(each.key, one, listed) for one in run.attempts]
            step = next_step(run.result is not None, seen, self.allowed, self.grace_s)
            if step.do.startswith("submit") and (each.first or open_jobs < window):
                open_jobs += self._submit(each, step, run, up)
            elif self._do(each.key, step):
                run = self._run(each.key, listed)
            found.append(run)
        return found

    def settle_without(self, key: str, outcome: dict[str, Any]) -> bool:
        """Give a run a result that no attempt made. False where it has one."""
        folder = self.runs / key / GIVEN_UP
        try:
            folder.mkdir(parents=True, exist_ok=True)
            attempts.once(folder / attempts.OUTCOME, files.json_bytes(outcome))
            return attempts.settle(folder.parent, folder)
        except OSError as error:
            if trouble := files.resource_trouble(error, folder):
                raise trouble from error
            raise

    def cancel(self) -> int:
        """End all jobs of this plan, those that run too."""
        names = [each.name for each in self.queue.jobs() if each.name.startswith(f"{self.prefix}-")]
        for name in names:
            self.queue.cancel(name)
        return len(names)

    def _run(self, key: str, listed: Mapping[str, Listed]) -> Run:
        folder = self.runs / key
        result, made = attempts.result(folder), attempts.of_run(folder)
        last = made[-1] if made else None
        job = None if last is None else listed.get(self.name(key, last.number))
        state = "planned"
        if result is not None:
            state = "settled"
        elif last is not None:
            running = job is not None and (job.state == "running" or last.started is not None)
            state = "ended" if last.outcome is not None else "running" if running else "queued" if job else "planned"
        node = (result or {}).get("node") or (last.node if last else None) or (job.node if job else None)
        return Run(key, state, node, result, tuple(made))

    def _seen(self, key: str, made: Attempt, listed: Mapping[str, Listed]) -> Seen:
        name = self.name(key, made.number)
        job = listed.get(name)
        since_s = self.clock() if job else self._missing.setdefault(name, self.clock())
        if job:
            self._missing.pop(name, None)
        runs = job is not None and job.state == "running"
        launched_s = self._launched.setdefault(name, self.clock()) if runs else self.clock()
        if not runs:
            self._launched.pop(name, None)
        return Seen(
            number=made.number,
            submitted=made.submitted,
            started=made.started is not None,
            kind=None if made.outcome is None else str(made.outcome.get("kind")),
            listed=job is not None,
            held=job is not None and job.state == "held",
            missing_s=self.clock() - since_s,
            vanished=not made.arrived and self.clock() - launched_s >= self.launch_s,
        )

    def _submit(self, wanted: Wanted, step: Step, run: Run, up: int) -> int:
        """Queue an attempt; 1 if that was done. The queue's word comes first, then the note that it has the job."""
        folder = self.runs / wanted.key / f"attempt-{step.attempt}"
        if step.do == "submit" and attempts.begin(self.runs / wanted.key, step.attempt) is None:
            return 0
        failed = {each.node for each in run.attempts if each.node is not None}
        avoid = tuple(sorted(failed | set(wanted.avoid)))
        avoid = avoid if len(avoid) < up else tuple(sorted(failed)) if len(failed) < up else ()
        name = self.name(wanted.key, step.attempt)
        command = tuple(map(str, self.command(folder)))
        self.queue.submit(
            Job(name, command, folder / "job.log", wanted.limit_s, () if wanted.node else avoid, wanted.node,
                wanted.first)
        )  # fmt: skip
        files.write_json(folder / attempts.INTENT, {"job": name, "avoid": list(avoid)}, durable=False)
        self._missing.pop(name, None)
        self.event("submitted", name)
        return 1

    def _do(self, key: str, step: Step) -> bool:
        folder = self.runs / key
        if step.do == "settle":
            made = attempts.settle(folder, folder / f"attempt-{step.attempt}")
            self.event("settled", self.name(key, step.attempt)) if made else None
        elif step.do == "give up":
            tried = [each.node for each in attempts.of_run(folder)]
            self.settle_without(key, {"kind": NODE, "node": None, "why": f"no outcome of attempts on {tried}"})
            self.event("given up", key)
        elif step.do == "cancel":
            self.queue.cancel(self.name(key, step.attempt))
            self.event("cancelled", self.name(key, step.attempt))
        return step.do in {"settle", "give up"}

    def event(self, what: str, about: str) -> None:
        """A line for people; nothing reads it, and a full disk does not end the work."""
        line = json.dumps({"at_s": round(time.time(), 3), "what": what, "about": about})
        try:
            with open(self.runs.parent / "events.jsonl", "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            return
