"""Other programs: git and docker, each called in one place, and the end of a process with all that it started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path


def git(checkout: Path, *arguments: str) -> bytes | None:
    """The output of a git command in a checkout; None where it fails or there is no git."""
    try:
        ended = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return ended.stdout if ended.returncode == 0 else None


def docker(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    """A docker command's status and outputs; None where there is no docker."""
    if shutil.which("docker") is None:
        return None
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, errors="replace", check=False)


def docker_output(*arguments: str) -> str | None:
    """The output of a docker command; None where it fails or there is no docker."""
    ended = docker(*arguments)
    return ended.stdout if ended is not None and ended.returncode == 0 else None


def end_group(process: subprocess.Popen[bytes], grace_s: float = 0.2) -> None:
    """End a process that leads a session of its own, and its whole group: SIGTERM, `grace_s` later SIGKILL."""
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(grace_s)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
