"""A submission run again, several times, each in a process of its own: do the same answers come, in the same time?

In a container of the submission's own image, behind walls (`container.stranger`), or, where that is asked for, from its
source on this machine: then only a fresh process and folder lie between a stranger's code and the organiser's files.

When times count as different follows MLPerf's audit, which calls a result materially different from 2 % on
(mlcommons/inference_policies, audit rules); more between the runs of one image, and nothing can be said.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.check import ACCURACY, HUMAN, INVALID_RUN, CheckResult, decided, listed, plain, unknown
from pipeline.contest.archive.unpack import Unpacked
from pipeline.contest.verify import read_submitted, rerun_process
from pipeline.contest.verify.answer_checks import SAME_SHARE
from pipeline.contest.verify.organiser import Organiser
from pipeline.contest.verify.submitted import Answer, Manifest, Submitted
from pipeline.errors import UsageError
from pipeline.prepare import container

DIFFERENT = 0.02
MOST_TIMES = 100
LEAST_LIMIT_S, MOST_LIMIT_S, LIMIT_FACTOR = 1800.0, 86_400.0, 10.0
"""Time limit of one run: LIMIT_FACTOR times the claimed load, warm-up and section, held between the two bounds."""
MOST_OUTPUT_BYTES = 1 << 30
TAIL_BYTES = 4096


@dataclass(frozen=True)
class Request:
    times: int
    here: bool
    """Whether to run from the source on this machine, without a container."""


@dataclass(frozen=True)
class One:
    """The outcome of one of the runs."""

    status: int | None
    """Exit status; None if the run did not end in time."""
    elapsed_s: float | None
    """Time of the timed section; None if the run left no manifest that can be read."""
    folder: Path
    stdout_tail: str
    stderr_tail: str
    manifest: Manifest | None
    answers: tuple[Answer, ...] | None

    def as_json(self) -> dict[str, Any]:
        outcome = {"status": self.status, "elapsed_s": self.elapsed_s, "folder": self.folder.name}
        return {**outcome, "stdout_tail": self.stdout_tail, "stderr_tail": self.stderr_tail}


@dataclass(frozen=True)
class Rerun:
    how: str
    command: str
    """Command line of the first run."""
    claimed_s: float
    runs: tuple[One, ...]
    differing: tuple[int, ...]
    """Rows that at least one run answered differently from the submission."""
    checks: tuple[CheckResult, ...]

    @property
    def elapsed_s(self) -> list[float]:
        return [one.elapsed_s for one in self.runs if one.elapsed_s is not None]

    def as_json(self) -> dict[str, Any]:
        times = self.elapsed_s
        return {
            "how": self.how,
            "command": self.command,
            "times": len(self.runs),
            "elapsed_s": times,
            "median_s": median(times) if times else None,
            "spread": (max(times) - min(times)) / median(times) if times else None,
            "claimed_s": self.claimed_s,
            "ratio": median(times) / self.claimed_s if times else None,
            "differing": list(self.differing),
            "runs": [one.as_json() for one in self.runs],
        }


def request(times: int | None, here: bool) -> Request:
    """The request for `times` runs. Raises UsageError (U612) for a number out of range."""
    if not times or not 1 <= times <= MOST_TIMES:
        raise UsageError(
            "U612", "--times is how often to run it again", expected=f"1 to {MOST_TIMES}", actual=times, fix="give 3"
        )
    return Request(times, here)


def check_possible(request: Request) -> None:
    """Raise EnvironmentProblem (E611, E612) if a container is requested and docker cannot run one."""
    if not request.here:
        rerun_process.check_docker()


def rerun(submitted: Submitted, unpacked: Unpacked, organiser: Organiser, request: Request, out: Path) -> Rerun:
    """Run the submission `asked.times` times and check it against its claims. Folders stay in `out`/rerun."""
    manifest = submitted.manifest
    data, model = organiser.data(manifest.dataset.name), organiser.model(manifest.model.name)
    claimed_s, how = manifest.elapsed_s, "source" if request.here else "container"
    expected = f"{request.times} runs that end well"
    if data is None or model is None or model.folder is None:
        missing = listed(["data"] * (data is None) + ["model"] * (model is None or model.folder is None))
        stopped = unknown("rerun", INVALID_RUN, f"the organiser's {missing} is not on this disk", expected)
        return Rerun(how, "", claimed_s, (), (), (stopped,))
    image, image_result = (None, None) if request.here else rerun_process.image(submitted, unpacked)
    if image_result is not None and image is None:
        return Rerun(
            how, "", claimed_s, (), (), (image_result, unknown("rerun", INVALID_RUN, "no image to run", expected))
        )
    place = (out / "rerun").resolve()  # the runs' own working folder is another
    shutil.rmtree(place, ignore_errors=True)  # of an earlier verification
    expected_s = LIMIT_FACTOR * (manifest.phases_s.load + manifest.phases_s.warm_up + claimed_s)
    limit_s = max(LEAST_LIMIT_S, min(expected_s, MOST_LIMIT_S))
    first, runs = "", []
    for number in range(1, request.times + 1):
        folder = place / str(number)
        (folder / rerun_process.RUNS).mkdir(parents=True)
        if image is None:
            command, start = rerun_process.here(submitted, unpacked, data.path, model.folder, folder)
        else:
            command, start = rerun_process.contained(submitted, image, data.path, model.folder, folder)
        first = first or container.text(command)
        runs.append(_one(start, folder, limit_s))
    differing = sorted(
        {index for one in runs if one.answers is not None for index in _differing(submitted, one.answers)}
    )
    ended = _ended(runs, submitted, expected, request.here)
    checks = [
        *([image_result] if image_result else []),
        ended,
        _outputs(submitted, runs, differing),
        _times(submitted, runs),
    ]
    return Rerun(how, plain(first), claimed_s, tuple(runs), tuple(differing), tuple(checks))


def _one(start: rerun_process.Start, folder: Path, limit_s: float) -> One:
    status = start(folder, limit_s)
    folders = [path for path in (folder / rerun_process.RUNS).iterdir() if path.is_dir() and not path.is_symlink()]
    manifest = answers = None
    if len(folders) == 1 and all(_is_readable(folders[0] / name) for name in ("manifest.json", "outputs.jsonl")):
        manifest, answers = read_submitted.read_manifest(folders[0])[0], read_submitted.read_answers(folders[0])[0]
    elapsed_s = None if manifest is None else manifest.elapsed_s
    return One(status, elapsed_s, folder, _tail(folder / "stdout"), _tail(folder / "stderr"), manifest, answers)


def _is_readable(path: Path) -> bool:
    """Whether it is a plain file of sensible size: a stranger's program may leave a link, a pipe or an endless file."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size <= MOST_OUTPUT_BYTES


