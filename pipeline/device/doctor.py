"""`invoke doctor`: everything that can spoil a run, looked at before it. With --fix, mended where that is possible."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from pipeline.device import board, checks, software
from pipeline.device.checks import FAIL, OK, WARN, Check
from pipeline.device.host import Host
from pipeline.errors import EnvironmentProblem, PipelineError

Say = Callable[[str], object]

WIDTHS = (56, 36, 4)
"""Columns of what was found and of what is wanted, where it is wrapped; then the state."""


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
    name_width = max(len(check.name) for check in found)
    widths = (name_width, *WIDTHS)
    lines = [_row(("check", "found", "wanted", ""), widths)]
    for check in found:
        cells = [textwrap.wrap(cell, width) for cell, width in zip(_cells(check), widths, strict=False)]
        lines += [_row(parts, widths) for parts in zip_longest(*cells, fillvalue="")]
        if check.state != OK and check.remedy:
            indent = " " * (name_width + 4)
            lines += textwrap.wrap(check.remedy, sum(WIDTHS), initial_indent=f"{indent}do: ", subsequent_indent=indent)
    counts = {state: sum(check.state == state for check in found) for state in (OK, WARN, FAIL)}
    return "\n".join([*lines, "", "  " + ", ".join(f"{number} {state}" for state, number in counts.items())])


def _cells(check: Check) -> tuple[str, str, str, str]:
    return check.name, check.found, check.wanted, check.state


def _row(parts: tuple[str, ...], widths: tuple[int, ...]) -> str:
    return "  ".join(("", *(f"{part:<{width}}" for part, width in zip(parts, (*widths, 0), strict=False)))).rstrip()


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
