"""Runs of the organiser's own submission on every board: first, last, and behind every twelfth run of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

EVERY = 12
DRIFT = 0.02
"""Between two reference runs of a board: more, and what ran between them cannot be compared."""


def due(begun: Mapping[str, int], up: Iterable[str], last: Iterable[str], turn: int = 1) -> list[tuple[str, str]]:
    """Keys of all reference runs that should be by now, with their boards. `begun`: how many runs began on a board;
    `last`: boards on which none is left to do, in the turn of the runs that were done there."""
    keys, last = [], set(last)
    for node in sorted(up):
        runs = begun.get(node, 0)
        keys += [(f"ref-{node}-{number + 1}", node) for number in range(1 + runs // EVERY)]
        keys += [(f"ref-{node}-last{turn if turn > 1 else ''}", node)] * (node in last)
    return keys


Measurement = tuple[float, float]
"""When it began, and what the clock said."""


def at(moment_s: float, references: Sequence[Measurement]) -> tuple[float, float] | None:
    """What the reference would have taken at a moment, between those before and behind it, and how far these are
    apart; None where there are none."""
    before = max((each for each in references if each[0] <= moment_s), default=None)
    behind = min((each for each in references if each[0] > moment_s), default=None)
    if before is None or behind is None:
        only = before or behind
        return None if only is None else (only[1], 0.0)
    share = (moment_s - before[0]) / (behind[0] - before[0])
    return before[1] + share * (behind[1] - before[1]), abs(behind[1] - before[1]) / min(before[1], behind[1])


def levelled(
    runs: Sequence[tuple[str, float, float]], references: Mapping[str, Sequence[Measurement]]
) -> tuple[list[float], float]:
    """The times of runs (board, moment, seconds) as the middle board would have taken, and the largest drift around
    one. Without references they stay as they are."""
    middle = [median(each[1] for each in known) for known in references.values() if known]
    times, worst = [], 0.0
    for node, moment_s, elapsed_s in runs:
        near = at(moment_s, references.get(node, ()))
        if near is None:
            times.append(elapsed_s)
            continue
        times.append(elapsed_s / near[0] * median(middle))
        worst = max(worst, near[1])
    return times, worst
