"""The organiser's clock: from the moment a program opens the data to the last change of its answers.

Both moments are seen from outside, by this process: the program has no part in them. Memory and processes are capped by
the container; disk, output and time by what runs here.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline.contest.rerun.cgroup import ControlGroup, KernelLog
from pipeline.contest.rerun.ending import Ending
from pipeline.contest.rerun.handover import Handover
from pipeline.contest.rerun.watch import Watch
from pipeline.device import telemetry, verdict
from pipeline.device.host import Host
from pipeline.process import end_group

LOOK_S, EARLY_LOOK_S = 0.001, 0.02
"""Time between two looks at the answers: how exact the clock's end is; and before the data are opened."""
SLOW_LOOK_S = 0.05
"""The same for disk and control group."""
TAIL_BYTES = 4096
OUT_OF_MEMORY = "out of memory: the kernel ended a process of it"


@dataclass(frozen=True)
class Caps:
    limit_s: float
    """From the start to the end of the program."""
    end_s: float = 300.0
    """From the last change of the answers to the end: comparing weights with their lock, scoring, the manifest."""
    runs_bytes: int = 1 << 30
    """What it may write to /runs."""
    stdout_bytes: int = 1 << 20
    """How much is kept of each of its two outputs."""


@dataclass(frozen=True)
class Launch:
    """A program that can be started once."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    pipe: Path
    """Where it expects its data."""
    runs: Path
    """The empty folder that it writes to."""
    id_file: Path | None = None
    """Where its container's id will be written."""
    kill: Callable[[], object] = lambda: None
    """Ends what outlives the process that was started."""


@dataclass(frozen=True)
class Measured:
    status: int | None
    """Exit status; None: it was ended."""
    ready_s: float | None
    """From the start to the opening of the data; None: it never opened them."""
    elapsed_s: float | None
    """From the opening to the last change of the answers; None: there was no such interval."""
    answers: bytes
    """As they were copied."""
    run: str | None
    """Name of the folder that it made."""
    wrong: tuple[str, ...]
    board: tuple[verdict.State, verdict.State]
    recording: telemetry.Recording | None
    """What the board did from the opening to the end; None: the data were not opened."""
    dropped_bytes: int = 0
    """What it wrote to its outputs beyond what is kept."""


@dataclass
class _Output:
    """One of the program's outputs: its beginning goes to a file, its end is kept, the rest is read and dropped."""

    source: IO[bytes]
    path: Path
    most: int
    dropped: int = 0
    tail: deque[bytes] = field(default_factory=lambda: deque(maxlen=2))

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        left = self.most
        with self.path.open("wb") as file:
            while part := os.read(self.source.fileno(), 1 << 16):
                file.write(part[:left])
                self.dropped += max(0, len(part) - left)
                left = max(0, left - len(part))
                self.tail.append(part)
            if self.dropped:
                file.write(f"\n… {self.dropped:,} bytes were not kept …\n".encode() + b"".join(self.tail)[-TAIL_BYTES:])


def measure(launch: Launch, content: bytes, caps: Caps, host: Host, into: Path) -> Measured:
    """Start the program, hand the data over, watch it to its end. Its outputs go to `into`/stdout and stderr."""
    watch, group, kernel = Watch(launch.runs, caps.runs_bytes), ControlGroup(), KernelLog()
    before, handover = verdict.state(host), Handover(launch.pipe, content)
    started: list[subprocess.Popen[bytes]] = []
    readers: list[threading.Thread] = []
    sampling: telemetry.Telemetry | None = None
    recording: telemetry.Recording | None = None
    ended: list[str] = []
    cpu_s = [0.0, 0.0]
    slow_s = 0.0

    def end() -> None:
        nonlocal recording
        launch.kill()
        for each in started:
            end_group(each)
        launch.kill()  # of what came to be after the first time
        handover.end()
        recording = _recording(sampling, cpu_s)

    with Ending(end) as ending:
        with ending.waiting():
            process = subprocess.Popen(
                list(launch.command), cwd=launch.folder, env=dict(launch.environment), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            started.append(process)
        start_s = time.perf_counter()
        outputs = [_Output(process.stdout, into / "stdout", caps.stdout_bytes),  # type: ignore[arg-type]
                   _Output(process.stderr, into / "stderr", caps.stdout_bytes)]  # type: ignore[arg-type]  # fmt: skip
        readers += [each.start() for each in outputs]
        while process.poll() is None and not ended:
            watch.look()
            now_s = time.perf_counter()
            if handover.opened_s is not None and sampling is None:
                sampling = telemetry.Telemetry(host, into).__enter__()
                if (watch.first_change_s or now_s) < handover.opened_s:
                    watch.wrong.append("there were answers before the data were handed over")
                cpu_s[0] = group.cpu_s or 0.0
            if now_s - slow_s >= SLOW_LOOK_S:
                slow_s = now_s
                if container := _id(launch.id_file):
                    group.look(container)
                    cpu_s[1] = group.cpu_s or 0.0
                ended = _over(caps, watch, now_s - start_s, now_s, handover.opened_s)
            time.sleep(EARLY_LOOK_S if sampling is None and handover.opened_s is None else LOOK_S)
        status = None if ended else process.poll()
    for reader in readers:
        reader.join(5)
    watch.finish()
    watch.close()
    container = _id(launch.id_file)
    memory = bool(container) and (group.oom_kills > 0 or kernel.killed_for_memory(container))
    kernel.close()
    opened_s, last_s = handover.opened_s, watch.last_change_s
    never = ["it never opened the data"] * (opened_s is None and not ended)
    late = opened_s is not None and last_s is not None and last_s > opened_s
    return Measured(
        status=status,
        ready_s=None if opened_s is None else opened_s - start_s,
        elapsed_s=last_s - opened_s if late and opened_s is not None and last_s is not None else None,
        answers=bytes(watch.copied),
        run=watch.folder,
        wrong=tuple(dict.fromkeys([*[OUT_OF_MEMORY] * memory, *ended, *never, *watch.wrong])),
        board=(before, verdict.state(host)),
        recording=recording,
        dropped_bytes=sum(each.dropped for each in outputs),
    )


def _over(caps: Caps, watch: Watch, since_start_s: float, now_s: float, opened_s: float | None) -> list[str]:
    """Why it has to be ended now, if it has to."""
    last_s = watch.last_change_s
    reasons = [f"no end within {caps.limit_s:g} s"] * (since_start_s > caps.limit_s)
    if opened_s is not None and last_s is not None and now_s - last_s > caps.end_s:
        reasons.append(f"no end within {caps.end_s:g} s of its last answer")
    if watch.used_bytes() > caps.runs_bytes:
        reasons.append(f"it filled /runs beyond {caps.runs_bytes:,} bytes")
    return reasons or watch.wrong[:1]


def _recording(sampling: telemetry.Telemetry | None, cpu_s: Sequence[float]) -> telemetry.Recording | None:
    """The organiser's recording, with the container's own processor time taken out of what others used."""
    if sampling is None:
        return None
    sampling.used_elsewhere_s = max(0.0, cpu_s[1] - cpu_s[0])
    sampling.__exit__(None, None, None)
    return sampling.recording


def _id(path: Path | None) -> str:
    try:
        return "" if path is None else path.read_text().strip()
    except OSError:
        return ""
