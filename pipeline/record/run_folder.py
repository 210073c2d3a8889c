"""The run folder: what a run writes while it goes on and what it leaves behind.

`runs/<utc>-<name>/`:
* `outputs.jsonl`, appended as answers are finished: index, pipe()'s output, token ids, and when in its timed section;
* `manifest.json`, written when the run begins, with all that it takes to go on with it, and again when it ends: then
  with everything that somebody needs to judge or repeat the run. `state` is `unfinished`, `failed` or `finished`;
* `answers.jsonl`, when the run is finished: the same outputs in file order, as pipe() returned them and nothing else;
* `run.log`, `telemetry.csv`: what the board did under the clock, and `passes.csv`: what the engine did.

Killed at any moment, a process leaves whole lines but perhaps for the last one, and a manifest that is the old or the
new one. A run folder that is opened again loses a last line that is not whole, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from loguru import logger

from pipeline import files, paths, settings
from pipeline.errors import ResourceError, UsageError, in_words
from pipeline.record.outputs import whole_rows, write_answers

SCHEMA = "phi3-offline-pipeline/run/1"
UNFINISHED, FAILED, FINISHED = "unfinished", "failed", "finished"

REPORT = "report.html"
"""The page that `invoke report` writes into a run's folder: no part of the run."""


class RunFolder:
    """One run's folder, open for writing. Use as a context manager: files are closed whatever happens."""

    def __init__(self, path: Path) -> None:
        """Open a folder that exists; what it holds stays, and `kept` are its answers by index.

        Raises ResourceError (R101, R102) when it cannot be written, UsageError (U321) when another process writes it.
        """
        self.path = path
        self._manifest: dict[str, Any] = {}
        self._finished = False
        self._outputs, self._log_file = self._open("outputs.jsonl"), self._open("run.log")
        self._claim()
        try:
            self.kept, self._whole_bytes = whole_rows(path / "outputs.jsonl")
            os.truncate(path / "outputs.jsonl", self._whole_bytes)
            for part in path.glob(".*.part"):  # of a process that was killed while it wrote
                part.unlink()
        except OSError as error:
            raise _trouble(error, path / "outputs.jsonl") from error
        self.answers = len(self.kept)
        self._log = logger.add(self._write_log, format="{time:YYYY-MM-DDTHH:mm:ss.SSSZ} {level} {message}")

    def append(self, index: int, output: list[dict[str, Any]], token_ids: list[int], at_s: float | None = None) -> None:
        """One answer, `at_s` after its section began. Reaches the operating system at once, so that a killed process
        loses nothing of it."""
        row = {"index": index, "output": output, "token_ids": token_ids, "at_s": at_s}
        try:
            self._outputs.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._outputs.flush()
        except OSError as error:
            raise _trouble(error, self.path / "outputs.jsonl") from error
        self._whole_bytes = self._outputs.tell()
        self.answers += 1

    def begin(self, manifest: dict[str, Any]) -> None:
        """Write the manifest of a run that begins: all that is known before its first answer."""
        self._manifest = manifest
        self._write_manifest(UNFINISHED, {})

    def note(self, more: dict[str, Any]) -> None:
        """Add to the manifest under the clock: it outlives the process, though not a power cut."""
        self._manifest |= more
        self._write_manifest(UNFINISHED, {}, durable=False)

    def finish(self, more: dict[str, Any]) -> None:
        """The answers by themselves, then the whole manifest; nothing is written after it."""
        write_answers(self.path)
        self._write_manifest(FINISHED, more)
        self._finished = True

    def _write_manifest(self, state: str, more: dict[str, Any], *, durable: bool = True) -> None:
        whole = {"schema": SCHEMA, "state": state, **self._manifest, **more}
        files.write_json(self.path / "manifest.json", whole, durable=durable)

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
        """Write one line of run.log. Loguru does not get the file: on a full disk it would print a traceback for
        every line."""
        with contextlib.suppress(OSError):
            self._log_file.write(message)
            self._log_file.flush()

    def _write_failure(self, error: BaseException) -> None:
        """Say in the folder why the run ended early; if even that cannot be written, the error itself still goes up."""
        if self._finished:
            return
        reason = str(error) or REASONS.get(type(error), type(error).__name__)
        logger.info("the run ended early: {}", reason)
        with contextlib.suppress(OSError, ResourceError):
            self._write_manifest(FAILED, {"failed": {"kind": type(error).__name__, "reason": reason}})

    def _open(self, name: str) -> Any:
        try:
            return open(self.path / name, "a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise _trouble(error, self.path / name) from error

    def _claim(self) -> None:
        """One process a folder; the system lets go of the lock also when the process is killed."""
        try:
            fcntl.flock(self._log_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                "U321",
                "this run is still going on",
                where=paths.shown(self.path),
                actual="another process writes to this folder",
                fix="wait for it, or end it first",
            ) from error
        except OSError:
            logger.debug("this file system has no locks")


REASONS = {KeyboardInterrupt: "interrupted (Ctrl-C)", MemoryError: "the host's memory was short"}


def create(parent: Path, name: str) -> RunFolder:
    """A folder for a new run, named by the time. Raises ResourceError (R101, R102) when it cannot be made."""
    return RunFolder(make_stamped(parent, name))


def make_stamped(parent: Path, name: str) -> Path:
    """An empty folder named by the time. Raises ResourceError (R101, R102) when it cannot be made."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    named = "".join(letter if letter.isprintable() else "_" for letter in name)  # a file may be called anything
    return _make_folder(parent, f"{stamp}-{named}")


def find(name_or_path: str) -> Path:
    """A run's folder: a path, or a name among the runs. Raises UsageError: U311 with the nearest names, U317 none is
    named."""
    for path in (paths.given(name_or_path), paths.runs() / name_or_path):
        if name_or_path and path.is_dir():
            return path
    try:
        names = sorted(path.name for path in paths.runs().iterdir() if path.is_dir())
    except OSError:
        names = []
    if not name_or_path:
        raise UsageError(
            "U317",
            "no run is named",
            expected="a run's folder, or its name under runs/",
            actual=f"the newest is {names[-1]}" if names else "there are none yet",
            fix=f"name one, for instance {names[-1]}" if names else "make one: invoke run",
        )
    raise settings.unknown(
        "U311",
        "run",
        name_or_path,
        names,
        "or a run's folder",
        f"ls {paths.shown(paths.runs())}",
    )


def read_manifest(folder: Path, *, known_schema: bool = False) -> dict[str, Any]:
    """A run's manifest, in whatever state. Raises OSError where there is none to read, ValueError where it is no JSON
    object, or, with `known_schema`, not of this program's form."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(manifest, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - of a file's content
    if known_schema and manifest.get("schema") != SCHEMA:
        raise ValueError(f"schema {manifest.get('schema')!r}, not {SCHEMA!r}")
    return manifest


def finished_manifest(folder: Path, needs: Sequence[str] = ()) -> dict[str, Any]:
    """The manifest of a run that ended well, with objects under the keys that it needs. Raises UsageError (U501) where
    there is none."""
    try:
        manifest = read_manifest(folder)
        if manifest.get("state") != FINISHED:
            raise ValueError(f"its state is {manifest.get('state')!r}")  # noqa: TRY301
        for key in needs:
            if not isinstance(manifest.get(key), dict):
                raise ValueError(f"it has no {key!r}")  # noqa: TRY301, TRY004 - of a file's content
    except (OSError, ValueError) as error:
        raise UsageError(
            "U501",
            "there is no finished run in this folder",
            where=paths.shown(folder),
            expected="a run's folder with its manifest and outputs",
            actual=in_words(error),
            fix="name a finished run's folder, or its name under runs/, with --run",
        ) from error
    return manifest


def _make_folder(parent: Path, name: str) -> Path:
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except OSError as error:
            if not isinstance(error, FileExistsError) or not os.path.lexists(path):  # there is a link to nothing above
                raise _trouble(error, Path(error.filename or path)) from error
            number += 1  # another run of this second
        else:
            return path


def _trouble(error: OSError, path: Path) -> Exception:
    return files.resource_trouble(error, path) or error


def value_at(manifest: Mapping[str, Any] | None, path: str) -> Any:
    """The manifest's value at a dotted path, such as `board.before.mode`; None if there is none."""
    value: Any = manifest
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
