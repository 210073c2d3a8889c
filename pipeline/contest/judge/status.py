"""How far the runs are, from their files alone: no queue is asked, so nothing is disturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline import table
from pipeline.contest.judge import ordering, references
from pipeline.contest.judge.plan import Plan
from pipeline.queues import attempts
from pipeline.table import Column


@dataclass(frozen=True)
class Line:
    file: str
    runs: tuple[str, ...]
    """planned, queued, running on NODE, or the class of its result."""


@dataclass(frozen=True)
class Status:
    lines: tuple[Line, ...]
    boards: tuple[str, ...]
    """Those that have begun a run."""
    left_s: float
    """If those boards go on as they did."""

    @property
    def counted(self) -> Counter[str]:
        return Counter(each.split(" on ")[0] for line in self.lines for each in line.runs)


def look(plan: Plan, place: Path) -> Status:
    states, walls, boards, left = {}, [], set(), []
    keys = [each.counts for each in references.turns(plan, place)]
    for key in keys:
        run, entry = place / "runs" / key, plan.entry(key)
        result, made = attempts.result(run), attempts.of_run(run)
        boards |= {each.node for each in made if each.node}
        states[key] = _state(result, made)
        if result is None:
            left.append(entry.expected_s)
        elif result.get("wall_s"):
            walls.append(float(result["wall_s"]) / entry.expected_s)
    # How wrong the expectation was so far is how wrong it will be.
    pace = median(walls) if walls else 1.0
    lines = [Line(each.file, tuple(states[key] for key in keys if plan.entry(key) is each))
             for each in plan.entries]  # fmt: skip
    known = tuple(sorted(each for each in boards if each))
    return Status(tuple(lines), known, ordering.makespan_s([pace * each for each in left], max(1, len(known))))


def _state(result: dict[str, Any] | None, made: Sequence[attempts.Attempt]) -> str:
    if result is not None:
        return str(result["kind"])
    if not made:
        return "planned"
    if made[-1].started is not None:
        return f"{'ended' if made[-1].outcome else 'running'} on {made[-1].node}"
    return "queued"


def as_json(status: Status) -> dict[str, Any]:
    return {
        "counted": dict(status.counted), "boards": list(status.boards), "left_s": status.left_s,
        "submissions": [{"file": each.file, "runs": list(each.runs)} for each in status.lines],
    }  # fmt: skip


def text(status: Status) -> str:
    columns = (Column("submission", wrap=50), Column("runs", wrap=80))
    rows = [(each.file, ", ".join(each.runs)) for each in status.lines]
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(status.counted.items()))
    left = f"{status.left_s / 60:.0f} min on {max(1, len(status.boards))} board{'s' * (len(status.boards) > 1)}"
    return "\n".join(["", table.text(columns, rows), "", table.labelled(counted, [("left", f"about {left}")])])
