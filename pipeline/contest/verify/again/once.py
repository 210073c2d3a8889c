"""One run of a submission's program by the organiser's clock, and what of it is looked at: copies, within bounds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.contest.checks import read_submitted
from pipeline.contest.checks.submitted import Answer, Manifest
from pipeline.contest.rerun.measure import Caps, Launch, Measured, measure
from pipeline.device import host as hosts
from pipeline.device import verdict

KEPT = {"manifest.json": 16 << 20, "telemetry.csv": 64 << 20, "run.log": 64 << 20, "passes.csv": 64 << 20}
"""What is looked at of a run's folder beside the answers, and how large it may be."""
TAIL_BYTES = 4096
JUDGED = Path("judged/run")


@dataclass(frozen=True)
class One:
    """The outcome of one of the runs."""

    folder: Path
    measured: Measured
    stdout_tail: str
    stderr_tail: str
    manifest: Manifest | None
    """None if the run left none that can be read; so for the answers."""
    answers: tuple[Answer, ...] | None

    @property
    def elapsed_s(self) -> float | None:
        """Seconds by the organiser's clock."""
        return self.measured.elapsed_s

    @property
    def seen(self) -> verdict.Verdict | None:
        """The organiser's own verdict on the board during the run."""
        seen = self.measured.recording
        return None if seen is None else verdict.judge(*self.measured.board, seen)


def once(started: Launch, content: bytes, caps: Caps, folder: Path) -> One:
    measured = measure(started, content, caps, hosts.current(), folder)
    _judged(measured, started.runs, folder)
    return read_again(folder, measured)


def read_again(folder: Path, measured: Measured) -> One:
    """The record that a run left in its folder."""
    judged = folder / JUDGED
    manifest = answers = None
    if (judged / "manifest.json").is_file() and measured.answers:
        manifest, answers = read_submitted.read_manifest(judged)[0], read_submitted.read_answers(judged)[0]
    return One(folder, measured, _tail(folder / "stdout"), _tail(folder / "stderr"), manifest, answers)


def _judged(measured: Measured, runs: Path, folder: Path) -> None:
    """The files that are judged, in a folder of the organiser's own: answers as they were copied, and copies of the
    rest."""
    judged = folder / JUDGED
    judged.mkdir(parents=True)
    (judged / "outputs.jsonl").write_bytes(measured.answers)
    for name, most in KEPT.items():
        path = runs / (measured.run or "-") / name
        # A stranger's program may leave a link, a pipe or an endless file. It has ended.
        if path.parent.is_symlink() or path.is_symlink() or not path.is_file() or path.stat().st_size > most:
            continue
        shutil.copyfile(path, judged / name)


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return "".join(each if each.isprintable() or each == "\n" else "·" for each in text)