def _ended(runs: Sequence[One], submitted: Submitted, expected: str, here: bool) -> CheckResult:
    """Check that every run ended well, on the same data and weights; status 8 (a busy board) has its answers too."""
    bad = [one for one in runs if one.status not in {0, 8} or one.manifest is None or one.answers is None]
    if bad:
        # Without the image, what is missing may be this machine's.
        fine = None if here and bad[0].status in {3, 5} else False
        return decided("rerun", INVALID_RUN, fine, f"{len(bad)} of {len(runs)} failed: {_trouble(bad[0])}", expected)
    manifests = [one.manifest for one in runs if one.manifest is not None]
    same = all(
        (manifest.dataset.sha256, manifest.model.lock_sha256)
        == (submitted.manifest.dataset.sha256, submitted.manifest.model.lock_sha256)
        for manifest in manifests
    )
    return decided(
        "rerun", INVALID_RUN, same, f"{len(runs)} ended{', on other data or weights' * (not same)}", expected
    )


def _trouble(one: One) -> str:
    if one.status is None:
        return "no end in time"
    if one.status in {0, 8}:
        return "it ended and left no run that can be read"
    last = (one.stderr_tail.strip() or one.stdout_tail.strip() or "no word").splitlines()[-1]
    return f"status {one.status}: {last}"


def _differing(submitted: Submitted, again: Sequence[Answer]) -> list[int]:
    was = {answer.index: (answer.text, answer.token_ids) for answer in submitted.answers}
    now = {answer.index: (answer.text, answer.token_ids) for answer in again}
    return [index for index in was.keys() | now.keys() if was.get(index) != now.get(index)]


def _outputs(submitted: Submitted, runs: Sequence[One], differing: Sequence[int]) -> CheckResult:
    most = SAME_SHARE.get(submitted.manifest.dtype, 0.0)
    expected = f"the submission's answers, but for rounding: {most:.1%} of rows"
    if not any(one.answers for one in runs):
        return unknown("rerun-outputs", ACCURACY, "no run answered", expected)
    share = len(differing) / max(1, len(submitted.answers))
    actual = f"{len(differing)} of {len(submitted.answers)} rows differ" + f": {listed(differing)}" * bool(differing)
    return decided("rerun-outputs", ACCURACY, share <= most, actual, expected)


def _times(submitted: Submitted, runs: Sequence[One]) -> CheckResult:
    """Check that the median is not materially slower than claimed; decided only on the same device, undisturbed."""
    claimed_s, expected = submitted.manifest.elapsed_s, f"at most {DIFFERENT:.0%} slower than claimed"
    done = [one.manifest for one in runs if one.manifest is not None]
    if not done:
        return unknown("rerun-time", INVALID_RUN, "no run has a time", expected)
    times = [each.elapsed_s for each in done]
    middle = median(times)
    actual = f"{listed(f'{t:.3f}' for t in times)} s, claimed {claimed_s:.3f}: {middle / claimed_s - 1:+.1%}"
    other = [each for each in done if _device(each) != _device(submitted.manifest)]
    if other or not submitted.manifest.board.before.board.is_jetson:
        return CheckResult(
            "rerun-time", HUMAN, expected, f"{actual}; not both on the contest's kind of device", kind=INVALID_RUN
        )
    if any(each.verdict.state == "INVALID" for each in done):
        return unknown("rerun-time", INVALID_RUN, f"{actual}; this board was held back", expected)
    if max(times) - min(times) > DIFFERENT * middle:
        return unknown("rerun-time", INVALID_RUN, f"{actual}; the runs themselves are further apart", expected)
    return decided("rerun-time", INVALID_RUN, middle <= (1 + DIFFERENT) * claimed_s, actual, expected)


def _device(manifest: Manifest) -> tuple[object, ...]:
    seen = manifest.board.before.board
    return (
        seen.module,
        seen.l4t,
        manifest.environment.gpu,
        manifest.environment.processor,
        manifest.device,
        manifest.dtype,
    )


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return "".join(each if each.isprintable() or each == "\n" else "·" for each in text)
