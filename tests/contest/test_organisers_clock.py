"""The organiser's clock on real processes and pipes: honest programs are timed, and each trick is named."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.contest.rerun import watch as watching
from pipeline.contest.rerun.cgroup import ControlGroup, KernelLog
from pipeline.contest.rerun.handover import Handover
from pipeline.contest.rerun.measure import Caps, Launch, Measured, measure
from pipeline.contest.rerun.watch import Watch
from pipeline.device.host import Host
from pipeline.device.telemetry import work

CONTENT = b'{"message": []}\n' * 10_000
"""More than a pipe holds."""
CAPS = Caps(limit_s=20.0, end_s=5.0, runs_bytes=1 << 20, stdout_bytes=4096)

BEGIN = """
import os, sys, time
pipe, runs = sys.argv[1:]
folder = runs + "/run"
def begin():
    os.mkdir(folder)
    return open(folder + "/outputs.jsonl", "wb", buffering=0)
"""
HONEST = """
file = begin()
time.sleep(0.1)
data = open(pipe, "rb").read()
for _ in range(5):
    time.sleep(0.06)
    file.write(b"an answer\\n")
print("read", len(data))
time.sleep(0.1)
"""


def run(program: str, folder: Path, caps: Caps = CAPS, content: bytes = CONTENT) -> Measured:
    runs, handed = folder / "runs", folder / "data"
    runs.mkdir()
    handed.mkdir()
    pipe = handed / "rows.jsonl"
    command = [sys.executable, "-c", BEGIN + program, str(pipe), str(runs)]
    return measure(Launch(command, dict(os.environ), folder, pipe, runs), content, caps, Host(folder), folder)


def test_the_time_is_from_the_opening_to_the_last_answer(tmp_path: Path) -> None:
    seen = run(HONEST, tmp_path)
    assert (seen.status, seen.wrong, seen.run) == (0, (), "run")
    assert seen.answers == b"an answer\n" * 5
    assert seen.elapsed_s is not None
    assert seen.elapsed_s >= 0.29
    assert (tmp_path / "stdout").read_text() == f"read {len(CONTENT)}\n"
    assert seen.recording is not None


@pytest.mark.alone
def test_it_is_exact_to_a_few_milliseconds(tmp_path: Path) -> None:
    own = """
