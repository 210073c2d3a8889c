"""What the rules are asked about: a run, its source, its team, all as values, so that the same checks look at a
checkout here and at a stranger's submission there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline import paths, schemas, settings
from pipeline.check import FAIL, OK, UNKNOWN, CheckResult
from pipeline.contest import team as teams
from pipeline.contest.source import commit as source
from pipeline.contest.team import TeamWords
from pipeline.errors import PipelineError
from pipeline.model import lock
from pipeline.record import run_folder
from pipeline.record.outputs import read_outputs


@dataclass(frozen=True)
class Accuracy:
    """Of the run against the unmodified pipeline, as `accuracy.compare.judge` says it."""

    verdict: str
    words: str


@dataclass(frozen=True)
class Pins:
    """What the one who asks knows of models and data, whatever a submission says."""

    models: Mapping[str, str] = field(default_factory=dict)
    """Name to the root of its lock."""
    datasets: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Name to the sha256 of the file and its rows."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the organiser's script calls the pipe with."""


@dataclass(frozen=True)
class Evidence:
    """Nothing in it is believed for being there: a check that finds a value of another type says unknown or fail."""

    manifest: Mapping[str, Any] | None = None
    """Of the run; None while there is none."""
    rows: Sequence[Mapping[str, Any]] = ()
    """Of outputs.jsonl, in the file's order."""
    source: Mapping[str, bytes] = field(default_factory=dict)
    """Files by path."""
    source_doubt: str | None = None
    """Why the source may not be what made the run."""
    team: TeamWords | None = None
    """None while there is only the example."""
    image_packed: bool = False
    image_digest: str | None = None
    accuracy: Accuracy | None = None
    pins: Pins = field(default_factory=Pins)

    def at(self, path: str) -> Any:
        """A value of the manifest, as `board.before.mode`; None where there is none."""
        value: Any = self.manifest
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def here(run: Path | None, checkout: Path = paths.ROOT, **known: Any) -> Evidence:
    """Of a checkout and one of its runs; `known` are further fields.

    Raises IntegrityError (M101 of the team's file) and UsageError (U501 no finished run).
    """
    team, example = teams.load(checkout)
    about = {"team": None if example else team.words, "pins": pins(), **known}
    if run is None:
        return Evidence(source=source.tree(checkout), source_doubt="no run was looked at", **about)
    manifest = run_folder.finished_manifest(run)
    try:
        files, doubt = source.read(source.of_run(manifest, checkout)), None
    except PipelineError as error:
        files, doubt = source.tree(checkout), error.what
    return Evidence(
        manifest=manifest,
        rows=read_outputs(run),
        source=files,
        source_doubt=doubt,
        accuracy=accuracy(run, manifest),
        **about,
    )


def with_source(seen: Evidence, files: Mapping[str, bytes]) -> Evidence:
    """The same with other files."""
    return replace(seen, source=files)


def newest_run() -> Path | None:
    """The folder of the run that was begun last, of those that ended well and are not the reference's."""
    for path in sorted(paths.runs().glob("*/manifest.json"), key=lambda path: path.parent.name, reverse=True):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["state"] == run_folder.FINISHED and manifest["engine"]["name"] != "reference":
                return path.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another program, or of a run that was killed early
    return None


def pins() -> Pins:
    """What this checkout pins, and the locks of models that were fetched here."""
    models = {}
    for name in settings.model_names():
        config = settings.model(name)
        if isinstance(config, schemas.StandinConfig):
            models[name] = lock.Lock(
                tuple(lock.LockedFile(file, sha256, 0) for file, sha256 in sorted(config.files.items()))
            ).root
        elif (known := lock.known(paths.models() / name)) is not None:
            models[name] = known.root
    configs = [settings.dataset(name) for name in settings.dataset_names()]
    arguments = settings.run().model_dump(include={"max_new_tokens", "return_full_text", "do_sample", "temperature"})
    return Pins(models, {config.name: (config.sha256, config.rows) for config in configs if config.sha256}, arguments)


def accuracy(run: Path, manifest: Mapping[str, Any]) -> Accuracy | None:
    """Against the newest run of transformers' own pipe() on the same rows and model; None where there is none."""
    if manifest["engine"]["name"] == "reference":
        return Accuracy("kept", "this is the unmodified pipeline")
    reference = reference_of(run, manifest)
    if reference is None:
        return None
    from pipeline.accuracy import compare  # noqa: PLC0415 - takes half a second

    try:
        made = compare.compare(str(reference), str(run))
    except PipelineError as error:
        return Accuracy("cannot tell", f"{reference.name}: {error.what}")
    return Accuracy(made.verdict, f"{made.words} Against {reference.name}.")


def reference_of(run: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The newest run of transformers' own pipe() beside this run, on the same rows and model; itself if it is one."""
    if manifest["engine"]["name"] == "reference":
        return run
    beside = sorted(run.resolve().parent.glob("*/manifest.json"))
    return next((path.parent for path in reversed(beside) if _is_reference(path, manifest)), None)


def _is_reference(path: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        other = json.loads(path.read_text(encoding="utf-8"))
        same = all(other[key] == manifest[key] for key in ("model", "dataset", "dtype"))
        return same and other["state"] == run_folder.FINISHED and other["engine"]["name"] == "reference"
    except (OSError, ValueError, KeyError, TypeError):
        return False  # of another program, or a run that broke off


def found(fine: bool, what: str, expected: str = "") -> CheckResult:
    """What a rule's check found, before the rule gives it its id."""
    return CheckResult("", OK if fine else FAIL, expected, what)


def fail(what: str, expected: str = "") -> CheckResult:
    return CheckResult("", FAIL, expected, what)


def unknown(what: str, expected: str = "") -> CheckResult:
    return CheckResult("", UNKNOWN, expected, what)
