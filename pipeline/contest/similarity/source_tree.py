"""The source of a submission, wherever it lies: a submission's tar file, a `source.tar`, or a folder with either.

Nothing is unpacked to a disk and nothing in it is run. Tar files are read as strictly as `invoke verify` reads them.
"""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pipeline import paths
from pipeline.contest.archive import tarball, unpack
from pipeline.contest.format import SOURCE
from pipeline.contest.source import third_party
from pipeline.contest.source.third_party import ThirdParty
from pipeline.dataset.stream import is_stream
from pipeline.errors import IntegrityError, UsageError

NOT_SOURCE = ("venv", ".venv", "node_modules", "__pycache__", "models", "runs", "dist")
"""Folders of a checkout that hold what others wrote or what runs made; those whose name begins with a dot too."""

LARGEST_BYTES = unpack.SOURCE_BOUNDS.all_bytes


@dataclass(frozen=True)
class Tree:
    name: str
    files: dict[str, bytes]
    """By path, with / between folders."""
    cited: ThirdParty | None
    """None where the tree has no readable THIRD_PARTY.yaml."""

    def cited_paths(self, sources: set[str]) -> set[str]:
        """Files that this tree says come from one of the sources; a cited folder stands for all in it, but the whole
        tree comes from nowhere else."""
        if self.cited is None:
            return set()
        cited = [PurePosixPath(each.path) for each in self.cited.code if normal(each.source) in sources]
        places = [place for place in cited if place.parts]
        return {path for path in self.files if any(PurePosixPath(path).is_relative_to(place) for place in places)}

    @property
    def cited_sources(self) -> set[str]:
        return set() if self.cited is None else {normal(each.source) for each in self.cited.code}


def normal(source: str) -> str:
    """An address as two teams may write it: with or without https, www, .git, a slash at the end."""
    short = source.strip().casefold().removeprefix("https://").removeprefix("http://").removeprefix("www.")
    return short.rstrip("/").removesuffix(".git")


def read(path: Path) -> Tree:
    """The source of a submission, an archive or a folder.

    Raises UsageError (U721) for what is no source tree, and what `tarball.members` and `unpack.checked` raise.
    """
    try:
        if path.is_dir():
            inner = path / SOURCE
            files = _from_tar(io.BytesIO(_bytes(inner)), str(inner)) if inner.is_file() else _from_folder(path)
        else:
            if is_stream(path):
                raise OSError(errno.EINVAL, "a pipe or a device, and a submission is a file")  # noqa: TRY301
            with path.open("rb") as file:
                files = _from_tar(file, path.name)
    except OSError as error:
        raise UsageError(
            "U721",
            "there is no source to compare",
            where=paths.shown(path),
            expected="a submission's tar file, its source.tar, or a folder",
            actual=error.strerror or error,
            fix="name a file or folder that is there",
        ) from error
    return Tree(path.resolve().name.removesuffix(".tar"), files, _cited(files))


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > 2 * LARGEST_BYTES:
        raise _too_large(str(path), path.stat().st_size)
    return path.read_bytes()


def _from_tar(file: BinaryIO, where: str) -> dict[str, bytes]:
    """The files of a source tar, or of the one in a submission's tar."""
    members = list(tarball.members(file, where))
    inner = [member for member in members if member.name.count("/") == 1 and member.name.endswith(f"/{SOURCE}")]
    if len(inner) == 1:
        if inner[0].size_bytes > 2 * LARGEST_BYTES:
            raise _too_large(where, inner[0].size_bytes)
        file.seek(inner[0].offset)
        return _from_tar(io.BytesIO(file.read(inner[0].size_bytes)), f"{where}: {SOURCE}")
    return {path: content for path, (_, content) in unpack.read_files(file, where).items()}


def _from_folder(folder: Path) -> dict[str, bytes]:
    """Plain files; links are not followed."""
    files: dict[str, bytes] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in NOT_SOURCE and not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= unpack.SOURCE_BOUNDS.one_bytes:
                files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def _cited(files: dict[str, bytes]) -> ThirdParty | None:
    try:
        return third_party.parse(files[third_party.NAME])
    except (KeyError, ValueError):
        return None


def _too_large(where: str, size_bytes: int) -> IntegrityError:
    return IntegrityError(
        "M715",
        "a source archive is too large",
        where=where,
        expected=f"{2 * LARGEST_BYTES:,} bytes at most",
        actual=f"{size_bytes:,} bytes",
        fix="ask the team what is in it",
    )
