"""`invoke verify`: a submission's tar file becomes a verdict, whatever is in it.

VALID: every check that a program can make passed. INVALID: one failed, and its class says what kind of reason.
CANNOT TELL: none failed, and one could not be made here, for want of what it names. Rules that people decide are listed
and decide nothing. What is INVALID already is neither audited nor run again.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import files, paths, table
from pipeline.check import (
    ACCURACY,
    FAIL,
    FORM,
    HUMAN,
    INTEGRITY,
    INVALID_RUN,
    OK,
    UNKNOWN,
    WARN,
    CheckResult,
    Kind,
    plain,
)
from pipeline.contest.archive import unpack
from pipeline.contest.checks.answer_checks import Accuracy
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.submitted import Manifest, Submission
from pipeline.contest.verify import audit_checks, receipt, rerun, rule_checks, stages, verdict_page
from pipeline.contest.verify.stages import LOG
from pipeline.errors import AccuracyError, CannotTell, FormError, IntegrityError, InvalidRun, PipelineError
from pipeline.table import Column

SCHEMA = 1
VALID, INVALID, CANNOT_TELL = "VALID", "INVALID", "CANNOT TELL"
CLASSES: tuple[Kind, ...] = (INTEGRITY, FORM, INVALID_RUN, ACCURACY)
"""Kinds of failure by precedence: the first one that occurs is the verdict's class."""

CLASS_WORDS: dict[Kind, str] = {INVALID_RUN: "invalid run"}
"""Names in `verdict.json` for classes that the code calls otherwise."""

ERRORS: dict[Kind, tuple[type[PipelineError], str]] = {
    INTEGRITY: (IntegrityError, "M721"),
    FORM: (FormError, "F421"),
    ACCURACY: (AccuracyError, "A421"),
    INVALID_RUN: (InvalidRun, "I421"),
}

JSON, PAGE = "verdict.json", "verdict.html"


@dataclass(frozen=True)
class Verdict:
    name: str
    """Name of the submission: <team>-<hash>."""
    checks: tuple[CheckResult, ...]
    submission: Submission | None = None
    manifest: Manifest | None = None
    accuracy: Accuracy | None = None
    rerun: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None
    trouble: str = field(default="", compare=False)
    """Tracebacks of checks that raised an error."""
    prints: Mapping[str, str | None] = field(default_factory=dict)
    received_utc: str | None = None

    @property
    def failed(self) -> list[CheckResult]:
        return sorted((c for c in self.checks if c.state == FAIL), key=lambda c: CLASSES.index(c.kind or INVALID_RUN))

    @property
    def state(self) -> str:
        unknown_ones = any(each.state == UNKNOWN for each in self.checks)
        return INVALID if self.failed else CANNOT_TELL if unknown_ones else VALID

    @property
    def kind(self) -> Kind | None:
        return self.failed[0].kind if self.failed else None

    @property
    def reasons(self) -> list[str]:
        decisive = self.failed or [each for each in self.checks if each.state == UNKNOWN]
        return [f"{each.id}: {each.found}; wanted: {each.expected}" for each in decisive]

    def as_json(self) -> dict[str, Any]:
        """The content of `verdict.json`; what could not be read is null."""
        of, run = self.submission, self.manifest
        board = run and run.board.before.board
        return {
            "schema": SCHEMA,
            "rules_version": rule_checks.version(),
            "verdict": self.state,
            "class": CLASS_WORDS.get(self.kind, self.kind) if self.kind else None,
            "submission": plain(self.name),
            "rehearsal": of and of.rehearsal,
            "team": of and {"name": plain(of.team.name), "members": [plain(each) for each in of.team.members]},
            "commit": of and of.commit,
            "model": run and plain(run.model.name),
            "dataset": run and plain(run.dataset.name),
            "dataset_sha256": run and run.dataset.sha256,
            "model_sha256": run and run.model.lock_sha256,
            "outputs_sha256": self.prints.get("outputs_sha256"),
            "telemetry_sha256": self.prints.get("telemetry_sha256"),
            "prompts": run and run.dataset.rows,
            "time_s": run and run.elapsed_s,
            "s_per_prompt": run.elapsed_s / run.dataset.rows if run and run.dataset.rows > 0 else None,
            "accuracy": self.accuracy and self.accuracy.as_json(),
            "device": run and plain(run.environment.gpu or (board and board.module) or run.environment.processor or ""),
            "submitted_utc": run and run.submitted.isoformat(),
            "received_utc": self.received_utc,
            "checks": [_as_json(each) for each in self.checks],
            "reasons": self.reasons,
            "rerun": self.rerun,
            "audit": self.audit,
        }


