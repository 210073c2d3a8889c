"""git and docker answer or are None, a process ends with all that it started, and imports are not collected."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import process

CHILDREN = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_process_ends_with_a_child_that_is_deaf_to_sigterm() -> None:
    running = subprocess.Popen([sys.executable, "-c", CHILDREN], stdout=subprocess.PIPE, start_new_session=True)
    assert running.stdout is not None
    lines = {running.stdout.readline().strip(), running.stdout.readline().strip()}
    (child,) = (int(line) for line in lines if line != b"deaf")
    process.end_group(running)
    assert running.returncode == -signal.SIGTERM
    for _ in range(100):
        if not is_running(child):
            break
        time.sleep(0.05)
    assert not is_running(child)


def test_a_process_that_has_ended_may_be_ended() -> None:
    running = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    running.wait()
    process.end_group(running)
    assert running.returncode == 0


@pytest.mark.checkout
def test_git_answers_in_a_checkout_only(tmp_path: Path) -> None:
    assert process.git(tmp_path, "rev-parse", "HEAD") is None
    assert process.git(tmp_path, "init", "--quiet") == b""
    assert process.git(tmp_path, "status", "--porcelain") == b""


def test_without_git_and_docker_there_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert process.git(tmp_path, "--version") is None
    assert process.docker("info") is None
    assert process.docker_output("info") is None


@pytest.mark.parametrize(("status", "output"), [(0, "caf\ufffd\n"), (3, None)])
def test_docker_s_output_counts_where_it_did_not_fail(
    status: int, output: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\nprintf 'caf\\377\\n'\nexit {status}\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))  # without a podman, which would answer where docker does not
    assert process.docker_output("info") == output


def is_running(number: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_nothing_is_collected_during_imports_nor_walked_through_afterwards() -> None:
    frozen = gc.get_freeze_count()
    try:
        with process.importing():
            assert not gc.isenabled()
            held = [[number] for number in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= frozen + len(held)
        with pytest.raises(ImportError), process.importing():
            raise ImportError
        assert gc.isenabled()
        gc.disable()
        with process.importing():
            pass
        assert not gc.isenabled()  # as its caller has it
    finally:
        gc.enable()
        gc.unfreeze()
