"""Names of shards as runs of a queue, and the kinds of their outcomes.

`s<number>-t<turn>`: a shard that was stopped, or given up, has a settled run; whoever goes on begins the next turn.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

from pipeline.queues import attempts

FINE, REFUSED, STOPPED = "ok", "refused", "stopped"


def number_of(key: str) -> int:
    return int(key.partition("-")[0].removeprefix("s"))


def current(runs: Path, number: int) -> str:
    """The turn of a shard that is fine, or not settled."""
    for turn in count(1):
        result = attempts.result(runs / (key := f"s{number}-t{turn}"))
        if result is None or result["kind"] == FINE:
            return key
    raise AssertionError


def attempts_of(runs: Path, key: str) -> list[Path]:
    """The folders of all attempts of this shard, in all turns."""
    found = sorted(runs.glob(f"s{number_of(key)}-t*/attempt-*"))
    return [folder for folder in found if attempts.NAME.fullmatch(folder.name)]
