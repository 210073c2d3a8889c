"""The loop around the scheduler: which pass is given to the device when, and when its results are taken in.

With `overlaps`, one pass runs while the next is put together, so that the device never waits for the host
where there is work that does not depend on what is still running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from pipeline.engine.scheduler import Scheduler
from pipeline.engine.state import Work

Started = TypeVar("Started")


def run(
    scheduler: Scheduler,
    start: Callable[[list[Work]], Started],
    tokens: Callable[[list[Work], Started], list[int]],
    overlaps: bool,
    budget_rows: Callable[[], int | None] = lambda: None,
) -> Iterator[list[int]]:
    """Work through a set; after each pass whose results were taken in, yields the prompts that it finished.

    `start` hands a pass to the device and may return before it is done; `tokens` waits for it and gives
    the choice of every output row, in order. `budget_rows` says what a pass may have now where memory is short.
    """
    running: tuple[list[Work], Started] | None = None
    while not scheduler.done:
        works = scheduler.next_pass(running is not None, budget_rows())
        started = (works, start(works)) if works else None
        if running is None and started is not None and overlaps:
            running = started
            continue
        over = running or started
        running = started if over is running else None
        # Without any pass, all that is next is to begin answers whose prompt is known.
        yield scheduler.accept(*((over[0], tokens(*over)) if over else ([], [])))
