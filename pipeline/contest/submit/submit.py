"""From a finished run to the file that is handed in: ask the rules, write the documents, pack.

Nothing is packed while a check fails. A run that cannot be one of the contest's, because it was made on another machine
or with another model, becomes a rehearsal: the same file, plainly marked, that is not held to the contest's own rules.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline import files, paths, process
from pipeline.check import UNKNOWN, CheckResult, Kind
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.format import IMAGE
from pipeline.contest.rules import evidence, rules, source_rules
from pipeline.contest.source import commit, sbom, third_party
from pipeline.contest.submit import pack
from pipeline.contest.team import EXAMPLE as TEAM_EXAMPLE
from pipeline.contest.team import NAME as TEAM_FILE
from pipeline.contest.team import read_team
from pipeline.contest.verify import run_figures, verify
from pipeline.contest.verify.verify import Verdict
from pipeline.errors import (
    AccuracyError,
    EnvironmentProblem,
    FormError,
    IntegrityError,
    InvalidRun,
    PipelineError,
    ResourceError,
    UsageError,
)
from pipeline.record import run_folder

FOLDER = "dist"


@dataclass(frozen=True)
class Request:
    """The options of `invoke submit`."""

    run: Path
    rehearsal: bool = False
    save_image: bool = False


@dataclass(frozen=True)
class Submission:
    """The outcome of `invoke submit`: the packed file, or the rules or verdict that forbid it."""

    run: str
    judged: Sequence[CheckResult]
    rehearsal: bool
    why_rehearsal: str
    verdict: Verdict | None = None
    """The verdict on the packed file; None if a rule forbade packing."""
    path: Path | None = None
    sha256: str | None = None
    size_bytes: int = 0
    redactions: int = 0
    notes: tuple[str, ...] = ()


def newest() -> Path:
    """The newest finished run, for when none is named. Raises UsageError (U621)."""
    run = evidence.newest_run()
    if run is None:
        raise UsageError(
            "U621",
            "there is no finished run yet",
            where=paths.shown(paths.runs()),
            fix="make run answers the contest's public set; then call this again",
        )
    return run


def submit(
    request: Request, out: Path | None = None, checkout: Path = paths.ROOT, organiser: Organiser | None = None
) -> Submission:
    """Pack a run into `out` and verify what was packed, as the organiser will, with `known` or what this disk holds.

    Where a rule forbids it or the verdict is INVALID, nothing is left in `out`, the path is None, and `conclude` raises
    why. Raises what `run_folder.finished_manifest`, `commit.of_run`, `team.read_team` and `method.make` raise,
    EnvironmentProblem (E621 the image cannot be saved, E623 what draws is not installed) and ResourceError.
    """
    manifest = run_folder.finished_manifest(request.run)
    made_by = commit.of_run(manifest, checkout)
    method, pictures = _drawing()
    team, example = read_team(checkout)
    why = evidence.why_rehearsal(manifest) or ("as was asked for" if request.rehearsal else "")
    digest = _digest(team.image)
    # The explanation may be written after the run: it is the newest commit's.
    texts = {**commit.read(made_by), source_rules.METHOD: _read(checkout / source_rules.METHOD)}
    organiser = organiser or evidence.organiser_for(request.run, manifest, checkout)
    seen = evidence.here(
        request.run,
        checkout,
        rehearsal=bool(why),
        organiser=organiser,
        image_packed=request.save_image,
        image_digest=digest,
    )
    judged = rules.judge(evidence.with_source(seen, texts))
    if rules.refused(judged, rehearsal=bool(why)):
        return Submission(request.run.name, judged, bool(why), why)
    about = run_figures.About(
        team=team,
        run=request.run.resolve().name,
        commit=made_by.commit,
        committed_s=made_by.committed_s,
        rehearsal=bool(why),
        accuracy_words=seen.accuracy_words,
        image=team.image,
    )
    documents = {
        **method.make(manifest, texts, about),
        sbom.NAME: sbom.make(manifest, texts, made_by.committed_s),
        third_party.NAME: texts[third_party.NAME],
    }
    out = out or checkout / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    # Packed where nobody takes it for the submission, until it is verified; on the same disk, for an image's gigabytes.
    with contextlib.ExitStack() as stack:
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".packing-", dir=out)))
        image_tar = stack.enter_context(_saved_image(team.image, private)) if request.save_image else None
        packed = pack.pack(
            request.run,
            team,
            private,
            checkout=checkout,
            rehearsal=bool(why),
            image=pack.Image(team.image, digest),
            image_tar=image_tar,
            documents=documents,
        )
        verdict = verify.verify(packed, organiser, out=private / "verdict")
        path = out / packed.name
        if verdict.state == verify.INVALID:
            # Of the same name, so of the same bytes: from a time when less was known here.
            path.unlink(missing_ok=True)
            return Submission(request.run.name, judged, bool(why), why, verdict=verdict)
        packed.replace(path)
    return Submission(
        run=request.run.name,
        judged=judged,
        rehearsal=bool(why),
        why_rehearsal=why,
        verdict=verdict,
        path=path,
        sha256=files.sha256_of(path),
        size_bytes=path.stat().st_size,
        redactions=len(pack.submission_json(path)["redactions"]),
        notes=tuple(_notes(example, boxes=pictures.without_letters(team.name))),
    )


def conclude(result: Submission) -> None:
    """Raise the error of the first rule that forbids packing, by its kind, or that of an INVALID verdict, as `invoke
    verify` raises it; nothing where it was packed."""
    refused = rules.refused(result.judged, result.rehearsal)
    if not refused:
        if result.verdict is not None and result.verdict.state == verify.INVALID:
            fix = "mend what the reasons name, and run again; invoke verify says the same of such a file"
            error = verify.error_of(result.verdict, "nothing was packed: the verdict is INVALID", fix)
            assert error is not None
            raise error
        return
    first = refused[0]
    kind, code = _ERRORS[first.kind or "usage"]
    others = [each.id for each in refused[1:]]
    also = f"; so do {', '.join(others)}" if len(others) > 1 else f"; so does {others[0]}" if others else ""
    raise kind(
        code,
        f"nothing was packed: the rule {first.id} forbids it{also}",
        where=f"{result.run}: {next(rule.text for rule in rules.load().rules if rule.id == first.id)}",
        expected=first.expected,
        actual=first.found,
        fix=first.fix + ("" if result.rehearsal else "; to try the procedure all the same: invoke submit --rehearsal"),
    )


def text(result: Submission) -> str:
    """The report for the terminal: the rules' states, then the file."""
    lines = ["", rules.table(result.judged, result.rehearsal)]
    if result.rehearsal:
        lines += ["", f"REHEARSAL, not a result for the contest: {result.why_rehearsal}"]
        lines += ["  rules marked - are not checked in a rehearsal"]
    if result.path is not None:
        unknown = [each.id for each in result.verdict.checks if each.state == UNKNOWN] if result.verdict else []
        lines += [
            "",
            f"packed {result.run}; invoke verify says {result.verdict.state if result.verdict else 'nothing'}",
        ]
        lines += [f"  {'file':<10}{paths.shown(result.path)}", f"  {'size':<10}{result.size_bytes / 1e6:,.1f} MB"]
        lines += [f"  {'sha256':<10}{result.sha256}"]
        if unknown:
            lines += [f"  {'unknown':<10}{', '.join(unknown)}: cannot be checked here; the organiser checks it again"]
        lines += [f"  {'redacted':<10}{_redacted(result.redactions)}"]
        lines += [f"  {'note':<10}{note}" for note in result.notes]
    return "\n".join(lines)


