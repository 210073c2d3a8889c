"""The evidence that the rules judge: a run, its source and its team as plain values, so that the same checks serve a
checkout here and a stranger's submission.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline import paths, schemas, settings
from pipeline.check import FAIL, OK, UNKNOWN, CheckResult
from pipeline.contest.source import commit
from pipeline.contest.team import TeamWords, read_team
from pipeline.errors import PipelineError
from pipeline.model import lock
from pipeline.record import run_folder
from pipeline.record.outputs import read_outputs


@dataclass(frozen=True)
class Accuracy:
    """The run's accuracy against the unmodified pipeline: verdict and words of `accuracy.compare.judge`."""

    verdict: str
    words: str


@dataclass(frozen=True)
class Pins:
    """Hashes of models and data, and arguments, that the judging side pins itself; no submission has a say in them."""

    models: Mapping[str, str] = field(default_factory=dict)
    """Model name to the root hash of its lock."""
    datasets: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Data set name to the sha256 of its file and the number of its rows."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Generation arguments with which the organiser's script calls the pipe."""


@dataclass(frozen=True)
class Evidence:
    """Everything that a rule's check may look at. No value is trusted: one of another type makes it unknown or fail."""

    manifest: Mapping[str, Any] | None = None
    """The run's manifest; None without a run."""
    rows: Sequence[Mapping[str, Any]] = ()
    """Lines of outputs.jsonl, in the file's order."""
    source: Mapping[str, bytes] = field(default_factory=dict)
    """Source files: path to content."""
    source_doubt: str | None = None
    """Reason to doubt that this source made the run; None without one."""
    team: TeamWords | None = None
    """The team's own words; None if there is only the example team."""
    image_packed: bool = False
    image_digest: str | None = None
    accuracy: Accuracy | None = None
    pins: Pins = field(default_factory=Pins)

    def at(self, path: str) -> Any:
        """The manifest's value at a dotted path, such as `board.before.mode`; None if there is none."""
        value: Any = self.manifest
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def here(run: Path | None, checkout: Path = paths.ROOT, **known: Any) -> Evidence:
    """Collect the evidence of a checkout and one of its runs; `known` are further fields of Evidence.

    Raises IntegrityError (M101 of the team's file) and UsageError (U501 no finished run).
    """
    team, example = read_team(checkout)
    about = {"team": None if example else team.words, "pins": pins(), **known}
    if run is None:
        return Evidence(source=commit.tree(checkout), source_doubt="no run was looked at", **about)
    manifest = run_folder.finished_manifest(run)
    try:
        files, doubt = commit.read(commit.of_run(manifest, checkout)), None
    except PipelineError as error:
        files, doubt = commit.tree(checkout), error.what
    return Evidence(
        manifest=manifest,
        rows=read_outputs(run),
        source=files,
        source_doubt=doubt,
        accuracy=accuracy(run, manifest),
        **about,
    )


def with_source(seen: Evidence, files: Mapping[str, bytes]) -> Evidence:
    """The same evidence with other source files."""
    return replace(seen, source=files)


def newest_run() -> Path | None:
    """Folder of the newest finished run that is not the reference's; None without one."""
    for path in sorted(paths.runs().glob("*/manifest.json"), key=lambda path: path.parent.name, reverse=True):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["state"] == run_folder.FINISHED and manifest["engine"]["name"] != "reference":
                return path.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another program, or of a run that was killed early
    return None


def pins() -> Pins:
    """The pins of this checkout's configs, with the locks of models that were fetched here."""
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
    """Compare the run with its reference run (`reference_of`); None if there is none."""
    if manifest["engine"]["name"] == "reference":
        return Accuracy("kept", "this is the unmodified pipeline")
    reference = reference_of(run, manifest)
    if reference is None:
        return None
    from pipeline.accuracy import compare  # noqa: PLC0415 - takes half a second

    try:
        compared = compare.compare(str(reference), str(run))
    except PipelineError as error:
        return Accuracy("cannot tell", f"{reference.name}: {error.what}")
    return Accuracy(compared.verdict, f"{compared.words} Against {reference.name}.")


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


def decide(fine: bool, what: str, expected: str = "") -> CheckResult:
    """A check's result, OK if `fine` and FAIL if not; the rule adds its id."""
    return CheckResult("", OK if fine else FAIL, expected, what)


def fail(what: str, expected: str = "") -> CheckResult:
    return CheckResult("", FAIL, expected, what)


def unknown(what: str, expected: str = "") -> CheckResult:
    return CheckResult("", UNKNOWN, expected, what)
