"""Compile cpu.cpp with the C++ compiler that is there, once for each kind of processor.

It is compiled for this very processor, so a library is named after the processor's features too: a folder that another
machine shares never hands it instructions that it does not have. Its threads are those of the OpenMP runtime that torch
has loaded, found among this process's libraries: a second runtime's would compete with them for the cores.
Places are those of `build.py`.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.engine.kernels.build import BUILT, HERE, CannotBuild, keep, run_compiler, user_cache

SOURCE = "cpu.cpp"
FLAGS = ("-O3", "-std=c++17", "-march=native", "-ffp-contract=fast", "-fPIC", "-fopenmp")
RUNTIMES = ("libgomp", "libomp", "libiomp5")
"""OpenMP runtimes that know what g++ compiles for."""


def find_compiler() -> str | None:
    """The path of a C++ compiler: CXX's, or the first of the usual names on the PATH."""
    names = [os.environ.get("CXX"), "g++", "c++", "clang++"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def library_name() -> str:
    """The file that these sources, flags and processor make. Raises CannotBuild where the processor is not known."""
    digest = hashlib.sha256(" ".join((*FLAGS, *_features())).encode())
    digest.update((HERE / SOURCE).read_bytes())
    return f"kernels-{platform.machine()}-{digest.hexdigest()[:12]}.so"


def built() -> Path | None:
    """The library, if it lies there. Raises CannotBuild."""
    name = library_name()
    return next((folder / name for folder in (BUILT, user_cache()) if (folder / name).exists()), None)


def build() -> Path:
    """The library for this processor, built now unless it lies there. torch must have been imported. Raises
    CannotBuild."""
    found = built()
    if found is not None:
        return found
    compiler, runtime = find_compiler(), _runtime()
    if compiler is None:
        raise CannotBuild("no C++ compiler on the PATH or in CXX")
    with tempfile.TemporaryDirectory() as temporary:
        part, fresh = Path(temporary, "part.o"), Path(temporary, library_name())
        run_compiler([compiler, *FLAGS, "-c", SOURCE, "-o", str(part)])
        # Without -fopenmp, which would bring the compiler's own runtime.
        run_compiler([compiler, "-shared", str(part), str(runtime), "-o", str(fresh)])
        return keep(fresh)


def _features() -> list[str]:
    """The processor's instruction sets, as Linux names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CannotBuild(f"/proc/cpuinfo cannot be read: {error.strerror}") from error
    found = {line for line in lines if line.lower().startswith(("flags", "features"))}
    if not found:
        raise CannotBuild("/proc/cpuinfo names no features of the processor")
    return sorted(found)


def _runtime() -> Path:
    found = [path for path in _loaded() if path.name.startswith(RUNTIMES)]
    if not found:
        raise CannotBuild(f"this torch has loaded no OpenMP runtime of {', '.join(RUNTIMES)}")
    return found[0]


def _loaded() -> Iterator[Path]:
    """Libraries that this process has loaded."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CannotBuild(f"/proc/self/maps cannot be read: {error.strerror}") from error
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and ".so" in fields[5]:
            yield Path(fields[5])
