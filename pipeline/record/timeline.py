"""When each part of a run happened, on the one clock that all its intervals are measured with.

For the manifest: whoever verifies a run sees that the data came after the warm-up, that sections follow one another,
and that the telemetry covers them. For the report: `passes.csv`, a line a pass of the last timed section.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.engine.pass_log import PassLog

PASSES = "passes.csv"


@dataclass(frozen=True)
class Interval:
    start_s: float
    elapsed_s: float

    def since(self, zero_s: float) -> list[float]:
        """Start and end, counted from a moment: the clock's own zero says nothing to anybody."""
        return [self.start_s - zero_s, self.start_s - zero_s + self.elapsed_s]


def describe(zero_s: float, timed: Sequence[Interval], **parts: Interval) -> dict[str, Any]:
    """Seconds after `zero_s`: name to start and end; `timed` to a list of those."""
    return {
        **{name: interval.since(zero_s) for name, interval in parts.items()},
        "timed": [section.since(zero_s) for section in timed],
    }


@dataclass(frozen=True)
class Pass:
    """Seconds after the engine was called, as in `PassLog`."""

    end_s: float
    handed_on_s: float
    prompt_rows: int
    answer_rows: int

    @property
    def rows(self) -> int:
        return self.prompt_rows + self.answer_rows


def write_passes(folder: Path, log: PassLog) -> None:
    """Write passes.csv, a line for each pass. Raises ResourceError (R101, R102)."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(field.name for field in fields(Pass))
    for end_s, handed_on_s, *rows in zip(log.end_s, log.handed_on_s, log.prompt_rows, log.answer_rows, strict=True):
        table.writerow([f"{end_s:.6f}", f"{handed_on_s:.6f}", *rows])
    with files.write_atomically(folder / PASSES, durable=False) as file:
        file.write(text.getvalue().encode())


def read_passes(folder: Path) -> list[Pass]:
    """The passes in a run's passes.csv. Raises OSError where there is no such file, ValueError where it is not one."""
    with open(folder / PASSES, encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    if not table or table[0] != [field.name for field in fields(Pass)] or any(len(row) != 4 for row in table):
        raise ValueError(f"{PASSES} has other columns")
    return [
        Pass(float(end), float(handed_on), int(prompt), int(answer)) for end, handed_on, prompt, answer in table[1:]
    ]
