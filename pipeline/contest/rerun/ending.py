"""An end to what was started, also where this process is told to end: by Ctrl-C, SIGTERM or a terminal that is closed.

A signal that comes while something is being started, or being ended, waits until that is done: otherwise a container
would go on, with nobody left who knows of it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """A context: each of `SIGNALS` becomes a KeyboardInterrupt within, and `end` is called at last, come what may."""

    def __init__(self, end: Callable[[], object]) -> None:
        self._end = end
        self._waiting = False
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Ending:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python delivers no signal
            self._before = {number: signal.signal(number, self._told) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting = True
        try:
            self._end()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        if kind is None:
            self._stop()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, a signal waits."""
        self._waiting = True
        yield
        self._waiting = False
        self._stop()

    def _told(self, number: int, _frame: FrameType | None) -> None:
        self._signal = self._signal or number
        if not self._waiting:
            self._stop()

    def _stop(self) -> None:
        if self._signal is not None:
            # The commands tell Ctrl-C, which says nothing, from a request to stop by its words.
            words = [] if self._signal == signal.SIGINT else [f"stopped ({signal.Signals(self._signal).name})"]
            raise KeyboardInterrupt(*words)
