"""Slurm of three nodes on this machine, as slurm-cluster.sh brings it up, for the scripts in this folder."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SCRIPT = Path(__file__).with_name("slurm-cluster.sh")
NODES = ("orin1", "orin2", "orin3")
BEGAN_S = time.monotonic()


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
    end_s = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end_s, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN_S:5.1f} s  {text}", flush=True)


def scontrol(*arguments: str) -> str:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, check=False).stdout


def answers() -> bool:
    """Whether the controller does."""
    return "UP" in scontrol("ping")
