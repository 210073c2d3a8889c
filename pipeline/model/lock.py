"""The lock of a checkpoint: sha256 and size of every file, in `lock.json` inside its folder.

The root is one hash for the whole: sha256 over the lines "sha256  name\n", sorted by name, which is what
`sha256sum` prints. A run records it, and two people with the same root have the same model.

Hashing 28 GB takes half a minute, so what was hashed is remembered in a sidecar with the file's size, times and inode;
a file whose stamp has not changed is not read again unless `full` asks for it.
safetensors has no content hash of its own, and a download can be damaged without anyone noticing
(https://github.com/huggingface/huggingface_hub/issues/3643): hence our own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pipeline import paths
from pipeline.errors import IntegrityError, ResourceError, in_words
from pipeline.files import sha256_of, write_json
from pipeline.table import Say

NAME = "lock.json"
STAMPS = ".lock-stamps.json"
SCHEMA = "phi3-offline-pipeline/model-lock/1"

LOCKED_SUFFIXES = {".safetensors", ".json", ".model", ".txt", ".jinja"}
"""Endings of the files that are locked in a folder of one's own: weights, configurations, tokenizers, templates."""

READ = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_*",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "tekken.json",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "*.jinja",
    "additional_chat_templates/*",
)
"""Patterns of the files that transformers looks for in a checkpoint's folder and that decide what is answered."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Either lies in a checkpoint's folder."""


