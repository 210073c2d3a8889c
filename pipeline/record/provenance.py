"""Where a run comes from: the machine, the packages, the code's commit, the most memory that the process held.

Nothing here names a host or a person, since all of it goes into manifests that others read.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from pipeline import paths
from pipeline.record import checkout

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "invoke")

MOST_CHANGED = 20
"""Names of changed files in a manifest."""


def describe() -> dict[str, Any]:
    """For a manifest: the keys `code` (see `commit`) and `environment`."""
    return {"code": commit(), "environment": environment()}


def utc_now() -> str:
    """ISO 8601, in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def environment() -> dict[str, Any]:
    """The machine and the versions installed on it; no host or user names."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "threads": _torch_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": _gpu(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def commit() -> dict[str, Any]:
    """The code's commit, whether files that may take part in a run differ from it, and which; nulls where this is no
    checkout.

    An image has no checkout: PIPELINE_COMMIT in its environment says what it was built from.
    """
    if built_from := os.environ.get("PIPELINE_COMMIT"):
        is_dirty = built_from.endswith("-dirty")
        return {"commit": built_from.removesuffix("-dirty"), "dirty": is_dirty, "changed": None if is_dirty else []}
    if not paths.CHECKOUT:  # a repository around an installed wheel is somebody else's
        return {"commit": None, "dirty": None, "changed": None}
    changed = checkout.changed(paths.ROOT)
    return {
        "commit": checkout.commit(paths.ROOT),
        "dirty": None if changed is None else bool(changed),
        "changed": None if changed is None else changed[:MOST_CHANGED],
    }


def peak_memory() -> dict[str, int | None]:
    """Most bytes that this process has held so far, on the host and on the GPU; None without a GPU in use."""
    unit = 1 if sys.platform == "darwin" else 1024
    gpu_bytes = None
    if torch := sys.modules.get("torch"):  # where nobody imported it, no GPU was used
        used = torch.cuda.is_available() and torch.cuda.is_initialized()
        gpu_bytes = torch.cuda.max_memory_allocated() if used else None
    return {"host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "gpu_bytes": gpu_bytes}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor() or None
    )


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else os.cpu_count()


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None
