"""Files that are whole or not there: hashing, and writing so that an interruption leaves nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipeline import paths
from pipeline.errors import ResourceError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the last: `ulimit -f`
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal. Raises OSError as `open` does."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def nearest(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there: whose disk it would lie on."""
    # os.path's words where a folder may not be entered, which pathlib raises PermissionError for: it is not there.
    return path if os.path.exists(path) or path == path.parent else nearest(path.parent)


@contextlib.contextmanager
def write_atomically(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A binary file to write to that becomes `path` when the block ends, and vanishes when it does not end well.

    `path` is at every moment the old file, the new one, or absent as before; never a part. Its folder is made if it
    is missing. `durable` waits for the disk, so that the file survives a power cut too. A device or a pipe is written
    into. Raises ResourceError: R101 disk full, R102 not allowed to write there.
    """
    # Beside the target, since a rename is atomic only within one file system; not by `tempfile`, whose files
    # only their owner may read.
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        if _no_file(path):
            with open(path, "wb") as file:
                yield file
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(part, path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        if trouble := resource_trouble(error, path):
            raise trouble from error
        if error.filename == str(part):  # nobody knows it by that name
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _no_file(path: Path) -> bool:
    """Whether something else has this name, or lies in /dev (where /dev/stdout may stand for a file): to rename a file
    over it would take it away from the whole machine."""
    other = os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
    return other or Path(os.path.abspath(path)).parent == Path("/dev")


def json_bytes(value: object) -> bytes:
    """A JSON value as all of our files hold it: UTF-8, indented by two, one line feed at the end.

    A lone surrogate, which a file name that is not UTF-8 has, becomes JSON's own escape of it.
    """
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    """Write a JSON value as by `json_bytes`, atomically. Raises ResourceError (R101, R102)."""
    content = json_bytes(value)
    with write_atomically(path, durable=durable) as file:
        file.write(content)


def remembered(path: Path) -> dict[str, Any]:
    """A JSON object that only saves time: empty where none can be read. What is in it may be damaged all the same."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def remember(path: Path, kept: dict[str, Any]) -> None:
    """Keep what `remembered` gives; nothing where it cannot be written: then the time is not saved."""
    with contextlib.suppress(ResourceError, OSError):
        write_json(path, kept, durable=False)


def resource_trouble(error: OSError, path: Path) -> ResourceError | None:
    """The error for a full disk (R101) or a missing permission (R102); None when the cause is another."""
    if error.errno in _FULL:
        return disk_full(path, error)
    if error.errno in _FORBIDDEN:
        return ResourceError(
            "R102",
            "a file cannot be written",
            where=paths.shown(path),
            actual="a link to nothing" if os.path.islink(path) and not os.path.exists(path) else error.strerror,
            fix="allow writing in that folder, or move it (PIPELINE_DATA, PIPELINE_MODELS, PIPELINE_RUNS name folders)",
        )
    return None


def refused(error: OSError) -> ResourceError:
    """The last resort, for whatever the system refused where no module expected it (R104)."""
    return ResourceError(
        "R104",
        "the system refused to work with a file",
        where=error.filename or "what is printed, or a file that was open",
        actual=error.strerror or error,
        fix="look at that file or folder: does it exist, may you read it, is there room",
    )


def disk_full(path: Path, actual: object, needed_bytes: int | None = None) -> ResourceError:
    """The error R101; `path` is where the bytes were to go."""
    return ResourceError(
        "R101",
        "there is no room on the disk",
        where=paths.shown(path),
        expected=None if needed_bytes is None else f"{needed_bytes / 1e6:.0f} MB free",
        actual=actual,
        fix="free some space, or put the folder elsewhere (PIPELINE_DATA, PIPELINE_MODELS, PIPELINE_RUNS name folders)",
    )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
