"""This machine as a queue: in order, one at a time, taken over from a killed caller."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.queues.local import Local
from pipeline.queues.queue import Job


def a_job(folder: Path, name: str, code: str, limit_s: float = 60, **other: object) -> Job:
    log = folder / f"{name}.log"
    return Job(name, (sys.executable, "-S", "-c", code), log, limit_s, **other)  # type: ignore[arg-type]


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    end_s = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end_s, "it took too long"
        time.sleep(0.01)


def test_one_at_a_time_in_order_and_first_ones_first(tmp_path: Path) -> None:
    queue, log = Local(tmp_path / "queue", ["here"]), tmp_path / "log"
    say = "import time; f=open({log!r},'a',1); print('{name} in',file=f); time.sleep(0.05); print('{name} out',file=f)"
    for name, first in (("a", False), ("b", False), ("c", True)):
        queue.submit(a_job(tmp_path, name, say.format(log=str(log), name=name), first=first))
        queue.submit(a_job(tmp_path, name, "raise SystemExit(1)"))  # the same name: the same job
    assert [(each.name, each.state) for each in queue.jobs()] == [("c", "waiting"), ("a", "running"), ("b", "waiting")]
    until(lambda: not queue.jobs())
    assert log.read_text().split("\n")[:-1] == [f"{name} {what}" for name in "acb" for what in ("in", "out")]


def test_a_killed_callers_job_is_found_and_not_started_again(tmp_path: Path) -> None:
    code = f"import time; open({str(tmp_path / 'log')!r},'a').write('x'); time.sleep(0.4)"
    Local(tmp_path / "queue", ["here"]).submit(a_job(tmp_path, "a", code))
    other = Local(tmp_path / "queue", ["here"])
    assert [(each.name, each.state, each.node) for each in other.jobs()] == [("a", "running", "here")]
    until(lambda: not other.jobs())
    assert (tmp_path / "log").read_text() == "x"


def test_what_is_cancelled_or_over_its_limit_ends_with_its_children(tmp_path: Path) -> None:
    code = "import os,time\nif os.fork() == 0: open({!r},'w').write(str(os.getpid()))\ntime.sleep(60)"
    queue = Local(tmp_path / "queue", ["here"])
    for name, limit_s in (("cancelled", 60.0), ("late", 0.3)):
        told = tmp_path / f"{name}.pid"
        queue.submit(a_job(tmp_path, name, code.format(str(told)), limit_s))
        until(lambda told=told: told.exists() and told.read_text() != "")
        if name == "cancelled":
            queue.cancel(name)
        until(lambda: not queue.jobs())
        until(lambda told=told: not alive(int(told.read_text())))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_boards_take_two_jobs_and_avoid_what_is_to_be_avoided(tmp_path: Path) -> None:
    queue = Local(tmp_path / "queue", ["one", "two"])
    say = "import os,time; print(os.environ['SLURMD_NODENAME'], flush=True); time.sleep(0.3)"
    queue.submit(a_job(tmp_path, "a", say, avoid=("one",)))
    queue.submit(a_job(tmp_path, "b", say, node="two"))
    queue.submit(a_job(tmp_path, "c", say))
    assert {each.name: each.node for each in queue.jobs()} == {"a": "two", "b": None, "c": "one"}
    until(lambda: not queue.jobs())
    assert [(tmp_path / f"{name}.log").read_text() for name in "abc"] == ["two\n", "two\n", "one\n"]
    assert os.environ.get("SLURMD_NODENAME") is None
