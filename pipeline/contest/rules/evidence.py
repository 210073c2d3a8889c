"""The evidence that the rules judge: a run, its source and its team as plain values, so that the same checks serve a
checkout here and a stranger's submission.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import paths, settings
from pipeline.check import FAIL, INTEGRITY, INVALID_RUN, OK, UNKNOWN, CheckResult, decided
from pipeline.check import unknown as cannot_tell
from pipeline.contest import numbers
from pipeline.contest.checks import by_id, read_submitted
from pipeline.contest.checks.facts import Facts
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.submitted import Manifest, Submission, Submitted
from pipeline.contest.format import SCHEMA
from pipeline.contest.source import commit
from pipeline.contest.source.imports import Imports
from pipeline.contest.team import TeamWords, read_team
from pipeline.errors import PipelineError
from pipeline.record import run_folder
from pipeline.record.run_folder import value_at


@dataclass(frozen=True)
class Made:
    """The source that a run was made by, as far as this checkout has it."""

    files: Mapping[str, bytes]
    doubt: str | None
    """Reason to doubt that this source made the run; None without one."""


@dataclass(frozen=True)
class Evidence:
    """Everything that a rule's check may look at. No value is trusted: one of another type makes it unknown or fail."""

    manifest: Mapping[str, Any] | None = None
    """The run's manifest; None without a run."""
    read: Mapping[str, CheckResult] = field(default_factory=dict)
    """What reading the run and its source has decided, by id (`by_id.READ`)."""
    facts: Facts | None = None
    """The run as its checks see it; None where it could not be read."""
    source: Mapping[str, bytes] = field(default_factory=dict)
    """Source files: path to content."""
    team: TeamWords | None = None
    """The team's own words; None if there is only the example team."""
    image_packed: bool = False
    image_digest: str | None = None
    imports: Imports = field(default_factory=Imports)
    """How Python sources are read; those of a checkout here are remembered."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Generation arguments with which the organiser's script calls the pipe."""

    def at(self, path: str) -> Any:
        """The manifest's value at a dotted path, such as `board.before.mode`; None if there is none."""
        return value_at(self.manifest, path)

    def checked(self, id: str, *, of_the_contest: bool) -> CheckResult:
        """One of the checks of a run. `of_the_contest`: as for the contest itself, also if the run is a rehearsal."""
        if id in self.read:
            return self.read[id]
        facts = self._of_the_contest if of_the_contest else self.facts
        if facts is not None:
            return by_id.made(id, facts)
        why = [f"{each.id}: {each.found}" for each in self.read.values() if each.state != OK]
        return cannot_tell(id, INVALID_RUN, "; ".join(why) or "the run was not read", "")

    @cached_property
    def _of_the_contest(self) -> Facts | None:
        return None if self.facts is None else self.facts.of_the_contest

    @property
    def accuracy_words(self) -> str | None:
        """How the run's accuracy compares with the reference's; None where it was not compared."""
        compared = None if self.facts is None else self.facts.compared
        return None if compared is None or isinstance(compared, str) else compared.words


def here(
    run: Path | None,
    checkout: Path = paths.ROOT,
    *,
    rehearsal: bool | None = None,
    organiser: Organiser | None = None,
    **known: Any,
) -> Evidence:
    """Collect the evidence of a checkout and one of its runs, seen with `organiser` or what this disk holds; `known`
    are further fields of Evidence. `rehearsal`: whether the run is handed in as one; None, as its board and model say.

    Raises IntegrityError (M101 of the team's file), UsageError (U501 no finished run) and what `organiser_for` raises.
    """
    team, example = read_team(checkout)
    about = {"team": None if example else team.words, "arguments": arguments(), "imports": _remembering(), **known}
    if run is None:
        return Evidence(source=commit.tree(checkout), **about)
    manifest = run_folder.finished_manifest(run)
    try:
        files, doubt = commit.read(commit.of_run(manifest, checkout)), None
    except PipelineError as error:
        files, doubt = commit.tree(checkout), error.what
    rehearsal = bool(why_rehearsal(manifest)) if rehearsal is None else rehearsal
    made = Made(files, doubt)
    return of_run(
        run, manifest, made, team.words, rehearsal, organiser or organiser_for(run, manifest, checkout), about
    )


