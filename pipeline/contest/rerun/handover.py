"""Data handed over through a named pipe: whoever reads them has to open it, and that moment is the organiser's to see.

The opening of a pipe to write ends when somebody opens it to read. Then the bytes are written, and the pipe's name is
taken away: there is nothing to be opened a second time. What the other side writes into it nobody reads.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path


class Handover:
    """Hands a data file to one process through a named pipe, and notes when that opened it. Waits in a thread of its
    own."""

    def __init__(self, pipe: Path, content: bytes) -> None:
        self.pipe, self._content = pipe, content
        self.opened_s: float | None = None
        """When somebody opened the pipe, by `time.perf_counter`; None: nobody has yet."""
        self.taken = False
        """Whether all bytes were read, or fit into the pipe."""
        os.mkfifo(pipe)
        pipe.chmod(0o644)  # whatever the umask: in a container the reader is another user
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name="handover", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        end = os.open(self.pipe, os.O_WRONLY)
        try:
            if self._given_up:
                return
            self.opened_s = time.perf_counter()
            with contextlib.suppress(FileNotFoundError):
                self.pipe.unlink()
            rest = memoryview(self._content)
            while rest:
                rest = rest[os.write(end, rest) :]
            self.taken = True
        except BrokenPipeError:
            pass  # closed half-way, or its reader was ended
        finally:
            os.close(end)

    def end(self) -> None:
        """To be called when the reader's process has ended: nobody is waited for any longer."""
        self._given_up = self.opened_s is None
        for _ in range(100):
            with contextlib.suppress(FileNotFoundError):  # the thread's opening ends with this one, if it has begun
                os.close(os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK))
            self._thread.join(0.05)
            if not self._thread.is_alive():
                break
        with contextlib.suppress(FileNotFoundError):
            self.pipe.unlink()
