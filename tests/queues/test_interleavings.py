"""Queue, nodes, jobs and drivers dying and racing in any order: never two results, never a run without a way on."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.queues import attempts, job
from pipeline.queues.driver import Driver, Wanted
from pipeline.queues.queue import Job, Listed, Node, QueueSilent
from pipeline.queues.states import MOST_ATTEMPTS, MOST_STARTED, Seen, next_step

KEYS = ("x-r1",)
ALLOWED = {"node": MOST_STARTED, "did not start": 2}
KINDS = ("ok", "timeout", "did not start", "node")
GRACE_S = 30.0


class Shaky:
    """A queue whose list a test spoils."""

    def __init__(self) -> None:
        self.waiting: dict[str, Job] = {}
        self.running: dict[str, Job] = {}
        self.held: set[str] = set()
        self.silent = False
        self.takes_and_fails = False

    def submit(self, taken: Job) -> None:
        self._answer()
        assert taken.name not in self.waiting
        self.waiting[taken.name] = taken
        if self.takes_and_fails:
            raise QueueSilent

    def jobs(self) -> list[Listed]:
        self._answer()
        waiting = [Listed(name, "held" if name in self.held else "waiting") for name in self.waiting]
        return [*waiting, *(Listed(name, "running") for name in self.running)]

    def cancel(self, name: str) -> None:
        self._answer()
        self.waiting.pop(name, None)
        self.running.pop(name, None)

    def nodes(self) -> list[Node]:
        return [Node(f"n{number}", True) for number in range(3)]

    def _answer(self) -> None:
        if self.silent:
            raise QueueSilent


class World(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="world-"))
        self.queue = Shaky()
        self.now_s = 0.0
        self.processes: list[Path] = []
        """Attempts whose job runs somewhere, listed or not."""
        self.began: list[Path] = []
        self.first: dict[str, bytes] = {}
        """Results as they were first seen."""
        self.new_driver()

    @rule()
    def new_driver(self) -> None:
        """The one before was killed: what it remembered is gone."""
        self.driver = Driver(
            self.queue,
            self.root / "runs",
            "j",
            lambda folder: [str(folder)],
            ALLOWED,
            GRACE_S,
            120.0,
            lambda: self.now_s,
        )

    @rule(seconds=st.sampled_from([0.0, 31.0]))
    def look(self, seconds: float) -> None:
        self.now_s += seconds
        self._look()
        self._look()

    def _look(self) -> None:
        try:
            self.driver.look([Wanted(key, 60) for key in KEYS], window=4)
        except QueueSilent:
            assert self.queue.silent or self.queue.takes_and_fails

    @rule(trouble=st.sampled_from(["silent", "takes_and_fails"]))
    def a_look_in_trouble(self, trouble: str) -> None:
        setattr(self.queue, trouble, True)
        self.look(31.0)
        setattr(self.queue, trouble, False)

    @precondition(lambda self: self.queue.waiting)
    @rule(
        data=st.data(),
        what=st.sampled_from(["starts", "starts", "is lost", "is held", "starts twice", "is an orphan", "never comes"]),
    )
    def a_waiting_job(self, data: st.DataObject, what: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.queue.waiting)))
        if what == "is held":
            self.queue.held.add(name)
            return
        taken = self.queue.waiting.pop(name)
        self.queue.held.discard(name)
        for _ in range({"starts": 1, "starts twice": 2, "is an orphan": 1}.get(what, 0)):
            self._start(Path(taken.command[0]))
        if what.startswith("starts") or what == "never comes":
            self.queue.running[name] = taken

    def _start(self, attempt: Path) -> None:
        begun_before = attempts.result(attempt.parent) is not None
        if not begun_before and attempts.claim(attempt, "n1"):
            assert attempt not in self.began, "an attempt began twice"
            self.began.append(attempt)
            attempts.arrive(attempt, "n1")
            self.processes.append(attempt)

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), kind=st.sampled_from(KINDS), how=st.sampled_from(["whole", "whole", "not settled", "dies"]))
    def a_process_ends(self, data: st.DataObject, kind: str, how: str) -> None:
        attempt = data.draw(st.sampled_from(self.processes))
        self.processes.remove(attempt)
        self.queue.running.pop(f"j-{attempt.parent.name}-a{attempt.name.rpartition('-')[2]}", None)
        if how != "dies":
            attempts.write_outcome(attempt, {"kind": kind, "node": "n1", "attempt": attempt.name})
        if how == "whole":
            job.settle_where_due(attempt.parent, attempt, ALLOWED)

    @precondition(lambda self: self.queue.running)
    @rule()
    def the_list_forgets_all_that_run(self) -> None:
        """For so long that it counts: each is tried again, while its process goes on."""
        self.queue.running.clear()
        self.look(0.0)
        self.look(31.0)
        for name in sorted(self.queue.waiting):
            self.queue.running[name] = self.queue.waiting.pop(name)
            self._start(Path(self.queue.running[name].command[0]))

    @invariant()
    def results_stay(self) -> None:
        for key in KEYS:
            path = self.root / "runs" / key / "result.json"
            if path.exists():
                assert self.first.setdefault(key, path.read_bytes()) == path.read_bytes()
        assert all((self.root / "runs" / key / "result.json").exists() for key in self.first)

    @invariant()
    def attempts_are_bounded(self) -> None:
        for key in KEYS:
            made = attempts.of_run(self.root / "runs" / key)
            assert len(made) <= MOST_ATTEMPTS
            # Jobs that a queue lost and that run all the same come on top.
            assert sum(each.started is not None for each in made) <= MOST_ATTEMPTS

    def teardown(self) -> None:
        """From whatever is there, a queue that works brings every run to its result."""
        if not hasattr(self, "root"):
            return
        self.queue.silent = self.queue.takes_and_fails = False
        self.new_driver()
        for _ in range(60):
            self._look()
            for name in list(self.queue.waiting):
                if name not in self.queue.held:
                    taken = self.queue.waiting.pop(name)
                    self.queue.running[name] = taken
                    self._start(Path(taken.command[0]))
            for attempt in list(self.processes):
                self.processes.remove(attempt)
                attempts.write_outcome(attempt, {"kind": "ok", "attempt": attempt.name})
                job.settle_where_due(attempt.parent, attempt, ALLOWED)
            self.queue.running.clear()
            self.now_s += 31
        assert {key for key in KEYS if attempts.result(self.root / "runs" / key)} == set(KEYS)
        self.results_stay()
        for key in KEYS:
            told = json.loads((self.root / "runs" / key / "result.json").read_text())
            assert told["kind"] in {*KINDS}
        shutil.rmtree(self.root)


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=15, stateful_step_count=25)


def seen(number: int, **other: object) -> Seen:
    return Seen(number, submitted=True, started=True, kind=None, missing_s=99, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attempts_seen", "do", "number"),
    [
        ([], "submit", 1),
        ([Seen(1, True, False, None, listed=True)], "wait", 1),
        ([Seen(1, True, False, None, missing_s=29)], "wait", 1),
        ([Seen(1, True, False, None, missing_s=31)], "submit", 2),
        ([Seen(1, False, False, None, missing_s=31)], "submit again", 1),
        ([Seen(1, True, False, None, listed=True, held=True)], "cancel", 1),
        ([Seen(1, True, False, None, listed=True, vanished=True)], "cancel", 1),
        ([seen(1)], "submit", 2),
        ([seen(1), seen(2), seen(3)], "give up", 0),
        ([Seen(n, True, False, None, missing_s=31) for n in range(1, 11)], "give up", 0),
        ([Seen(1, True, True, "ok")], "settle", 1),
        ([Seen(1, True, True, "node")], "submit", 2),
        ([Seen(1, True, True, "did not start")], "submit", 2),
        ([Seen(1, True, True, "node"), Seen(2, True, True, "did not start")], "submit", 3),
        ([Seen(1, True, True, "did not start"), Seen(2, True, True, "did not start")], "settle", 2),
        ([Seen(1, True, True, "node"), seen(2), Seen(3, True, True, "node")], "settle", 3),
        ([seen(1), Seen(2, True, True, "ok"), Seen(3, True, True, None, listed=True)], "settle", 2),
    ],
)
def test_the_next_step(attempts_seen: list[Seen], do: str, number: int) -> None:
    step = next_step(False, attempts_seen, ALLOWED, GRACE_S)
    assert (step.do, step.attempt) == (do, number)


def test_a_job_that_runs_nowhere_is_cancelled_and_queued_again(tmp_path: Path) -> None:
    queue, now_s = Shaky(), [0.0]
    driver = Driver(queue, tmp_path / "runs", "j", lambda folder: [str(folder)], ALLOWED, 5.0, 60.0, lambda: now_s[0])
    wanted = [Wanted("x-r1", 60)]
    driver.look(wanted, 2)
    queue.running["j-x-r1-a1"] = queue.waiting.pop("j-x-r1-a1")  # by the list alone
    for now_s[0] in (1.0, 59.0):
        driver.look(wanted, 2)
    assert list(queue.running) == ["j-x-r1-a1"]
    for now_s[0] in (61.0, 62.0, 68.0):
        driver.look(wanted, 2)
    assert (list(queue.running), list(queue.waiting)) == ([], ["j-x-r1-a2"])
    # One that is there and waits for its board is left alone.
    queue.running["j-x-r1-a2"] = queue.waiting.pop("j-x-r1-a2")
    attempts.arrive(tmp_path / "runs/x-r1/attempt-2", "n1")
    for now_s[0] in (69.0, 500.0):
        driver.look(wanted, 2)
    assert list(queue.running) == ["j-x-r1-a2"]


def test_what_waits_for_a_settled_run_is_cancelled() -> None:
    assert next_step(True, [Seen(1, True, False, None, listed=True)], ALLOWED, GRACE_S).do == "cancel"
    assert next_step(True, [Seen(1, True, True, None, listed=True)], ALLOWED, GRACE_S).do == "nothing"
