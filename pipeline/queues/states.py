"""What is to be done for a run, as a function of its files and the queue's list; nothing is remembered.

planned --submit--> queued --started.json--> running --outcome.json--> ended --link--> settled
   ^                  | gone from the list                 | gone, no outcome |
   +------------------+------------ fewer than MOST_STARTED have started <----+--> else given up
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

MOST_STARTED = 3
"""Attempts that have begun; behind the last one the run is settled whatever came of it."""
MOST_ATTEMPTS = 10
"""With those that a queue took and lost before they began."""

Do = Literal["nothing", "wait", "submit", "submit again", "cancel", "settle", "give up"]


@dataclass(frozen=True)
class Seen:
    """An attempt as its files and the queue's list show it."""

    number: int
    submitted: bool
    """Whether the queue said that it has the job."""
    started: bool
    kind: str | None
    """The kind of its outcome; None: there is none."""
    listed: bool = False
    held: bool = False
    """Listed, and the queue will not start it by itself."""
    missing_s: float = 0.0
    """How long the list has lacked it."""
    vanished: bool = False
    """Listed as running for long, and no process of it has come to a board: so it is in Slurm's list, until its time is
    over, where the controller was killed while it launched the job."""


@dataclass(frozen=True)
class Step:
    do: Do
    attempt: int = 0


def next_step(settled: bool, attempts: Sequence[Seen], allowed: Mapping[str, int], grace_s: float) -> Step:
    """`allowed` says how often a kind of outcome may be seen before it is the run's: once unless it is named."""
    if settled:
        useless = [each for each in attempts if each.listed and not each.started]
        return Step("cancel", useless[0].number) if useless else Step("nothing")
    for each in attempts:
        if each.kind is not None and settles(attempts, each, allowed):
            return Step("settle", each.number)
    for each in attempts:
        if each.kind is None and (each.listed or each.missing_s < grace_s):
            return Step("cancel" if (each.held or each.vanished) and not each.started else "wait", each.number)
    began = sum(each.started for each in attempts)
    if began >= MOST_STARTED or len(attempts) >= MOST_ATTEMPTS:
        return Step("give up")
    if attempts and not attempts[-1].submitted and not attempts[-1].started:
        return Step("submit again", attempts[-1].number)
    return Step("submit", attempts[-1].number + 1 if attempts else 1)


def settles(attempts: Sequence[Seen], ended: Seen, allowed: Mapping[str, int]) -> bool:
    """Whether this attempt's outcome is the run's, or another attempt may do better."""
    times = Counter(each.kind for each in attempts if each.number <= ended.number)[ended.kind]
    began = sum(each.started for each in attempts if each.number <= ended.number)
    return times >= allowed.get(ended.kind or "", 1) or began >= MOST_STARTED