def verify(
    tar: Path,
    organiser: Organiser,
    again: rerun.Request | None = None,
    out: Path | None = None,
    audit: audit_checks.Request | None = None,
) -> Verdict:
    """Verify one submission; with `audit`, look at its tokens; with `again`, run it again. Writes the verdict's folder
    (`folder_of`, or `out`).

    Raises only for what is not the submission's: UsageError (U601 no such file, U602 no tar file), ResourceError,
    EnvironmentProblem (E611, E612 no container can be run).
    """
    unpack.check_is_meant(tar)
    out = out or folder_of(tar)
    if again is not None:
        rerun.check_possible(again)
    # Beside the verdict, and not in memory: an image may take tens of gigabytes.
    was_there = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.resource_trouble(error, out) or error from error
    try:
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=out) as folder:
            verdict = _judge(tar, Path(folder), organiser, again, out, audit)
        verdict = replace(verdict, received_utc=receipt.received_utc(out / JSON, plain(verdict.name)))
        write(verdict, out)
    except BaseException:  # Ctrl-C as well: without a verdict there is no folder of one
        if not was_there:
            with contextlib.suppress(OSError):  # a rerun has left its runs there
                out.rmdir()
        raise
    return verdict


def folder_of(tar: Path) -> Path:
    return tar.with_name(f"{tar.name.removesuffix('.tar')}.verdict")


def write(verdict: Verdict, out: Path) -> None:
    files.write_json(out / JSON, verdict.as_json())
    for name, text in ((PAGE, verdict_page.html(verdict.as_json())), (LOG, verdict.trouble)):
        if text:
            with files.write_atomically(out / name) as file:
                file.write(text.encode())


def conclude(verdict: Verdict, out: Path) -> None:
    """Raise the error of the verdict's class (`error_of`); a VALID one raises nothing."""
    fix = f"see {paths.shown(out / PAGE)} for every check; tell the team the reasons"
    if verdict.state == CANNOT_TELL:
        fix = "bring what the reasons name, then verify again"
    if (error := error_of(verdict, f"the verdict is {verdict.state}", fix)) is not None:
        raise error


def error_of(verdict: Verdict, what: str, fix: str) -> PipelineError | None:
    """The error of the verdict's class, with its first reasons: IntegrityError (M721), FormError (F421), AccuracyError
    (A421), InvalidRun (I421), CannotTell (C101). None for a VALID verdict."""
    if verdict.state == VALID:
        return None
    error, code = (CannotTell, "C101") if verdict.kind is None else ERRORS[verdict.kind]
    reasons = "\n            ".join(verdict.reasons[:5])
    return error(code, what, where=plain(verdict.name), actual=reasons, fix=fix)


MARKS = {OK: "ok", WARN: "waived", FAIL: "FAIL", UNKNOWN: "?", HUMAN: "people"}
COLOURS = {"ok": "green", "FAIL": "red", "?": "yellow"}


def text(verdict: Verdict, out: Path) -> str:
    """The report for the terminal: a line a check, and the verdict last."""
    content = verdict.as_json()
    head = f"{content['submission']}{' (a rehearsal)' * bool(content['rehearsal'])}"
    columns = [Column("check"), Column(colour=COLOURS.get), Column("found", wrap=90)]
    checks = table.text(columns, [(each.id, MARKS[each.state], each.found) for each in verdict.checks])
    lines = [("written", paths.shown(out))]
    if content["accuracy"]:
        lines.insert(0, ("right", f"{content['accuracy']['right']} of {content['accuracy']['of']}, counted again here"))
    if content["time_s"] is not None:
        lines.insert(
            0, ("time", f"{content['time_s']:.3f} s for {content['prompts']:,} prompts, by the team's own clock")
        )
    kind = f" ({content['class']})" if verdict.kind else ""
    return "\n".join(["", head, "", checks, table.labelled(f"{verdict.state}{kind}", lines)])


def _as_json(result: CheckResult) -> dict[str, Any]:
    return {
        "id": result.id,
        "state": result.state,
        "found": result.found,
        "wanted": result.expected,
        "class": CLASS_WORDS.get(result.kind, result.kind) if result.kind else None,
    }


def _judge(
    tar: Path,
    folder: Path,
    organiser: Organiser,
    again: rerun.Request | None,
    out: Path,
    audit: audit_checks.Request | None,
) -> Verdict:
    read = stages.read(tar, folder)
    submitted, unpacked = read.submitted, read.unpacked
    if submitted is None or unpacked is None:
        return Verdict(read.name, read.results, read.submission, read.manifest)
    fresh = organiser
    if again is not None:
        organiser = organiser.on_claimed_data(submitted.manifest.dataset.sha256)
    checked = stages.check(submitted, organiser)
    results, trouble = [*read.results, *checked.results], checked.trouble
    looked = done = None
    if audit is not None and not any(each.state == FAIL for each in results):
        made, audit_trouble = stages.guarded("audit", partial(audit_checks.checks, submitted, organiser, audit))
        audited, looked = ([made], None) if isinstance(made, CheckResult) else made
        results += audited
        trouble = "\n".join(filter(None, (trouble, audit_trouble)))
    if again is not None and not any(each.state == FAIL for each in results):
        done = rerun.rerun(submitted, unpacked, fresh, again, out)
        results += done.checks
    return Verdict(
        unpacked.name,
        tuple(results),
        read.submission,
        read.manifest,
        checked.accuracy,
        None if done is None else done.as_json(),
        None if looked is None else looked.as_json(),
        trouble,
        checked.prints,
    )
