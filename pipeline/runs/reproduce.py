"""`invoke reproduce`: a recorded run again, here and from what is here, compared with the record.

Compared are the model's lock and the data file's hash, before anything is run, so that nothing is fetched in their
place; then every answer with its token ids, and the time. The result is `reproduction.json` in the new run's folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline import files, paths, settings, table
from pipeline.dataset import fetch, stream
from pipeline.device.host import Host
from pipeline.errors import AccuracyError, IntegrityError, UsageError
from pipeline.files import sha256_of
from pipeline.model import lock
from pipeline.prepare import board_checks, doctor
from pipeline.record import promise, run_folder
from pipeline.record.outputs import read_outputs
from pipeline.record.promise import Promise
from pipeline.runs import timed
from pipeline.runs.request import Request
from pipeline.table import Say

SCHEMA = "phi3-offline-pipeline/reproduction/1"
NAME = "reproduction.json"


@dataclass(frozen=True)
class Reproduction:
    of: str
    """The recorded run's folder."""
    folder: Path
    """The new one."""
    rows: int
    differing: tuple[int, ...]
    """Rows whose answer is another, by index in the file."""
    recorded_s: float | None
    elapsed_s: float | None
    promise: Promise
    """Whether the two runs promise equal bytes."""
    verdict: str | None
    """State of the new time's verdict, from what was seen of the board. It and the time are None only for a resumed
    run, which this never is."""

    @property
    def same(self) -> bool:
        return not self.differing


def _request_of(folder: Path, recorded: dict[str, Any]) -> Request:
    """The options that the run had. Raises UsageError (U503) where another version has others."""
    try:
        return Request(**recorded["request"])
    except TypeError as error:
        raise UsageError(
            "U503",
            "this run was made by a version with other options",
            where=paths.shown(folder),
            expected=f"the options {', '.join(each.name for each in fields(Request))}",
            actual=", ".join(recorded["request"]),
            fix="check out the commit that its manifest names, and reproduce it there",
        ) from error


def reproduce(name_or_path: str, host: Host, say: Say = print) -> Reproduction:
    """Do a recorded run again and compare; writes reproduction.json.

    Raises UsageError (U311, U317 no such run, U501 no finished run there, U502 its data came from a pipe),
    IntegrityError (M601 the model, M602 the data here is not the run's, or is not here), and what a run raises.
    """
    folder = run_folder.find(name_or_path)
    recorded = run_folder.finished_manifest(folder, needs=("request", "model", "dataset"))
    if stream.was_stream(recorded):
        fix = "run again on a file with the same data, then: invoke compare RUN NEW_RUN"
        what = "a run on data from a pipe cannot be reproduced"
        raise stream.refuse_again("U502", what, recorded["request"]["dataset"], fix)
    say(doctor.table(board_checks.board_results(host)))
    request = _request_of(folder, recorded)
    _check_model(request.model, recorded["model"]["lock_sha256"], say)
    _check_data(request.dataset, recorded["dataset"]["sha256"])
    repeated = timed.run(request, say)
    result = Reproduction(
        of=str(folder),
        folder=repeated.folder,
        rows=repeated.rows,
        differing=_differing(read_outputs(folder), read_outputs(repeated.folder)),
        recorded_s=recorded["elapsed_s"],
        elapsed_s=repeated.elapsed_s,
        promise=promise.between(recorded, run_folder.finished_manifest(repeated.folder)),
        verdict=repeated.verdict.state if repeated.verdict else None,
    )
    _write(result)
    return result


def text(result: Reproduction) -> str:
    """A few lines for the terminal."""
    time = "none" if result.elapsed_s is None else f"{result.elapsed_s:.2f} s, {result.verdict}"
    if result.recorded_s and result.elapsed_s is not None:
        time += f"; recorded {result.recorded_s:.2f} s, {result.elapsed_s / result.recorded_s - 1:+.1%}"
    lines = [
        ("answers", f"{result.rows - len(result.differing)} of {result.rows} are the same, to the token"),
        ("equal bytes", f"{'required' if result.promise.equal else 'not promised'}: {result.promise.why}"),
        ("time", time),
        ("written", paths.shown(result.folder / NAME)),
    ]
    head = "REPRODUCED" if result.same else "NOT REPRODUCED"
    return table.labelled(head, lines)


def conclude(result: Reproduction) -> None:
    """End with an error if the reproduction differs.

    Raises AccuracyError (A501) when answers differ. A time is judged by people, who know both boards.
    """
    if not result.same:
        raise AccuracyError(
            "A501",
            "the run was not reproduced",
            where=f"rows {', '.join(map(str, result.differing[:10]))}",
            expected="the recorded answers",
            actual=f"{len(result.differing)} of {result.rows} differ",
            fix="report this: both runs promise equal bytes"
            if result.promise.equal
            else f"compare both runs (invoke compare); a near tie may fall the other way, since {result.promise.why}",
        )


def _check_model(name_or_path: str, lock_sha256: str, say: Say) -> None:
    """Raise IntegrityError where the model here differs from its lock (M2xx) or from the run's (M601)."""
    known = name_or_path in settings.model_names()
    folder = paths.models() / name_or_path if known else paths.given(name_or_path)
    root = lock.verify(folder, full=True, say=say).root if folder.is_dir() else "it is not here"
    if root != lock_sha256:
        raise IntegrityError(
            "M601",
            "the model here is not the one of the run",
            where=paths.shown(folder),
            expected=lock_sha256,
            actual=root,
            fix="fetch the revision that the run names",
        )


def _check_data(name_or_path: str, sha256: str) -> None:
    """Raise IntegrityError (M602) where the data file here is not the run's, or the scoring file of a known set is
    missing: scoring would fetch it."""
    known = settings.dataset_name(name_or_path) in settings.dataset_names()
    config = settings.dataset(name_or_path) if known else None
    path = paths.given(name_or_path) if config is None else fetch.place(config.name)
    actual = sha256_of(path) if path.is_file() else "it is not here"
    if config is not None and config.form.scoring and not fetch.scoring_place(config.name).is_file():
        path, actual = fetch.scoring_place(config.name), "it is not here"
    if actual != sha256:
        raise IntegrityError(
            "M602",
            "the data file here is not the one of the run",
            where=paths.shown(path),
            expected=sha256,
            actual=actual,
            fix="bring the same file",
        )


def _differing(recorded: list[dict[str, Any]], found: list[dict[str, Any]]) -> tuple[int, ...]:
    was, now = ({row["index"]: row for row in rows} for rows in (recorded, found))
    return tuple(index for index in sorted(was.keys() | now.keys()) if was.get(index) != now.get(index))


def _write(result: Reproduction) -> None:
    content = {"schema": SCHEMA, "same": result.same, **asdict(result), "folder": result.folder.name}
    files.write_json(result.folder / NAME, content)
