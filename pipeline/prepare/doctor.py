"""`invoke doctor`: everything that can spoil a run, looked at before it. With --fix, mended where that is possible."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

from pipeline import table as tables
from pipeline.device import board
from pipeline.device.host import Host
from pipeline.errors import EnvironmentProblem, PipelineError
from pipeline.prepare import board_checks as checks
from pipeline.prepare import software_checks as software
from pipeline.prepare.board_checks import FAIL, OK, WARN, Check

Say = Callable[[str], object]

COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}
COLUMNS = (
    tables.Column("check"),
    tables.Column("found", wrap=56),
    tables.Column("wanted", wrap=36),
    tables.Column(colour=COLOURS.get),
)
REMEDY_WIDTH = 96


def examine(host: Host, model: str, dataset: str, say: Say = print) -> list[Check]:
    """Every check of the board and of what runs on it. Changes nothing."""
    seen = board.look(host)
    return [*checks.of_board(host), *software.of_software(seen, model, dataset, say)]


def mend(found: list[Check], say: Say = print) -> None:
    """Do what the checks offer, one after another; what cannot be done is said and left."""
    for check in found:
        if check.state == OK or check.fix is None:
            continue
        say(f"{check.name}: mending")
        try:
            outcome = check.fix()
        except (PipelineError, RuntimeError, OSError) as error:
            say(f"{check.name}: {error}")
        else:
            if isinstance(outcome, str):
                say(f"{check.name}: {outcome}")


def table(found: list[Check]) -> str:
    """Aligned: check, found, wanted, state; below each that is not ok, what to do."""
    head, *rows = tables.lay_out(
        COLUMNS,
        [(check.name, check.found, check.wanted, check.state) for check in found],
        tables.terminal_width(),
        tables.has_colours(),
    )
    indent = " " * (max(tables.display_width(check.name) for check in found) + 4)
    lines = [head]
    for check, row in zip(found, rows, strict=True):
        lines.append(row)
        if check.state != OK and check.remedy:
            lines += textwrap.wrap(check.remedy, REMEDY_WIDTH, initial_indent=f"{indent}do: ", subsequent_indent=indent)
    counts = {state: sum(check.state == state for check in found) for state in (OK, WARN, FAIL)}
    return "\n".join([*lines, "", "  " + ", ".join(f"{number} {state}" for state, number in counts.items())])


def as_json(found: list[Check]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [{key: getattr(check, key) for key in ("name", "found", "wanted", "state", "remedy")} for check in found]


def conclude(found: list[Check]) -> None:
    """Raises EnvironmentProblem (E310) when a check failed."""
    failed = [check for check in found if check.state == FAIL]
    if failed:
        raise EnvironmentProblem(
            "E310",
            f"{len(failed)} checks failed" if len(failed) > 1 else "a check failed",
            where=", ".join(check.name for check in failed),
            fix="do what stands beside each, or let invoke doctor --fix try",
        )
