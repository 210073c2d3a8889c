"""What this torch is, without importing it where that tells nothing more: importing takes seconds.

A build for CPUs only says so in its own `version.py`, and sees no GPU whatever the machine has. That it can be imported
is tried by loading its libraries, with all that they need. A build for GPUs is imported and asked.
"""

from __future__ import annotations

import ctypes
import importlib.util
import runpy
from dataclasses import dataclass
from pathlib import Path

LAST_LIBRARY = "lib/libtorch_python.so"
"""Needs all the others."""


@dataclass(frozen=True)
class TorchFacts:
    version: str
    built_for: str | None
    """Version of CUDA; None for a build without it."""
    gpu: str | None
    """Name of the GPU that it sees."""
    capability: tuple[int, int] | None
    trouble: str = ""
    """Why it does not load."""


def look() -> TorchFacts:
    """Read what this torch is and can use, without importing it where that is possible.

    Raises ModuleNotFoundError where there is no torch.
    """
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin is not None and (folder := Path(spec.origin).parent).is_dir():
        named = _named(folder / "version.py")
        if named is not None and not any(named.get(key) for key in ("cuda", "hip", "xpu")):
            return TorchFacts(str(named["__version__"]), None, None, None, _trouble(folder / LAST_LIBRARY))
    return _imported()


def _named(path: Path) -> dict[str, object] | None:
    """The versions that torch's `version.py` names; None where it is another's, or not there."""
    try:
        named = runpy.run_path(str(path))
    except (OSError, SyntaxError, ImportError):
        return None
    return named if {"__version__", "cuda"} <= named.keys() else None


def _trouble(library: Path) -> str:
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""


def _imported() -> TorchFacts:
    import torch  # noqa: PLC0415 - takes seconds, and a build for CPUs only needs it not

    visible = torch.cuda.is_available()
    gpu = torch.cuda.get_device_name() if visible else None
    return TorchFacts(
        torch.__version__, torch.version.cuda, gpu, torch.cuda.get_device_capability() if visible else None
    )
