"""Compile the CUDA kernels with the nvcc that is there, once for each kind of device.

    python -m pipeline.engine.kernels.build 8.7      # at image build: no GPU is needed

A built library lies in `built/` beside the sources, named after what it is made of, so that a changed
source, device or compiler flag never meets an old binary. Where that folder cannot be written to, as in a system's
installation, it lies in the user's cache; where that cannot be either, in a temporary folder, and is built every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = ("elementwise.cu", "attention.cu", "product.cu")
HEADERS = ("device.cuh", "tensor_core.cuh")
FLAGS = ("-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC")
HERE = Path(__file__).parent
BUILT = HERE / "built"


class CannotBuild(Exception):
    """There is no compiler, or it refused; the message says which, in one line."""


def find_nvcc() -> str | None:
    """The path of nvcc: CUDA_HOME's, the PATH's, or the usual place's."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places = [Path(home, "bin", "nvcc") for home in homes if home]
    found = [str(place) for place in places if os.access(place, os.X_OK)]
    return found[0] if found else shutil.which("nvcc")


def user_cache() -> Path:
    """Where a user's built libraries lie, by the XDG base directory specification."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "phi3-pipeline" / "kernels"


def library_name(capability: tuple[int, int]) -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in (*SOURCES, *HEADERS):
        digest.update((HERE / name).read_bytes())
    return f"kernels-sm{capability[0]}{capability[1]}-{digest.hexdigest()[:12]}.so"


def build(capability: tuple[int, int]) -> Path:
    """The library for this compute capability, built now unless it lies there. Raises CannotBuild."""
    name = library_name(capability)
    for folder in (BUILT, user_cache()):
        if (folder / name).exists():
            return folder / name
    nvcc = find_nvcc()
    if nvcc is None:
        raise CannotBuild("no nvcc on the PATH, in CUDA_HOME or in /usr/local/cuda")
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary, name)
        arch = f"arch=compute_{capability[0]}{capability[1]},code=sm_{capability[0]}{capability[1]}"
        run_compiler([nvcc, *FLAGS, "-gencode", arch, "-o", str(fresh), *SOURCES])
        return keep(fresh)


def run_compiler(command: list[str]) -> None:
    """In the folder of the sources. Raises CannotBuild with its first error."""
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotBuild(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        errors = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
        reason = errors[0] if errors else done.stderr[-200:]
        raise CannotBuild(f"{command[0]} failed with {done.returncode}: {reason!r}")


def keep(fresh: Path) -> Path:
    """Where a library that was just built lies from now on."""
    for folder in (BUILT, user_cache()):
        with contextlib.suppress(OSError):  # not this user's to write to
            return _put(fresh, folder)
    return _put(fresh, Path(tempfile.mkdtemp(prefix="kernels-")))


def _put(fresh: Path, folder: Path) -> Path:
    """Copy a library into a folder so that it is whole or not there: two processes may build at once."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{fresh.name}.{os.getpid()}"
    shutil.copyfile(fresh, part)
    return part.replace(folder / fresh.name)


if __name__ == "__main__":
    major, minor = sys.argv[1].split(".")
    try:
        print(build((int(major), int(minor))).name)
    except CannotBuild as error:
        sys.exit(f"the kernels cannot be built: {error}")
