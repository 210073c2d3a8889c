"""Run a program that a model wrote: with little time and memory, no network, in a folder of its own.

The limits are the operating system's; whatever the program has started ends with it. The network is taken away by a
seccomp filter under which no socket can be made; where that cannot be installed, nothing is run. Files that the user
may read or write, the program may too: for answers of a model that you do not trust, use a container as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.errors import EnvironmentProblem

TIME_LIMIT_S = 10
MEMORY_LIMIT_BYTES = 1 << 30
FILE_LIMIT_BYTES = 1 << 24

_PASSED, _NO_FILTER = 86, 87
"""Exit statuses that a program hardly has by itself: the end was reached; the network could not be taken away."""

# Runs in the child, before the program. struct sock_filter is (code, jump if true, jump if false, value): 0x20 loads a
# word of the call's description, 0x15 compares for equality, 0x35 for greater or equal, 0x06 returns.
_GUARD = f"""
import ctypes, platform, resource, struct, sys
limits = {{"CPU": {TIME_LIMIT_S}, "AS": {MEMORY_LIMIT_BYTES}, "FSIZE": {FILE_LIMIT_BYTES}, "NPROC": 0}}
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000
try:
    for kind, limit in limits.items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (limit, limit))
    arch, socket = {{"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}}[platform.machine()]
    io_uring, first_foreign = 425, 0x40000000
    steps = [(0x20, 0, 0, 4), (0x15, 1, 0, arch), (0x06, 0, 0, KILL), (0x20, 0, 0, 0), (0x35, 3, 0, first_foreign),
             (0x15, 2, 0, socket), (0x15, 1, 0, io_uring), (0x06, 0, 0, ALLOW), (0x06, 0, 0, REFUSE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HL", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
        raise OSError
except (KeyError, OSError, AttributeError, ValueError):
    sys.exit({_NO_FILTER})
scope = {{"__name__": "__main__"}}
with open("program.py", encoding="utf-8") as file:
    source = file.read()
exec(compile(source, "program.py", "exec"), scope)
sys.exit({_PASSED})
"""


def check() -> None:
    """Raise EnvironmentProblem (E311) where `passes` would."""
    passes("")


def passes(program: str) -> bool:
    """Whether the program runs to its end: no exception, no exit of its own, within the limits.

    Raises EnvironmentProblem (E311) where the network cannot be taken from it.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        Path(folder, "program.py").write_text(program, encoding="utf-8", errors="replace")
        running = subprocess.Popen(
            [sys.executable, "-I", "-c", _GUARD],
            cwd=folder,
            env={"HOME": folder, "PATH": "", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = running.wait(TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and so have its children
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    if status == _NO_FILTER:
        raise EnvironmentProblem(
            "E311",
            "generated programs cannot be run here: nothing would cut them off from the network",
            expected="Linux on x86-64 or aarch64 that lets a process limit itself and install a seccomp filter",
            actual=sys.platform,
            fix="score this set on such a machine, or leave --execute-code out",
        )
    return status == _PASSED
