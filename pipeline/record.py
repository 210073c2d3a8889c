"""The run folder: what a run writes while it goes on and what it leaves behind.

`runs/<utc>-<name>/`:
* `outputs.jsonl`, appended as answers are finished: index, pipe()'s output, token ids;
* `manifest.json`, written at the end: everything that somebody needs to judge or repeat the run;
* `run.log`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from loguru import logger

from pipeline import files, paths
from pipeline.errors import ResourceError

SCHEMA = "phi3-offline-pipeline/run/1"
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "invoke")


class RunFolder:
    """One run's folder, open for writing. Use as a context manager: files are closed whatever happens."""

    def __init__(self, parent: Path, name: str) -> None:
        """Raises ResourceError (R101, R102) when the folder cannot be made or written."""
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        self.path = _new_folder(parent, f"{stamp}-{name}")
        self._outputs, self._log_file = self._open("outputs.jsonl"), self._open("run.log")
        self._whole_bytes = 0
        self._log = logger.add(self._write_log, format="{time:YYYY-MM-DDTHH:mm:ss.SSSZ} {level} {message}")

    def append(self, index: int, output: list[dict[str, Any]], token_ids: list[int]) -> None:
        """One answer. Reaches the operating system at once, so that a killed process loses nothing of it."""
        row = {"index": index, "output": output, "token_ids": token_ids}
        try:
            self._outputs.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._outputs.flush()
        except OSError as error:
            raise _trouble(error, self.path / "outputs.jsonl") from error
        self._whole_bytes = self._outputs.tell()

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        text = json.dumps({"schema": SCHEMA, **manifest}, indent=2, ensure_ascii=False) + "\n"
        with files.write_atomically(self.path / "manifest.json") as handle:
            handle.write(text.encode())

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_outputs()
        if error is not None:
            self._write_failure(error)
        logger.remove(self._log)
        with contextlib.suppress(OSError):
            self._log_file.close()

    def _close_outputs(self) -> None:
        """Whole lines only: after a write that failed, the part that reached the disk is cut off again."""
        try:
            self._outputs.close()
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.path / "outputs.jsonl", self._whole_bytes)

    def _write_log(self, message: str) -> None:
        """Not handed to loguru as a file: on a full disk it would print a traceback for every line."""
        with contextlib.suppress(OSError):
            self._log_file.write(message)
            self._log_file.flush()

    def _write_failure(self, error: BaseException) -> None:
        """Say in the folder why the run ended early; if even that cannot be written, the error itself still goes up."""
        reason = str(error) or type(error).__name__
        logger.info("the run ended early: {}", reason)
        with contextlib.suppress(OSError, ResourceError):
            self.write_manifest({"failed": {"kind": type(error).__name__, "reason": reason}})

    def _open(self, name: str) -> Any:
        try:
            return open(self.path / name, "w", encoding="utf-8")
        except OSError as error:
            raise _trouble(error, self.path / name) from error


def read_outputs(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's outputs, in file order of the data set."""
    # Not splitlines(): U+2028 and its like are ordinary characters inside a JSON string.
    lines = (folder / "outputs.jsonl").read_text(encoding="utf-8").split("\n")
    return sorted((json.loads(line) for line in lines if line), key=lambda row: row["index"])


def environment() -> dict[str, Any]:
    """The machine and what is installed; no host or user names."""
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
    """The code's commit, and whether files differ from it; nulls where this is no checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(paths.ROOT), *arguments], capture_output=True, text=True, check=False
            )
        except OSError:
            return None  # no git on this machine
        return done.stdout.strip() if done.returncode == 0 else None

    head, changed = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {"commit": head, "dirty": None if changed is None else bool(changed)}


def peak_memory() -> dict[str, int | None]:
    """Most bytes that this process has held so far, on the host and on the GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "gpu_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def _new_folder(parent: Path, name: str) -> Path:
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1  # another run of this second
        except OSError as error:
            raise _trouble(error, path) from error
        else:
            return path


def _trouble(error: OSError, path: Path) -> Exception:
    return files.resource_trouble(error, path) or error


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
