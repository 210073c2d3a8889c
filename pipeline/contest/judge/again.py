"""Runs that are done again, since their board drifted: the reference runs before and behind them are too far apart.

What is settled stays; a run's next turn has a key of its own, `<key>-again<turn>`, and the last turn counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contest.judge import classes, references
from pipeline.contest.judge.plan import Plan
from pipeline.contest.judge.references import Measurement
from pipeline.queues import attempts

MOST_TURNS = 3


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
        near = None if done is None else references.at(done[1], known.get(done[0], ()))
        if done is None or near is None or near[1] <= references.DRIFT:
            break
        spoilt_on.append(done[0])
        keys.append(f"{key}-again{len(keys) + 1}")
    return Turns(tuple(keys), tuple(spoilt_on))


def reference_times(place: Path) -> dict[str, list[Measurement]]:
    """By board, what its reference runs took."""
    found: dict[str, list[Measurement]] = {}
    for run in sorted((place / "runs").glob("ref-*")):
        done = _measured(place, run.name)
        if done is not None:
            found.setdefault(done[0], []).append(done[1:])
    return found


def _measured(place: Path, key: str) -> tuple[str, float, float] | None:
    """Of a run that ended well: its board, when it began, the seconds of it."""
    run = place / "runs" / key
    result: dict[str, Any] | None = attempts.result(run)
    if result is None or result["kind"] != classes.FINE or result.get("elapsed_s") is None:
        return None
    started = attempts.read(run / str(result["attempt"]) / attempts.STARTED) or {}
    return str(result["node"]), float(started.get("at_s", 0.0)), float(result["elapsed_s"])