file = begin()
end = open(pipe, "rb")
start = time.perf_counter()
end.read()
time.sleep(0.3)
file.write(b"an answer\\n")
print(time.perf_counter() - start)
"""
    seen = run(own, tmp_path)
    assert seen.elapsed_s == pytest.approx(float((tmp_path / "stdout").read_text()), abs=0.02)


TRICKS: dict[str, tuple[str, str]] = {
    "placeholders, then the answers over them": (
        'file = begin(); open(pipe, "rb").read(); file.write(b"........\\n"); time.sleep(0.3); file.seek(0)\n'
        'file.write(b"answered\\n")',
        "written over",
    ),
    "one byte at the end": (
        'file = begin(); open(pipe, "rb").read(); file.write(b"answers\\n"); time.sleep(0.3)\n'
        'os.pwrite(file.fileno(), b"A", 0)',
        "written over",
    ),
    "a file that shrinks": (
        'file = begin(); open(pipe, "rb").read(); file.write(b"answers\\n" * 9); time.sleep(0.3); file.truncate(8)',
        "shrank",
    ),
    "another file in its place": (
        'file = begin(); open(pipe, "rb").read(); file.write(b"answers\\n"); time.sleep(0.3)\n'
        'open(runs + "/run/new", "wb").write(b"answered\\n"); os.rename(folder + "/new", folder + "/outputs.jsonl")',
        "exchanged",
    ),
    "taken away": (
        'file = begin(); open(pipe, "rb").read(); file.write(b"a\\n"); time.sleep(0.3); os.unlink(file.name)\n'
        "time.sleep(0.3)",
        "taken away",
    ),
    "answers before the data": (
        'file = begin(); file.write(b"answers\\n"); time.sleep(0.3); open(pipe, "rb").read(); time.sleep(0.3)',
        "before the data",
    ),
    "a kept folder, and the data never opened": (
        'file = begin(); file.write(b"answers\\n"); time.sleep(0.3)', "never opened the data"),
    "two folders": ('file = begin(); open(pipe, "rb").read(); file.write(b"a\\n"); os.mkdir(runs + "/b")', "2 entries"),
    "no folder": ('open(pipe, "rb").read()', "left no run"),
    "no answers": ('os.mkdir(folder); open(pipe, "rb").read()', "no answers"),
    "a link to a file of the host": (
        'os.mkdir(folder); os.symlink("/etc/passwd", folder + "/outputs.jsonl"); open(pipe).read(); time.sleep(1)',
        "cannot be opened",
    ),
    "a link to a folder of the host": ('os.symlink("/etc", folder); open(pipe).read(); time.sleep(1)', "cannot be op"),
    "a pipe for answers": (
        'os.mkdir(folder); os.mkfifo(folder + "/outputs.jsonl"); open(pipe, "rb").read(); time.sleep(1)',
        "no file of their own",
    ),
    "a full disk": (
        'file = begin(); open(pipe, "rb").read()\n'
        'for n in range(999): open(f"{folder}/{n}", "wb").write(b"x" * 65536); time.sleep(0.01)',
        "filled /runs",
    ),
    "many files": (
        'file = begin(); open(pipe, "rb").read()\n'
        'for n in range(9999): open(f"{folder}/{n}", "wb"); time.sleep(0.0003)\ntime.sleep(9)',
        "filled /runs",
    ),
    "the pipe opened twice": (
        'file = begin(); open(pipe, "rb").read(); file.write(b"a\\n"); time.sleep(0.2); open(pipe, "rb").read()', ""),
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_named(trick: str, tmp_path: Path) -> None:
    program, why = TRICKS[trick]
    seen = run(program, tmp_path)
    assert why in "; ".join(seen.wrong)
    assert seen.wrong if why else (seen.wrong, seen.status) == ((), 1)


def test_one_that_never_ends_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    program = 'file = begin(); open(pipe, "rb").read(); file.write(b"a\\n"); os.fork(); time.sleep(600)'
    start_s = time.monotonic()
    seen = run(program, tmp_path, replace(CAPS, end_s=0.5))
    assert seen.status is None
    assert seen.wrong == ("no end within 0.5 s of its last answer",)
    assert time.monotonic() - start_s < 15
    seen_too_long = replace(CAPS, limit_s=0.5)
    (tmp_path / "b").mkdir()
    seen = run("time.sleep(600)", tmp_path / "b", seen_too_long)
    assert "no end within" in seen.wrong[0]
    assert seen.ready_s is None


def test_endless_output_is_bounded(tmp_path: Path) -> None:
    program = 'file = begin(); open(pipe, "rb").read(); file.write(b"a\\n"); sys.stdout.write("x" * (1 << 24) + "end")'
    seen = run(program, tmp_path)
    assert seen.wrong == ()
    assert seen.dropped_bytes > 1 << 23
    assert (tmp_path / "stdout").stat().st_size < 10_000
    assert (tmp_path / "stdout").read_text().endswith("xend")


def test_writing_into_the_pipe_reaches_nobody(tmp_path: Path) -> None:
    program = """
file = begin()
end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
try:
    os.write(end, b"nonsense")
except BlockingIOError:
    pass  # full of the data by now
