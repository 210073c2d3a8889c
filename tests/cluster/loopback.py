"""Slurm of three nodes on this machine, as slurm-cluster.sh brings it up, for the scripts in this folder."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SCRIPT = Path(__file__).with_name("slurm-cluster.sh")
NODES = ("orin1", "orin2", "orin3")
BEGAN_S = time.monotonic()
PATIENCE = 4
"""A loaded machine takes so many times as long as a quiet one."""


def order(*arguments: object) -> None:
    """start, stop, daemon, kill, crash: with the cluster's folder behind it."""
    subprocess.run(["bash", SCRIPT, *map(str, arguments)], check=True)


@contextlib.contextmanager
def cluster_of(folder: Path) -> Iterator[None]:
    """Up, and SLURM_CONF names it; ended with all its processes, whatever happens."""
    before = os.environ.get("SLURM_CONF")
    try:
        order("start", folder)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        yield
    finally:
        order("stop", folder)
        os.environ.pop("SLURM_CONF", None)
        os.environ |= {"SLURM_CONF": before} if before else {}


def wait(done: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `done`; `seconds` are a quiet machine's. What the cluster looks like then is in the error."""
    end_s = time.monotonic() + seconds * PATIENCE
    while not done():
        assert time.monotonic() < end_s, f"waited {seconds * PATIENCE:g} s for {what}\n{state_of_all()}"
        time.sleep(0.1)


def state_of_all() -> str:
    """A line for each node and each job."""
    asked = (["sinfo", "--Node", "--format=%N %T %E"], ["squeue", "--format=%i %j %T %N %r"])
    if "SLURM_CONF" not in os.environ:
        return "no cluster"
    return "".join(subprocess.run(each, capture_output=True, text=True, check=False).stdout for each in asked)


def resume_what_a_crash_drained(*nodes: str) -> None:
    """As an organiser does with boards that a killed controller drained ("Duplicate jobid"), or that crashed."""
    for node in nodes:
        told = scontrol("show", "node", node)
        if re.search(r"State=(IDLE\+DRAIN|DOWN)", told):
            scontrol("update", f"nodename={node}", "state=resume")
            say(f"slurm: {node} resumed: {told.partition('Reason=')[2].splitlines()[0]}")


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN_S:5.1f} s  {text}", flush=True)


def scontrol(*arguments: str) -> str:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, check=False).stdout


def answers() -> bool:
    """Whether the controller does."""
    return "UP" in scontrol("ping")