def _redacted(count: int) -> str:
    return f"{count} entries: submission.json lists them" if count else "nothing had to be"


def as_json(result: Submission) -> dict[str, Any]:
    return {
        "run": result.run,
        "rehearsal": result.rehearsal,
        "file": None if result.path is None else str(result.path),
        "sha256": result.sha256,
        "size_bytes": result.size_bytes or None,
        "verdict": None if result.verdict is None else result.verdict.state,
        "reasons": [] if result.verdict is None else result.verdict.reasons,
        "rules": rules.as_json(result.judged),
    }


_ERRORS: dict[Kind, tuple[type[PipelineError], str]] = {
    "usage": (UsageError, "U622"),
    "environment": (EnvironmentProblem, "E622"),
    "integrity": (IntegrityError, "M622"),
    "resource": (ResourceError, "R622"),
    "form": (FormError, "F622"),
    "accuracy": (AccuracyError, "A622"),
    "invalid": (InvalidRun, "I622"),
}


def _drawing() -> tuple[ModuleType, ModuleType]:
    """The modules that draw, with libraries that a host has and an image need not. Raises EnvironmentProblem (E623)."""
    try:
        from pipeline.contest.submit import method, pictures  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(
            "E623",
            "the documents of a submission cannot be made here",
            actual=str(error),
            fix="pip install --require-hashes -r requirements/host.lock (make does this by itself)",
        ) from error
    return method, pictures


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _notes(example: bool, boxes: bool) -> Iterator[str]:
    if example:
        yield f"this is the example's team; to hand in yours: cp {TEAM_EXAMPLE} {TEAM_FILE}, and edit it"
    if boxes:
        yield "no font here has all letters of the team's name, so leaderboard.png shows boxes: install fonts-nanum"


def _digest(reference: str | None) -> str | None:
    """The image's digest, from its address or else from docker; None if neither knows it."""
    if reference is None:
        return None
    if "@sha256:" in reference:
        return reference.split("@", 1)[1]
    done = process.docker("image", "inspect", "--format", "{{json .RepoDigests}}", reference)
    with contextlib.suppress(ValueError, IndexError, TypeError):
        return json.loads(done.stdout if done else "")[0].split("@", 1)[1]
    return None


@contextlib.contextmanager
def _saved_image(reference: str | None, out: Path) -> Iterator[Path]:
    """Save the image to a temporary file on the disk of `out`. Raises EnvironmentProblem (E621)."""
    from pipeline.prepare import container  # noqa: PLC0415

    name = reference or container.IMAGE
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".image-", dir=out) as folder:
        path = Path(folder, IMAGE)
        done = process.docker("save", "--output", str(path), name)
        if done is None or done.returncode:
            trouble = "there is no docker here" if done is None else done.stderr.strip() or f"status {done.returncode}"
            raise EnvironmentProblem(
                "E621",
                "the image cannot be saved",
                where=name,
                actual=trouble,
                fix="invoke image builds it; or push it, and write its address into team.yaml instead of --save-image",
            )
        yield path
