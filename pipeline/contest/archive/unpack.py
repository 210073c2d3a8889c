"""A submission's tar file becomes a folder, or is refused: nothing is written outside of it, and nothing is believed.

Names, kinds and sizes are looked at before a byte is written. Then every file must be in MANIFEST.sha256 with its hash,
every entry of it must be there, and the folder's name must hold the hash of that list. Bounds: `Bounds`.
"""

from __future__ import annotations

import errno
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline import files, paths
from pipeline.contest.archive import tarball
from pipeline.contest.archive.tarball import Member
from pipeline.contest.format import HASH_DIGITS, IMAGE, MANIFEST, SOURCE, SUBMISSION
from pipeline.dataset.stream import is_stream
from pipeline.errors import FormError, IntegrityError, UsageError

REQUIRED = (SUBMISSION, "run/manifest.json", "run/outputs.jsonl", SOURCE)
_CHUNK_BYTES = 1 << 20
_LINE = re.compile(r"([0-9a-f]{64})  (\S(?:.*\S)?)")


@dataclass(frozen=True)
class Bounds:
    """Limits of an archive; one beyond them is refused before it is unpacked."""

    files: int = 2_000
    one_bytes: int = 1 << 30
    all_bytes: int = 2 << 30
    image_bytes: int = 48 << 30
    """Largest image.tar, which is not counted in all_bytes: it holds CUDA's libraries."""
    path_characters: int = 240


SOURCE_BOUNDS = Bounds(files=5_000, one_bytes=32 << 20, all_bytes=128 << 20)
"""Bounds of source.tar's content."""


@dataclass(frozen=True)
class Unpacked:
    name: str
    """The top folder's: <team>-<hash>."""
    folder: Path
    hashes: dict[str, str]
    """Path to sha256, of every file but the list itself."""


def unpack(tar: Path, into: Path, bounds: Bounds = Bounds()) -> Unpacked:
    """Unpack into the empty folder `into`.

    Raises UsageError (U601 there is no such file), what `checked` and `tarball.members` raise, FormError: F404 not one
    top folder, F405 no readable MANIFEST.sha256, F406 a file that every submission has is missing; IntegrityError:
    M705 a file is not in the list or is only there, M706 a file is not what the list says, M707 the folder's name is
    not the list's hash; ResourceError.
    """
    with _open(tar) as file:
        members = checked(tarball.members(file, tar.name), tar.name, bounds, exempt=IMAGE)
        top = _top(members, tar.name)
        for member in members:
            if not member.is_folder:
                _write(file, member, into / member.name.split("/", 1)[1])
    hashes = _listed(into, top)
    present = {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file()} - {MANIFEST}
    _check_hashes(into, hashes, present)
    for name in REQUIRED:
        if name not in present:
            raise FormError(
                "F406",
                "a file that every submission must have is missing",
                where=f"{tar.name}: {name}",
                fix="have it packed anew",
            )
    return Unpacked(top, into, hashes)


def checked(members: Iterable[Member], where: str, bounds: Bounds, exempt: str = "") -> list[Member]:
    """The members, if their names can lie in one folder on any file system and their sizes are within bounds.

    Raises IntegrityError: M702 a name that leads elsewhere, M703 two members of one name, perhaps in another case or
    normal form, M704 too many or too large.
    """
    kept: list[Member] = []
    seen: dict[str, bool] = {}
    holders: set[str] = set()  # folders, as far as a name behind theirs says so
    total = 0
    for member in members:
        name = member.name.rstrip("/") if member.is_folder else member.name
        _check_name(name, where, bounds)
        same = unicodedata.normalize("NFC", name).casefold()
        is_both = (same in holders and not member.is_folder) or any(seen.get(above) is False for above in _above(same))
        if same in seen or is_both:
            raise IntegrityError(
                "M703",
                "two members of the archive would be written to one file",
                where=f"{where}: {_shown(name)}",
                expected="names that differ by more than capitals",
                fix="do not unpack it by other means; have it packed by invoke submit",
            )
        seen[same] = member.is_folder
        holders.update(_above(same))
        is_image = bool(exempt) and name.split("/", 1)[-1] == exempt
        limit = bounds.image_bytes if is_image else bounds.one_bytes
        total += 0 if is_image else member.size_bytes
        kept.append(Member(name, member.is_folder, member.mode, member.size_bytes, member.offset))
        if member.size_bytes > limit or total > bounds.all_bytes or len(kept) > bounds.files:
            raise IntegrityError(
                "M704",
                "the archive holds too much",
                where=f"{where}: {_shown(name)}",
                expected=f"{bounds.files:,} files, {limit:,} bytes each, {bounds.all_bytes:,} together",
                actual=f"{len(kept):,} files, {member.size_bytes:,} bytes, {total:,} together",
                fix="ask the team what is in it; a run's folder and its source take a few MB",
            )
    return kept


def read_files(file: BinaryIO, where: str, bounds: Bounds = SOURCE_BOUNDS) -> dict[str, tuple[int, bytes]]:
    """Path to mode and content of every file of an archive, in memory. Raises as `tarball.members` and `checked`."""
    content: dict[str, tuple[int, bytes]] = {}
    for member in checked(tarball.members(file, where), where, bounds):
        if not member.is_folder:
            file.seek(member.offset)
            content[member.name] = (member.mode, file.read(member.size_bytes))
    return content


