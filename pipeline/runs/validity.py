"""Checks after the timed sections: all outputs there, all repeats equal, the board in order; else InvalidRun."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.device.verdict import INVALID, Verdict
from pipeline.errors import InvalidRun
from pipeline.record.outputs import is_output


def check_materialised(outputs: Any, rows: int) -> None:
    """A lazy result would not have been timed. Raises InvalidRun (I101)."""
    fine = isinstance(outputs, list) and len(outputs) == rows
    fine = fine and all(is_output(out) for out in outputs)
    if not fine:
        raise InvalidRun(
            "I101",
            "the timed section did not end with all texts",
            expected=f"a list of {rows} outputs in pipe()'s form",
            actual=f"{type(outputs).__name__}",
            fix="report this: the time of this run means nothing",
        )


def check_repeats(repeats: list[list[Any]]) -> None:
    """Repeats must agree, or the time is not of one thing. Raises InvalidRun (I102)."""
    for turn, outputs in enumerate(repeats[1:], start=2):
        differing = [index for index, (a, b) in enumerate(zip_longest(repeats[0], outputs)) if a != b]
        if differing:
            raise InvalidRun(
                "I102",
                f"repeat {turn} gave other answers than the first",
                where=f"rows {', '.join(map(str, differing[:10]))}",
                expected="the same outputs",
                actual=f"{len(differing)} of {len(outputs)} rows differ",
                fix="in bfloat16 compare the two with a look at near ties; in float32, or where run.log says that "
                "answers depend on their prompts alone, report this",
            )


def check_verdict(verdict: Verdict | None, folder: Path) -> None:
    """Raise InvalidRun (I201) where the board spoilt the time; the run's folder is complete."""
    if verdict is not None and verdict.state == INVALID:
        raise InvalidRun(
            "I201",
            "the run ended, but its time does not count",
            where=paths.shown(folder),
            expected="a board in MAXN that nothing holds back",
            actual="; ".join(verdict.reasons),
            fix="invoke doctor says what to change; then run it again",
        )
