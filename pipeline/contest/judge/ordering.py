"""In which order runs are done, and how long that takes on so many boards.

Three rounds, each with every submission once: the first ones in random order, the last one longest first, and nobody
waits between rounds. So no submission's runs lie together, and no board ends long after the others.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence


def rounds(expected_s: Mapping[str, float], repeat: int, seed: int) -> list[str]:
    """Keys `<submission>-r<round>`, in order."""
    chance = random.Random(seed)
    order = []
    for number in range(1, repeat + 1):
        names = sorted(expected_s)
        chance.shuffle(names)
        if number == repeat:
            names.sort(key=lambda name: -expected_s[name])
        order += [f"{name}-r{number}" for name in names]
    return order


def makespan_s(durations_s: Sequence[float], boards: int) -> float:
    """When the last run ends, if each board takes the next one when it is free."""
    ends = [0.0] * max(1, boards)
    heapq.heapify(ends)
    for duration_s in durations_s:
        heapq.heappush(ends, heapq.heappop(ends) + duration_s)
    return max(ends)
