"""`invoke doctor`: everything that can spoil a run, looked at before it. With --fix, mended where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline import table as tables
from pipeline.check import FAIL, OK, WARN, CheckResult, State
from pipeline.device import board, telemetry, verdict
from pipeline.device.host import Host
from pipeline.errors import EnvironmentProblem, PipelineError
from pipeline.prepare.board_checks import board_results
from pipeline.prepare.software_checks import software_results
from pipeline.table import Say

COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}
COLUMNS = (
    tables.Column("check"),
    tables.Column("found", wrap=56),
    tables.Column("wanted", wrap=36),
    tables.Column(colour=COLOURS.get),
)
FIX_WIDTH = 96


def examine(host: Host, model: str, dataset: str, say: Say = print) -> list[CheckResult]:
    """Every check of the board and of what runs on it. Changes nothing."""
    before = telemetry.work(host)
    results = [*board_results(host), *software_results(board.look(host), model, dataset, say)]
    return [*results, _others(telemetry.others(before, telemetry.work(host)))]


def _others(share: float | None) -> CheckResult:
    """The share of the cores' time that other programs used while everything else was looked at."""
    expected = f"{verdict.MOST_OTHERS:.0%} of the processor at most"
    if share is None:
        return CheckResult("other programs", OK, expected, "cannot be seen here")
    busy = share > verdict.MOST_OTHERS
    state: State = WARN if busy else OK
    fix = "end them before a run: top shows which" * busy
    return CheckResult("other programs", state, expected, f"{share:.0%} of the processor", fix)


def mend(results: Sequence[CheckResult], say: Say = print) -> None:
    """Do what the checks offer, one after another; what cannot be done is said and left."""
    for result in results:
        if result.state == OK or result.mend is None:
            continue
        say(f"{result.id}: mending")
        try:
            outcome = result.mend()
        except (PipelineError, RuntimeError, OSError) as error:
            say(f"{result.id}: {error}")
        else:
            if isinstance(outcome, str):
                say(f"{result.id}: {outcome}")


def table(results: Sequence[CheckResult]) -> str:
    """Aligned: check, found, wanted, state; below each that is not ok, what to do."""
    width = tables.terminal_width()
    cells = [(each.id, each.found, each.expected, each.state) for each in results]
    head, *rows = tables.lay_out(COLUMNS, cells, width, tables.has_colours())
    indent = " " * (max(tables.display_width(each.id) for each in results) + 4)
    lines = [head]
    for each, row in zip(results, rows, strict=True):
        lines.append(row)
        if each.state != OK and each.fix:
            lines += tables.folded(each.fix, min(FIX_WIDTH, width or FIX_WIDTH), f"{indent}do: ", len(indent))
    counts = {state: sum(each.state == state for each in results) for state in (OK, WARN, FAIL)}
    return "\n".join([*lines, "", "  " + ", ".join(f"{number} {state}" for state, number in counts.items())])


def as_json(results: Sequence[CheckResult]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "name": each.id,
            "found": each.found,
            "wanted": each.expected,
            "state": each.state,
            "remedy": each.fix,
        }
        for each in results
    ]


def conclude(results: Sequence[CheckResult]) -> None:
    """End the command by its results. Raises EnvironmentProblem (E310) when a check failed."""
    failed = [each for each in results if each.state == FAIL]
    if failed:
        raise EnvironmentProblem(
            "E310",
            f"{len(failed)} checks failed" if len(failed) > 1 else "a check failed",
            where=", ".join(each.id for each in failed),
            fix="do what the table says below each, or try invoke doctor --fix",
        )
