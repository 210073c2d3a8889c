"""`invoke reproduce`: somebody's run again, here and offline, and whether the same came of it.

What is compared: the model's lock, the data file's hash, every answer with its token ids, and the time. The verdict
lies as `reproduction.json` in the new run's folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import files, paths, table
from pipeline.device.host import Host
from pipeline.errors import AccuracyError, IntegrityError
from pipeline.model import fetch as model_setup
from pipeline.model import lock
from pipeline.prepare import board_checks, doctor
from pipeline.record import run_folder
from pipeline.record.outputs import read_outputs
from pipeline.runs import timed as running
from pipeline.runs.request import Request

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
    elapsed_s: float
    verdict: str
    """Of the new time, by what was seen of the board."""

    @property
    def same(self) -> bool:
        return not self.differing


def reproduce(name_or_path: str, host: Host, say: Callable[[str], object] = print) -> Reproduction:
    """Raises UsageError (U501 no finished run there), IntegrityError (M601 another model), and what a run raises."""
    folder = _folder(name_or_path)
    recorded = run_folder.finished_manifest(folder)
    os.environ["HF_HUB_OFFLINE"] = "1"  # whatever is missing must not come from elsewhere now
    say(doctor.table(board_checks.board_results(host)))
    request = Request(**recorded["request"])
    model = model_setup.resolve(request.model, say)
    root = lock.verify(model, full=True).root
    if root != recorded["model"]["lock_sha256"]:
        raise IntegrityError(
            "M601",
            "the model here is not the one of the run",
            where=paths.shown(model),
            expected=recorded["model"]["lock_sha256"],
            actual=root,
            fix="fetch the revision that the run names",
        )
    done = running.run(request, say)
    again = json.loads((done.folder / "manifest.json").read_text(encoding="utf-8"))
    if again["dataset"]["sha256"] != recorded["dataset"]["sha256"]:
        raise IntegrityError(
            "M602",
            "the data file here is not the one of the run",
            where=request.dataset,
            expected=recorded["dataset"]["sha256"],
            actual=again["dataset"]["sha256"],
            fix="bring the same file",
        )
    result = Reproduction(
        of=str(folder),
        folder=done.folder,
        rows=done.rows,
        differing=_differing(read_outputs(folder), read_outputs(done.folder)),
        recorded_s=recorded["elapsed_s"],
        elapsed_s=done.elapsed_s,
        verdict=done.verdict.state,
    )
    _write(result)
    return result


def text(result: Reproduction) -> str:
    time = f"{result.elapsed_s:.2f} s, {result.verdict}"
    if result.recorded_s:
        time += f"; recorded {result.recorded_s:.2f} s, {result.elapsed_s / result.recorded_s - 1:+.1%}"
    lines = [
        ("answers", f"{result.rows - len(result.differing)} of {result.rows} are the same, to the token"),
        ("time", time),
        ("written", paths.shown(result.folder / NAME)),
    ]
    head = "REPRODUCED" if result.same else "NOT REPRODUCED"
    return table.labelled(head, lines)


def conclude(result: Reproduction) -> None:
    """Raises AccuracyError (A501) when answers differ. A time is judged by people, who know both boards."""
    if not result.same:
        raise AccuracyError(
            "A501",
            "the run was not reproduced",
            where=f"rows {', '.join(map(str, result.differing[:10]))}",
            expected="the recorded answers",
            actual=f"{len(result.differing)} of {result.rows} differ",
            fix="compare the manifests of both runs: environment, dtype, device",
        )


def _folder(name_or_path: str) -> Path:
    path = Path(name_or_path).expanduser()
    return path if path.is_dir() else paths.runs() / name_or_path


def _differing(recorded: list[dict[str, Any]], found: list[dict[str, Any]]) -> tuple[int, ...]:
    was, now = ({row["index"]: row for row in rows} for rows in (recorded, found))
    return tuple(index for index in sorted(was.keys() | now.keys()) if was.get(index) != now.get(index))


def _write(result: Reproduction) -> None:
    told = {"schema": SCHEMA, "same": result.same, **asdict(result), "folder": result.folder.name}
    files.write_json(result.folder / NAME, told)
