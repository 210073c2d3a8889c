"""A verification that is told to end while it runs a submission again: its container ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import paths

DOCKER = """#!/bin/sh
# A client; the container is a process of its own, as a daemon's is, and comes to be a moment after it was asked for.
case $1 in
run) touch asked; setsid sh -c 'sleep 0.25; sleep 60 & echo $! > container' > /dev/null 2>&1 & wait; sleep 60;;
rm) sleep 0.1; test ! -f container || kill "$(cat container)";;
esac
"""
VERIFY = """
import os, sys
from pathlib import Path
from pipeline.contest.rerun.measure import Caps, Launch, measure
from pipeline.device.host import Host
from pipeline.process import docker_output

here = Path.cwd()
launch = Launch(["docker", "run"], dict(os.environ), here, here / "pipe", here / "runs",
                kill=lambda: docker_output("rm", "--force", "it"))
try:
    measure(launch, b"", Caps(limit_s=20), Host(here), here)
except KeyboardInterrupt as stop:
    sys.exit(f"interrupted {stop}")
"""


@pytest.mark.parametrize(
    ("signals", "at_once"),
    [((signal.SIGTERM, signal.SIGTERM), False), ((signal.SIGINT,), True), ((signal.SIGHUP, signal.SIGINT), False)],
    ids=["impatiently", "before the container is there", "a closed terminal"],
)
def test_no_container_outlives_a_killed_verification(
    signals: tuple[signal.Signals, ...], at_once: bool, tmp_path: Path
) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    (tmp_path / "runs").mkdir()
    environment = {**os.environ, "PATH": f"{docker.parent}:/usr/bin:/bin", "PYTHONPATH": str(paths.ROOT)}
    process = subprocess.Popen([sys.executable, "-c", VERIFY], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    wait_for(tmp_path / ("asked" if at_once else "container"))
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    _, said = process.communicate(timeout=20)
    wait_for(tmp_path / "container")
    container = int((tmp_path / "container").read_text())
    try:
        assert process.returncode == 1, said
        assert b"interrupted" in said
        assert not is_running(container)
    finally:
        if is_running(container):
            os.kill(container, signal.SIGKILL)


def wait_for(path: Path, longest_s: float = 20.0) -> None:
    end_s = time.monotonic() + longest_s
    while not (path.is_file() and (path.name != "container" or path.read_text().strip())):
        assert time.monotonic() < end_s, path
        time.sleep(0.01)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