def check_is_meant(tar: Path) -> None:
    """Raise UsageError for what is not handed in at all: U601 there is no such file, U602 neither a tar file nor named
    like one. A file that is called .tar and is none is a submission, and a bad one."""
    with _open(tar) as file:
        head = file.read(tarball.BLOCK)
    if tar.suffix != ".tar" and head[257:262] != b"ustar":
        raise UsageError(
            "U602",
            "this file is not a submission",
            where=paths.shown(tar),
            expected="a tar file that invoke submit wrote",
            fix="name the team's .tar file",
        )


def _open(tar: Path) -> BinaryIO:
    try:
        if is_stream(tar):
            raise OSError(errno.EINVAL, "a pipe or a device, and an archive is read more than once")  # noqa: TRY301
        return tar.open("rb")
    except OSError as error:
        raise UsageError(
            "U601",
            "there is no submission to read",
            where=paths.shown(tar),
            expected="a tar file that invoke submit wrote",
            actual=error.strerror,
            fix="name the file",
        ) from error


def _check_name(name: str, where: str, bounds: Bounds) -> None:
    parts = name.split("/")
    wrong = (
        "an absolute path"
        if name.startswith("/")
        else "a path that leads elsewhere"
        if {"", ".", ".."} & set(parts)
        else "a control character or a backslash"
        if any(unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"} or each == "\\" for each in name)
        else "a name too long"
        if len(name) > bounds.path_characters or any(len(part.encode()) > 255 for part in parts)
        else None
    )
    if wrong:
        raise IntegrityError(
            "M702",
            "a name in the archive cannot be the name of a file in one folder",
            where=f"{where}: {_shown(name)}",
            actual=wrong,
            fix="do not unpack it by other means; ask the team what it is for",
        )


def _above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _shown(name: str) -> str:
    return repr(name if len(name) <= 120 else name[:120] + "…")


def _top(members: list[Member], where: str) -> str:
    tops = {member.name.split("/", 1)[0] for member in members}
    loose = [member.name for member in members if "/" not in member.name and not member.is_folder]
    if len(tops) != 1 or loose:
        raise FormError(
            "F404",
            "a submission is one folder",
            where=where,
            expected="<team>-<hash>/ and everything in it",
            actual=f"{len(tops)} folders and {len(loose)} files beside them",
            fix="have it packed by invoke submit",
        )
    return tops.pop()


def _write(file: BinaryIO, member: Member, path: Path) -> None:
    """Exactly as many bytes as its header says; the file is new, so it cannot be a link to elsewhere."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file.seek(member.offset)
        with path.open("xb") as out:
            left = member.size_bytes
            while left:
                left -= out.write(file.read(min(left, _CHUNK_BYTES)))
    except OSError as error:
        raise files.resource_trouble(error, path) or error from error


def _listed(folder: Path, top: str) -> dict[str, str]:
    """Paths and sha256 of MANIFEST.sha256, if it is in its one proper form and the top folder is named by it."""
    try:
        content = (folder / MANIFEST).read_bytes()
        lines = content.decode("utf-8").split("\n")
        pairs = [pair for line in lines[:-1] if (pair := _LINE.fullmatch(line))]
        if lines[-1] or len(pairs) < len(lines) - 1:
            raise ValueError("a line that is not '<sha256>  <path>'")  # noqa: TRY301
        names = [pair[2] for pair in pairs]
        if names != sorted(set(names)):
            raise ValueError("its lines are not sorted by path, each path once")  # noqa: TRY301
    except (OSError, ValueError) as error:
        raise FormError(
            "F405",
            "the list of the submission's files cannot be read",
            where=f"{top}/{MANIFEST}",
            expected="one line '<sha256>  <path>' for each file, sorted by path",
            actual=error,
            fix="have it packed by invoke submit",
        ) from error
    digest = hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
    if top.rpartition("-")[2] != digest:
        raise IntegrityError(
            "M707",
            "the submission's name does not match its content",
            where=top,
            expected=f"<team>-{digest}",
            fix="have it packed anew: a packed submission is never edited",
        )
    return {pair[2]: pair[1] for pair in pairs}


def _check_hashes(folder: Path, hashes: dict[str, str], present: set[str]) -> None:
    for name in sorted(hashes.keys() ^ present):
        raise IntegrityError(
            "M705",
            "the list of files does not match the files in the archive",
            where=f"{MANIFEST}: {_shown(name)}",
            expected="every file but the list itself, and no other",
            actual="listed, but not in the archive" if name in hashes else "in the archive, but not listed",
            fix="have it packed anew: a packed submission is never edited",
        )
    for name, expected in hashes.items():
        actual = files.sha256_of(folder / name)
        if actual != expected:
            raise IntegrityError(
                "M706",
                "a file of the submission differs from what its list says",
                where=name,
                expected=expected,
                actual=actual,
                fix="have it sent again; if it is still wrong, have it packed again",
            )
