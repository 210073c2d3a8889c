"""What a job does on its board: one run of one submission in a fresh container, and its outcome.

    python -m pipeline.contest.judge.work ATTEMPT

The run's own folder lies on the board's disk, since the clock looks at it every millisecond; copies go to the shared
one.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.check import FAIL, INTEGRITY, CheckResult, unknown
from pipeline.contest.archive.unpack import Unpacked
from pipeline.contest.checks import read_submitted
from pipeline.contest.checks.submitted import Submitted
from pipeline.contest.format import RUN
from pipeline.contest.judge import board_ready, classes, measured_file, plan
from pipeline.contest.judge.plan import Plan, unpacked_folder
from pipeline.contest.rerun.measure import Caps
from pipeline.contest.verify.again import process as launch
from pipeline.contest.verify.again.once import once
from pipeline.device import host as hosts
from pipeline.files import sha256_of
from pipeline.queues import job
from pipeline.queues.job import NODE


def main(attempt: Path) -> str:
    place = attempt.parents[2]
    made = plan.read(place)
    assert made is not None, f"no plan in {place}"
    return job.run(attempt, lambda folder: work(folder, made, place), classes.ALLOWED)


def work(attempt: Path, made: Plan, place: Path) -> dict[str, Any]:
    began_s, entry = time.monotonic(), made.entry(attempt.parent.name)
    launch.check_docker()
    folder = unpacked_folder(place, entry)
    submission, _ = read_submitted.read_submission(folder)
    manifest, _ = read_submitted.read_manifest(folder / RUN)
    data, model = Path(made.data), Path(made.model)
    if submission is None or manifest is None or not model.is_dir() or sha256_of(data) != made.data_sha256:
        return {"kind": NODE, "why": "submission, data or model are not on this board as planned"}
    told = Submitted(folder, submission, manifest, ())
    image, found = launch.image(told, Unpacked(folder.name, folder, {}))
    if image is None:
        kind = classes.WRONG_FORM if found.state == FAIL else classes.DID_NOT_START
        return {"kind": kind, "why": found.found, "image": _plain(found)}
    host = hosts.current()
    waited = board_ready.wait(host)
    if waited.why:
        return {"kind": NODE, "why": waited.why}
    with tempfile.TemporaryDirectory(prefix="judge-", ignore_cleanup_errors=True) as own:
        here = Path(own)
        (here / launch.RUNS).mkdir()
        started = launch.contained(told, image, data, model, here)
        one = once(started, data.read_bytes(), Caps(entry.limit_s), here)
        for name in ("stdout", "stderr", "judged"):
            if (here / name).is_dir():
                shutil.copytree(here / name, attempt / name)
            else:
                shutil.copyfile(here / name, attempt / name)
        measured_file.write(one, attempt)
        kind, why = classes.of(one)
        if was_not_made(one.measured.status, here):
            kind, why = NODE, f"no container could be made: {one.stderr_tail.strip()[-300:]}"
    board = one.measured.board[0].board
    return {
        "kind": kind, "why": why, "elapsed_s": one.elapsed_s, "ready_s": one.measured.ready_s,
        "wall_s": time.monotonic() - began_s, "cooled_s": waited.waited_s, "image": _plain(found),
        "device": board.title,
    }  # fmt: skip


def was_not_made(status: int | None, folder: Path) -> bool:
    """Whether docker or podman itself failed, before there was a container: a program's own 125 comes from one."""
    path = folder / "container-id"
    return status == 125 and not (path.is_file() and path.read_text().strip())


def _plain(found: CheckResult) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("id", "state", "expected", "found", "kind")}


def image_check(told: dict[str, Any] | None) -> CheckResult:
    """The check of the image, as `work` wrote it into its outcome."""
    if told is None:
        return unknown("rerun-image", INTEGRITY, "no board has looked", "the image with its digest")
    return CheckResult(told["id"], told["state"], told["expected"], told["found"], kind=told["kind"])


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