@dataclass(frozen=True)
class LockedFile:
    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Lock:
    """The files of a checkpoint, sorted by name."""

    files: tuple[LockedFile, ...]

    @property
    def root(self) -> str:
        lines = "".join(f"{file.sha256}  {file.name}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()


def write(folder: Path, names: Iterable[str]) -> Lock:
    """Hash `names` in `folder` and write the lock, atomically. Raises IntegrityError (M201) where one is missing."""
    lock = _hashed(folder, sorted(names))
    _write_lock(folder, lock)
    return lock


def read(folder: Path) -> Lock:
    """The lock as it stands in the folder. Raises IntegrityError: M204 missing, M205 unreadable or altered."""
    path = folder / NAME
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        lock = Lock(
            tuple(LockedFile(name, file["sha256"], file["size_bytes"]) for name, file in sorted(value["files"].items()))
        )
        if value["schema"] != SCHEMA:
            raise ValueError(f"schema {value['schema']!r}, not {SCHEMA!r}")  # noqa: TRY301
        if value["root"] != lock.root:
            raise ValueError("the root hash is not that of the files listed")  # noqa: TRY301
    except FileNotFoundError as error:
        raise IntegrityError("M204", "a checkpoint has no lock", where=paths.shown(path), fix=fix(folder)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        where, lacks = paths.shown(path), in_words(error)
        raise IntegrityError("M205", "a lock cannot be read", where=where, actual=lacks, fix=fix(folder)) from error
    return lock


def verify(folder: Path, *, full: bool = False, say: Say = lambda _: None) -> Lock:
    """Check every file of a checkpoint against its lock; `full` reads also files whose stamp has not changed.

    A folder without a lock is somebody's own checkpoint: it gets one made of what is there now. Where the folder cannot
    be written to, the hashes are only reported. `say` is told either.

    Raises IntegrityError: M201 a file is missing, M202 its size differs (a truncated download), M203 its content does,
    M205 the lock cannot be read, M206 the folder holds no checkpoint, M207 a file lies beside the locked ones.
    """
    if not (folder / NAME).exists():
        return _adopt(folder, say)
    lock = read(folder)
    refuse_unlisted(folder, lock)
    actual_lock = _hashed(
        folder, [file.name for file in lock.files], sizes={f.name: f.size_bytes for f in lock.files}, full=full
    )
    for expected, actual in zip(lock.files, actual_lock.files, strict=True):
        if expected.sha256 != actual.sha256:
            raise IntegrityError(
                "M203",
                "a file of the checkpoint has been altered: its sha256 differs from the lock",
                where=paths.shown(folder / expected.name),
                expected=expected.sha256,
                actual=actual.sha256,
                fix=fix(folder),
            )
    return lock


def refuse_unlisted(folder: Path, lock: Lock) -> None:
    """Raise IntegrityError (M207) for files that transformers would read and the lock does not list: one lock would
    stand for different prompts and answers."""
    others = sorted({*_names(folder)} - {file.name for file in lock.files})
    more = [name for name in others if any(fnmatch(name, each) for each in READ)]
    if more:
        lie = [shlex.quote(paths.shown(folder / name)) for name in more]
        meant = f"delete {paths.shown(folder / NAME)} if they belong to the model"
        if folder.resolve().parent == paths.models().resolve():
            meant = "delete them: the model is whole without them, as it is fetched"
        raise IntegrityError(
            "M207",
            "files beside the locked ones would change prompts or answers",
            where=", ".join(lie),
            expected=f"only files that {paths.shown(folder / NAME)} lists",
            fix=f"move them elsewhere (mv {' '.join(lie)} …), or {meant}",
        )


def _names(folder: Path) -> list[str]:
    """Files of a folder that may be a checkpoint's, sorted; those of its one folder that counts as `folder/name`."""
    inner = [path for pattern in READ if "/" in pattern for path in folder.glob(pattern)]
    return sorted(str(path.relative_to(folder)) for path in [*folder.glob("*"), *inner] if path.is_file())


def known(folder: Path) -> Lock | None:
    """The lock as it stands in the folder, or None where there is none. Raises IntegrityError (M205)."""
    return read(folder) if (folder / NAME).exists() else None


def current(folder: Path) -> Lock:
    """The lock of a folder that was verified just now: nothing is hashed again, but where there is nowhere to write a
    lock. Raises what `verify` raises."""
    return known(folder) or verify(folder)


def check_read(folder: Path, lock: Lock, name: str, sha256: str) -> None:
    """Compare the hash of a file as it was read with the lock. Raises IntegrityError: M412 it differs, M413 the lock
    does not know the file."""
    expected = next((file.sha256 for file in lock.files if file.name == name), None)
    if expected == sha256:
        return
    # The stamp said that the file is as it was; without it, the fix looks at every byte.
    with contextlib.suppress(OSError):
        (folder / STAMPS).unlink()
    where = paths.shown(folder / name)
    if expected is None:
        raise IntegrityError("M413", "a weight file is not in the checkpoint's lock", where=where, fix=fix(folder))
    raise IntegrityError(
        "M412",
        "what was read of a weight file is not what the lock says",
        where=where,
        expected=expected,
        actual=sha256,
        fix=fix(folder),
    )


def damaged(folder: Path, expected: dict[str, str]) -> dict[str, str]:
    """Compare files with sha256 hashes known from elsewhere. Returns name to what is wrong; empty where all is well."""
    present = [name for name in sorted(expected) if (folder / name).is_file()]
    hashes = {file.name: file.sha256 for file in _hashed(folder, present).files}
    return {
        name: "is missing" if name not in hashes else "differs from what is pinned"
        for name, sha256 in sorted(expected.items())
        if hashes.get(name) != sha256
    }


def _adopt(folder: Path, say: Say) -> Lock:
    """First sight of a folder that we did not make."""
    there = _names(folder)
    missing = [name for name in ("config.json", WEIGHTS[0]) if name not in there]
    if "config.json" in missing or not set(WEIGHTS) & set(there):
        raise IntegrityError(
            "M206",
            "there is no checkpoint in this folder",
            where=paths.shown(folder),
            expected="config.json, and model.safetensors or its index",
            actual=f"no {' and no '.join(missing)}",
            fix="name a checkpoint's folder",
        )
    names = [
        name
        for name in there
        if name not in (NAME, STAMPS) and (Path(name).suffix in LOCKED_SUFFIXES or any(fnmatch(name, p) for p in READ))
    ]
    lock = _hashed(folder, names)
    try:
        _write_lock(folder, lock)
        say(f"{paths.shown(folder)} had no lock; made one of the {len(names)} files as they are now: {lock.root}")
    except ResourceError:
        say(f"{paths.shown(folder)} has no lock and cannot be written to; its {len(names)} files hash to {lock.root}")
    return lock


def _hashed(folder: Path, names: list[str], sizes: dict[str, int] | None = None, full: bool = False) -> Lock:
    """Hash files, several at once: hashlib lets go of the interpreter lock. `sizes`: refuse others, reading none."""
    stamps = _read_stamps(folder)
    for name in names:
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            raise IntegrityError(
                "M201",
                "a file of the checkpoint is missing",
                where=paths.shown(folder / name),
                actual=error.strerror,
                fix=fix(folder),
            ) from error
        if sizes is not None and size != sizes[name]:
            raise IntegrityError(
                "M202",
                "a file of the checkpoint does not have the size in its lock"
                + (", it is truncated" * (size < sizes[name])),
                where=paths.shown(folder / name),
                expected=f"{sizes[name]} bytes",
                actual=f"{size} bytes",
                fix=fix(folder),
            )

    def one(name: str) -> tuple[LockedFile, list[int]]:
        stamp = _stamp(folder / name)
        known = stamps.get(name)
        if not full and known is not None and known["stamp"] == stamp:
            return LockedFile(name, known["sha256"], stamp[0]), stamp
        return LockedFile(name, sha256_of(folder / name), stamp[0]), stamp

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = list(pool.map(one, names))
    fresh = {file.name: {"sha256": file.sha256, "stamp": stamp} for file, stamp in results}
    if any(stamps.get(name) != value for name, value in fresh.items()):
        _write_stamps(folder, {**stamps, **fresh})
    return Lock(tuple(file for file, _ in results))


def _stamp(path: Path) -> list[int]:
    """Taken before hashing, so that a write during it shows next time. ctime too: mtime alone can be set back."""
    s = path.stat()
    return [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]


def _read_stamps(folder: Path) -> dict[str, dict]:
    try:
        value = json.loads((folder / STAMPS).read_text(encoding="utf-8"))
        return {n: {"sha256": str(v["sha256"]), "stamp": list(v["stamp"])} for n, v in value.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # a cache: without it everything is hashed


def _write_stamps(folder: Path, stamps: dict[str, dict]) -> None:
    with contextlib.suppress(ResourceError, OSError):  # read-only folder, or no file: hashed anew every time
        write_json(folder / STAMPS, stamps)


def _write_lock(folder: Path, lock: Lock) -> None:
    files = {file.name: {"sha256": file.sha256, "size_bytes": file.size_bytes} for file in lock.files}
    write_json(folder / NAME, {"schema": SCHEMA, "root": lock.root, "files": files})


def fix(folder: Path) -> str:
    """The advice for a damaged checkpoint, as an error's `fix`."""
    if folder.resolve().parent == paths.models().resolve():
        return f"invoke setup --model {folder.name}"
    return f"copy the checkpoint anew, or delete {paths.shown(folder / NAME)} if the change was meant"