time.sleep(0.2)
file.write(b"an answer\\n")
"""
    seen = run(program, tmp_path)
    assert (seen.status, seen.answers) == (0, b"an answer\n")


# The parts


def test_an_opening_is_seen_at_once_and_the_name_is_taken_away(tmp_path: Path) -> None:
    handed = Handover(tmp_path / "pipe", b"data")
    time.sleep(0.05)
    assert handed.opened_s is None
    start_s = time.perf_counter()
    with (tmp_path / "pipe").open("rb") as end:
        assert end.read() == b"data"
    handed.end()
    assert handed.opened_s is not None
    assert handed.opened_s - start_s < 1
    assert handed.taken
    assert not (tmp_path / "pipe").exists()


def test_nobody_is_waited_for_when_the_reader_has_ended(tmp_path: Path) -> None:
    before = threading.active_count()
    handed = Handover(tmp_path / "pipe", CONTENT)
    handed.end()
    assert handed.opened_s is None
    half = Handover(tmp_path / "pipe", CONTENT)
    with (tmp_path / "pipe").open("rb", buffering=0) as end:
        end.read(10)
    half.end()
    assert not half.taken
    assert threading.active_count() == before


def test_what_is_copied_is_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "run/outputs.jsonl"
    watch = Watch(tmp_path, most_bytes=100)
    watch.look()
    for part in ("one\n", "tw", "o\n"):
        with file.open("a") as end:
            end.write(part)
        watch.look()
    watch.finish()
    assert (bytes(watch.copied), watch.wrong) == (b"one\ntwo\n", [])
    with file.open("a") as end:
        end.write("x" * 100)
    watch.look()
    assert "more than 100 bytes" in watch.wrong[0]
    watch.close()


def test_too_many_files_are_more_than_any_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()
    assert Watch(tmp_path, 1).used_bytes() > 1 << 60


@pytest.mark.parametrize("version", [1, 2])
def test_the_kernels_counters_of_a_container(version: int, tmp_path: Path) -> None:
    id = "ab" * 32
    if version == 1:
        memory, cpu = tmp_path / f"memory/docker/{id}", tmp_path / f"cpuacct/docker/{id}"
        files = {memory / "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}
        files[cpu / "cpuacct.usage"] = "1500000000\n"
    else:
        memory = cpu = tmp_path / f"machine.slice/libpod-{id}.scope"
        files = {memory / "memory.events": "oom 3\noom_kill 2\n", cpu / "cpu.stat": "usage_usec 1500000\nuser_usec 1\n"}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    group = ControlGroup(tmp_path)
    group.look("cd" * 32)
    assert (group.oom_kills, group.cpu_s) == (0, None)
    group.look(id)
    for path in files:
        path.unlink()
    group.look(id)  # it has gone, and what it said stays
    assert (group.oom_kills, group.cpu_s) == (2, 1.5)


def test_the_kernels_line_is_the_containers_own(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text("6,1,1,-;oom-kill:task_memcg=/docker/old,task=python\n")
    log = KernelLog(path)
    assert log.readable
    with path.open("a") as file:
        file.write("6,2,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/docker/abc,task=python,pid=7\n")
    assert not log.killed_for_memory("old")
    log.close()
    log = KernelLog(path)
    with path.open("a") as file:
        file.write("6,3,3,-;oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/docker/abc,task=python,pid=7\n")
    assert log.killed_for_memory("abc")
    log.close()
    missing = KernelLog(tmp_path / "none")
    assert not missing.readable
    assert not missing.killed_for_memory("abc")


def test_a_containers_time_is_not_others(tmp_path: Path) -> None:
    from pipeline.device import telemetry

    (tmp_path / "proc").mkdir()
    stat = tmp_path / "proc/stat"
    stat.write_text("cpu 0 0 0 1000 0 0 0 0\n")
    before = work(Host(tmp_path))
    stat.write_text("cpu 800 0 0 1200 0 0 0 0\n")
    after = work(Host(tmp_path))
    assert before is not None
    assert after is not None
    after = telemetry.Work(after.all, after.busy, before.ours)
    assert telemetry.others(before, after, 0.0) == pytest.approx(0.8)
    assert telemetry.others(before, after, 7.0) == pytest.approx(0.8 - 7 * os.sysconf("SC_CLK_TCK") / 1000)
