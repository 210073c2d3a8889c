"""A submission run again, several times, each in a process of its own, under the organiser's clock (`contest/rerun`).

In a container of the submission's own image, behind walls (`container.stranger`), or, where that is asked for, from its
source on this machine: then only a fresh process and folder lie between a stranger's code and the organiser's files.
On the submission's data, or on other data that no team has seen: then form, score and reference are of that file.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.check import INVALID_RUN, CheckResult, listed, plain, unknown
from pipeline.contest.archive.unpack import Unpacked
from pipeline.contest.checks.answer_checks import Accuracy
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.submitted import Submitted
from pipeline.contest.rerun.measure import Caps
from pipeline.contest.verify.again import checks as rerun_checks
from pipeline.contest.verify.again import process as launch
from pipeline.contest.verify.again.checks import ENDED_WELL
from pipeline.contest.verify.again.once import One, once
from pipeline.errors import UsageError
from pipeline.prepare import container

MOST_TIMES = 100
LEAST_LIMIT_S, MOST_LIMIT_S, LIMIT_FACTOR = 1800.0, 86_400.0, 10.0
"""Time limit of one run: LIMIT_FACTOR times the claimed load, warm-up and section, held between the two bounds."""


@dataclass(frozen=True)
class Request:
    times: int
    here: bool
    """Whether to run from the source on this machine, without a container."""
    done: tuple[One, ...] | None = None
    """Runs that were made elsewhere, on a farm: none is made here."""
    noted: tuple[CheckResult, ...] = ()
    """What was checked there beside."""


@dataclass(frozen=True)
class Rerun:
    how: str
    command: str
    """Command line of the first run."""
    data: str
    """Name of the data file that was answered."""
    data_sha256: str | None
    prompts: int
    accuracy: Accuracy | None
    """Of the first run that left answers, as the organiser counts it."""
    claimed_s: float
    runs: tuple[One, ...]
    differing: tuple[int, ...]
    """Rows that at least one run answered differently from the submission, or, on other data, from the first run."""
    checks: tuple[CheckResult, ...]

    @property
    def elapsed_s(self) -> list[float]:
        return [one.elapsed_s for one in self.runs if one.elapsed_s is not None]

    def as_json(self) -> dict[str, Any]:
        times = self.elapsed_s
        return {
            "how": self.how,
            "clock": "the organiser's",
            "command": self.command,
            "data": self.data,
            "data_sha256": self.data_sha256,
            "prompts": self.prompts,
            "accuracy": self.accuracy and self.accuracy.as_json(),
            "times": len(self.runs),
            "elapsed_s": times,
            "median_s": median(times) if times else None,
            "spread": (max(times) - min(times)) / median(times) if times else None,
            "claimed_s": self.claimed_s,
            "ratio": median(times) / self.claimed_s if times else None,
            "differing": list(self.differing),
            "devices": sorted({one.measured.board[0].board.title for one in self.runs}),
            "runs": [_as_json(one) for one in self.runs],
        }


def request(times: int | None, here: bool) -> Request:
    """The request for `times` runs. Raises UsageError (U612) for a number out of range."""
    if not times or not 1 <= times <= MOST_TIMES:
        raise UsageError(
            "U612",
            "--times, how often to run it again, is out of range",
            expected=f"1 to {MOST_TIMES}",
            actual=times,
            fix="give 3",
        )
    return Request(times, here)


def check_possible(request: Request) -> None:
    """Raise EnvironmentProblem (E611, E612) if a container is requested and nothing here can run one."""
    if not request.here and request.done is None:
        launch.check_docker()


def rerun(told: Submitted, unpacked: Unpacked, organiser: Organiser, request: Request, out: Path) -> Rerun:
    """Run the submission `request.times` times and check it against its claims. Folders stay in `out`/rerun."""
    manifest = told.manifest
    data, model = organiser.data(manifest.dataset.name), organiser.model(manifest.model.name)
    claimed_s, how = manifest.elapsed_s, "source" if request.here else "container"
    of_data: tuple[str, str | None, int] = (
        ("", None, 0) if data is None else (data.path.name, data.sha256, len(data.rows))
    )
    if data is None or model is None or model.folder is None:
        missing = listed(["data"] * (data is None) + ["model"] * (model is None or model.folder is None))
        stopped = unknown("rerun", INVALID_RUN, f"the organiser's {missing} is not on this disk", ENDED_WELL)
        return Rerun(how, "", *of_data, None, claimed_s, (), (), (stopped,))
    if request.done is not None:
        checks, differing = (
            rerun_checks.checks(told, request.done, organiser, data, here=False) if request.done else ((), ())
        )
        accuracy, results = rerun_checks.accuracy(told, request.done, organiser), (*request.noted, *checks)
        return Rerun(how, "", *of_data, accuracy, claimed_s, request.done, differing, results)
    image, found = (None, None) if request.here else launch.image(told, unpacked)
    if found is not None and image is None:
        nothing = unknown("rerun", INVALID_RUN, "no image to run", ENDED_WELL)
        return Rerun(how, "", *of_data, None, claimed_s, (), (), (found, nothing))
    place = (out / "rerun").resolve()  # the runs' own working folder is another
    shutil.rmtree(place, ignore_errors=True)  # of an earlier verification
    asked_s = LIMIT_FACTOR * (manifest.phases_s.load + manifest.phases_s.warm_up + claimed_s)
    caps = Caps(limit_s=max(LEAST_LIMIT_S, min(asked_s, MOST_LIMIT_S)))
    content, first, runs = data.path.read_bytes(), "", []
    for number in range(1, request.times + 1):
        folder = place / str(number)
        (folder / launch.RUNS).mkdir(parents=True)
        started = (
            launch.here(told, unpacked, data.path, model.folder, folder)
            if image is None
            else launch.contained(told, image, data.path, model.folder, folder)
        )
        first = first or container.text(started.command)
        runs.append(once(started, content, caps, folder))
    checks, differing = rerun_checks.checks(told, runs, organiser, data, here=request.here)
    accuracy = rerun_checks.accuracy(told, runs, organiser)
    results = (*([found] if found else []), *checks)
    return Rerun(how, plain(first), *of_data, accuracy, claimed_s, tuple(runs), differing, results)


def _as_json(one: One) -> dict[str, Any]:
    measured, seen = one.measured, one.seen
    return {
        "status": measured.status,
        "elapsed_s": measured.elapsed_s,
        "ready_s": measured.ready_s,
        "own_s": None if one.manifest is None else one.manifest.elapsed_s,
        "wrong": [plain(each) for each in measured.wrong],
        "board": None if seen is None else {"state": seen.state, "reasons": seen.reasons, "notes": seen.notes},
        "folder": one.folder.name,
        "stdout_tail": one.stdout_tail,
        "stderr_tail": one.stderr_tail,
    }
