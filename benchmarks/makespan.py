"""How long a farm takes for all runs of a contest, simulated through the ordering that `invoke judge` uses.

    python benchmarks/makespan.py

Nothing of it is measured. Assumed: a submission's run takes 20 s to 40 min, log-uniform, known to 1 %; beside it 60 s
of loading and 45 s of cooling down and preparing; one run at a time on a board; no board dies. The bound is the larger
of all work over all boards, and the longest run. `random` takes all runs in random order, `by team` as they came in.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import table  # noqa: E402
from pipeline.contest.judge import ordering  # noqa: E402
from pipeline.table import Column  # noqa: E402

SHORTEST_S, LONGEST_S = 20.0, 2400.0
LOAD_S, BESIDE_S, NOISE = 60.0, 45.0, 0.01
DRAWS = 200
SIZES = ((47, 3, 1), (47, 3, 4), (47, 3, 16), (1000, 3, 100))
"""Submissions, runs of each, boards."""

Order = Callable[[Mapping[str, float], int, int], list[str]]


def by_team(expected_s: Mapping[str, float], repeat: int, seed: int) -> list[str]:
    return [f"{name}-r{number}" for name in sorted(expected_s) for number in range(1, repeat + 1)]


def at_random(expected_s: Mapping[str, float], repeat: int, seed: int) -> list[str]:
    keys = by_team(expected_s, repeat, seed)
    random.Random(seed).shuffle(keys)
    return keys


ORDERS: dict[str, Order] = {"three rounds": ordering.rounds, "by team": by_team, "random": at_random}


def draw(submissions: int, chance: random.Random) -> dict[str, float]:
    low, high = math.log(SHORTEST_S), math.log(LONGEST_S)
    return {
        f"s{number:04}": LOAD_S + BESIDE_S + math.exp(chance.uniform(low, high)) for number in range(submissions)
    }  # fmt: skip


def simulate(submissions: int, repeat: int, boards: int, draws: int) -> tuple[float, dict[str, list[float]]]:
    """The mean bound in hours, and by order how far each draw was over its own bound, as a share."""
    bounds, over = [], {name: [] for name in ORDERS}  # type: tuple[list[float], dict[str, list[float]]]
    for seed in range(draws):
        chance = random.Random(seed)
        expected_s = draw(submissions, chance)
        took_s = {key: expected_s[key.partition("-")[0]] * (1 + chance.uniform(-NOISE, NOISE))
                  for key in by_team(expected_s, repeat, seed)}  # fmt: skip
        bound_s = max(sum(took_s.values()) / boards, *took_s.values())
        bounds.append(bound_s / 3600)
        for name, order in ORDERS.items():
            end_s = ordering.makespan_s([took_s[key] for key in order(expected_s, repeat, seed)], boards)
            over[name].append(end_s / bound_s - 1)
    return mean(bounds), over


def main() -> None:
    rows = []
    for submissions, repeat, boards in SIZES:
        draws = DRAWS if submissions < 100 else DRAWS // 10
        bound_h, over = simulate(submissions, repeat, boards, draws)
        shares = [f"{mean(each):+.1%} (p95 {sorted(each)[int(0.95 * len(each))]:+.1%})" for each in over.values()]
        rows.append((f"{submissions:,} x {repeat}", str(boards), f"{bound_h:.2f}", *shares))
    columns = (Column("runs"), Column("boards", right=True), Column("bound h", right=True))
    print(table.text((*columns, *(Column(name) for name in ORDERS)), rows))


if __name__ == "__main__":
    main()