def of_run(
    run: Path,
    manifest: Mapping[str, Any],
    made_by: Made,
    team: TeamWords,
    rehearsal: bool,
    organiser: Organiser,
    known: Mapping[str, Any],
) -> Evidence:
    """Collect the evidence of a run's folder, read as strictly as a stranger's."""
    claims, of_manifest = read_submitted.read_manifest(run)
    answers, of_form = read_submitted.read_answers(run)
    facts = None
    if claims is not None and answers is not None:
        submitted = Submitted(run, _as_submission(claims, team, rehearsal), claims, answers, run_folder=run)
        facts = Facts(submitted, organiser)
    found = made_by.doubt or f"commit {str(value_at(manifest, 'code.commit'))[:12]}"
    expected = "the commit of a tree without changes, and that commit here"
    of_source = decided("source", INTEGRITY, made_by.doubt is None and bool(made_by.files), found, expected)
    read = {each.id: each for each in (of_manifest, of_form, of_source)}
    return Evidence(manifest=manifest, read=read, facts=facts, source=made_by.files, **known)


def with_source(seen: Evidence, files: Mapping[str, bytes]) -> Evidence:
    """The same evidence with other source files."""
    return replace(seen, source=files)


def _remembering() -> Imports:
    return Imports(paths.data() / "sets" / ".imports.json")


def arguments() -> dict[str, Any]:
    return settings.run().model_dump(include={"max_new_tokens", "return_full_text", "do_sample", "temperature"})


def why_rehearsal(manifest: Mapping[str, Any]) -> str:
    """Reason why a run cannot be one of the contest's; empty if it can."""
    if value_at(manifest, "board.before.board.is_jetson") is False:
        return "this machine is not a Jetson"
    model = value_at(manifest, "model.name")
    return f"the model is {model}" if model in settings.model_names() and model != numbers.load().model else ""


def organiser_for(run: Path, manifest: Mapping[str, Any], checkout: Path = paths.ROOT) -> Organiser:
    """The organiser's side for judging one's own run: the data and model that the run named by path, and the newest
    reference run beside it. Raises what `Organiser` raises."""
    data, model = (Path(str(value_at(manifest, f"request.{key}"))).expanduser() for key in ("dataset", "model"))
    named_data = data if settings.dataset_name(str(data)) not in settings.dataset_names() and data.is_file() else None
    named_model = str(model) if str(model) not in settings.model_names() and model.is_dir() else None
    return Organiser(named_data, reference_of(run, manifest), named_model, checkout)


def newest_run() -> Path | None:
    """Folder of the newest finished run that is not the reference's; None without one."""
    for path in sorted(paths.runs().glob("*/manifest.json"), key=lambda path: path.parent.name, reverse=True):
        manifest = _manifest(path.parent)
        if _is_finished(manifest) and value_at(manifest, "engine.name") not in {None, "reference"}:
            return path.parent
    return None


def reference_of(run: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The newest run of transformers' own pipe() beside this run, on the same rows and model; itself if it is one."""
    if value_at(manifest, "engine.name") == "reference":
        return run
    for path in sorted(run.resolve().parent.glob("*/manifest.json"), reverse=True):
        other = _manifest(path.parent)
        same = all(key in other and other[key] == manifest.get(key) for key in ("model", "dataset", "dtype"))
        whole = _is_finished(other) and (path.parent / "outputs.jsonl").is_file()
        if same and whole and value_at(other, "engine.name") == "reference":
            return path.parent
    return None


def _manifest(run: Path) -> Mapping[str, Any]:
    """Empty for one of another program, or of a run that was killed early."""
    with contextlib.suppress(OSError, ValueError):
        return run_folder.read_manifest(run)
    return {}


def _is_finished(manifest: Mapping[str, Any]) -> bool:
    return manifest.get("state") == run_folder.FINISHED


def _as_submission(manifest: Manifest, team: TeamWords, rehearsal: bool) -> Submission:
    """The contents of `submission.json` for a run that is not packed yet."""
    claim = {
        "schema": SCHEMA,
        "rehearsal": rehearsal,
        "team": {"name": team.name, "members": list(team.members)},
        "run": "",
        "commit": "0" * 40,
        "model": manifest.model,
        "dataset": manifest.dataset,
        "image": {},
        "declarations": dict(team.declarations),
        "files": {},
    }
    code = manifest.code.commit
    return Submission.model_validate(claim).model_copy(update={"commit": code} if code else {})


def decide(fine: bool, what: str, expected: str = "") -> CheckResult:
    """A check's result, OK if `fine` and FAIL if not; the rule adds its id."""
    return CheckResult("", OK if fine else FAIL, expected, what)


def fail(what: str, expected: str = "") -> CheckResult:
    return CheckResult("", FAIL, expected, what)


def unknown(what: str, expected: str = "") -> CheckResult:
    return CheckResult("", UNKNOWN, expected, what)
