"""Podman with a store of its own, and a small image, for the scripts in this folder."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WRAPPER = """#!{python} -IS
import os, sys
os.environ |= {{"CONTAINERS_CONF": "{store}/containers.conf", "CONTAINERS_STORAGE_CONF": "{store}/storage.conf"}}
# A board's own files are in the folder that stands for it.
board = os.environ.get("PIPELINE_HOST", "")
def found(each):
    source, colon, rest = each.partition(":")
    if not (each.startswith("/") and colon) or os.path.lexists(source):
        return each
    source = board + source
    while os.path.islink(source):
        source = os.path.join(board + os.path.dirname(source[len(board):]), os.readlink(source))
        source = source if source.startswith(board) else board + source
    return source + colon + rest
given = [*map(found, sys.argv[1:])]
if given[0] == "run":  # a board's containers end with it
    given.insert(1, "--label=node=" + os.environ.get("SLURMD_NODENAME", ""))
os.execv("{program}", ["{program}", *given])
"""
MEMORY = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/cgroup.controllers")


def limited() -> bool:
    """Whether this machine can hold a process to so much memory; says so loudly where it cannot."""
    if MEMORY[0].is_dir() or (MEMORY[1].exists() and "memory" in MEMORY[1].read_text().split()):
        return True
    print("NOT TESTED: this machine has no memory controller, so nothing can be held to its memory", flush=True)
    return False


@contextlib.contextmanager
def podman_of(place: Path) -> Iterator[Path]:
    """A folder for the PATH, also that of jobs: podman and buildah with a store in `place`, emptied in the end."""
    folder = _programs(place)
    try:
        yield folder
    finally:  # a container that is left has mounts in it
        for what in (["rm", "--all"], ["rmi", "--all"]):
            subprocess.run([folder / "podman", *what, "--force"], check=False, capture_output=True)


def _programs(place: Path) -> Path:
    store, settings = made_folder(place / "store"), place / "store/containers.conf"
    settings.write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
        '[engine.runtimes]\nrunc = ["/usr/sbin/runc"]\nnvidia = ["/usr/sbin/runc"]\n'
    )
    (store / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{store}/images"\nrunroot = "{store}/run"\n'
    )
    folder = made_folder(place / "bin")
    for name in ("podman", "buildah"):
        program = shutil.which(name)
        assert program is not None, f"no {name} here: apt-get install podman buildah runc busybox-static"
        script(folder / name, WRAPPER.format(python=sys.executable, store=store, program=program))
    # A docker without a daemon would be asked at every turn.
    script(folder / "docker", "#!/bin/sh\nexit 1\n")
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def made_folder(path: Path) -> Path:
    path.mkdir()
    return path


def busybox(*applets: str) -> str:
    """A container to commit images from, with nothing but these programs in it."""
    base, program = buildah("from", "scratch"), shutil.which("busybox")
    assert program is not None, "no busybox here: apt-get install busybox-static"
    for name in applets:
        buildah("copy", "-q", base, program, f"/bin/{name}")
    buildah("config", "--env", "PATH=/bin", base)
    return base


def buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout.strip()


def no_container_left() -> None:
    left = subprocess.run(["podman", "ps", "-a"], capture_output=True, text=True, check=True).stdout
    assert len(left.splitlines()) == 1, left
