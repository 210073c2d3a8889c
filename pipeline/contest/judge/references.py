"""Runs of the organiser's own submission on every board: first, last, and behind every twelfth run of it; and runs that
are done again, since their board drifted: the reference runs before and behind them are too far apart.

What is settled stays; a run's next turn has a key of its own, `<key>-again<turn>`, and the last turn counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.contest.judge import classes
from pipeline.contest.judge.plan import Plan
from pipeline.queues import attempts

EVERY = 12
MOST_TURNS = 3
"""Of one run, while its board drifts."""
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
    """The reference's time at a moment, between those before and after it, and how far these are
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


@dataclass(frozen=True)
class Turns:
    """A run of the plan, and what was done of it again."""

    keys: tuple[str, ...]
    """Its own first; the last one counts, settled or not."""
    spoilt_on: tuple[str, ...]
    """The boards of those that do not count."""

    @property
    def counts(self) -> str:
        return self.keys[-1]


def turns(plan: Plan, place: Path) -> list[Turns]:
    """In the plan's order."""
    known = reference_times(place)
    return [_turns(place, key, known) for key in plan.order]


def _turns(place: Path, key: str, known: Mapping[str, Sequence[Measurement]]) -> Turns:
    keys, spoilt_on = [key], []
    while len(keys) < MOST_TURNS:
        done = _measured(place, keys[-1])
        near = None if done is None else at(done[1], known.get(done[0], ()))
        if done is None or near is None or near[1] <= DRIFT:
            break
        spoilt_on.append(done[0])
        keys.append(f"{key}-again{len(keys) + 1}")
    return Turns(tuple(keys), tuple(spoilt_on))


def reference_times(place: Path) -> dict[str, list[Measurement]]:
    """The times of the reference runs of each board."""
    found: dict[str, list[Measurement]] = {}
    for run in sorted((place / "runs").glob("ref-*")):
        done = _measured(place, run.name)
        if done is not None:
            found.setdefault(done[0], []).append(done[1:])
    return found


def _measured(place: Path, key: str) -> tuple[str, float, float] | None:
    """The board, start and seconds of a run that ended well."""
    run = place / "runs" / key
    result: dict[str, Any] | None = attempts.result(run)
    if result is None or result["kind"] != classes.FINE or result.get("elapsed_s") is None:
        return None
    started = attempts.read(run / str(result["attempt"]) / attempts.STARTED) or {}
    return str(result["node"]), float(started.get("at_s", 0.0)), float(result["elapsed_s"])
