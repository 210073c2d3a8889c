"""Other programs: git, docker or podman, each called in one place; the end of a process with all that it started; and
this process while it imports what is large."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Keep the garbage collector off while modules are imported, and let it never look at what they made, which stays:
    of the import of torch and transformers it takes a tenth, walking through the same objects again and again."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if on:
            gc.enable()


def git(checkout: Path, *arguments: str) -> bytes | None:
    """The output of a git command in a checkout; None where it fails or there is no git."""
    try:
        ended = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return ended.stdout if ended.returncode == 0 else None


def container_program() -> str:
    """The program that runs containers here, by what is installed: docker, or podman, which takes the same words."""
    return "podman" if shutil.which("podman") and not shutil.which("docker") else "docker"


def answering_program() -> str:
    """The same; where both are installed and docker has no daemon that answers, podman."""
    both = shutil.which("docker") and shutil.which("podman")
    if both and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "podman"
    return container_program()


def docker(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    """A command's status and outputs, of docker or podman; None where there is neither."""
    program = answering_program()
    if shutil.which(program) is None:
        return None
    return subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace", check=False)


def docker_output(*arguments: str) -> str | None:
    """The output of a command of docker or podman; None where it fails or there is neither."""
    ended = docker(*arguments)
    return ended.stdout if ended is not None and ended.returncode == 0 else None


def end_group(process: subprocess.Popen[bytes], grace_s: float = 0.2) -> None:
    """End a process that leads a session of its own, and its whole group: SIGTERM, `grace_s` later SIGKILL."""
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(grace_s)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
