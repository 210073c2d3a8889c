"""Reads of one weight file, front to back: every byte once, straight to where it stays, hashed on its way.

What was hashed is what lies in memory: nothing is read a second time for it. A second thread hashes one piece while
the next is read (hashlib lets go of the interpreter lock). Pages that were read are given back to the system, where
it takes them: on a device whose memory is one, a page cache as large as the model leaves too little for the model.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from pipeline import paths
from pipeline.errors import IntegrityError, ResourceError

DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32}
"""Dtypes that weights may be stored in, by their names in the files."""

CHUNK_BYTES = 16 << 20
"""Size of one read."""


def read_at(handle: int, into: memoryview, offset: int) -> bool:
    """Fill `into` with a file's bytes from `offset` on; False where the file ends before. Raises OSError."""
    filled_bytes = 0
    while filled_bytes < len(into):
        count = os.preadv(handle, [into[filled_bytes:]], offset + filled_bytes)
        if count == 0:
            return False
        filled_bytes += count
    return True


class Shard:
    """An open weight file. Fill all its tensors in the order in which they lie there, then ask for its `sha256`."""

    def __init__(self, path: Path, fix: str) -> None:
        """Raises ResourceError (R402) when the file cannot be read. `fix`: what to do about a damaged one."""
        self.path, self.fix = path, fix
        self.read_bytes = 0
        self._digest = hashlib.sha256()
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self._unreadable(error) from error
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._hashing: Future[None] | None = None

    def __enter__(self) -> Shard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hasher.shutdown()
        self._drop_behind(0)  # all of it
        os.close(self._handle)

    def skip_to(self, offset: int) -> None:
        """Hash what lies before the next tensor: the header."""
        while self.read_bytes < offset:
            self._read(memoryview(bytearray(min(CHUNK_BYTES, offset - self.read_bytes))))
        self.wait()

    def fill(self, raw: Tensor) -> int:
        """Read on until `raw` (bytes, on the CPU) is full; how many bytes that was. Until `wait`, `raw` is not to be
        written to: it may still be hashed. Raises IntegrityError (M411) when the file ends before."""
        memory = raw.numpy().data
        for start in range(0, len(memory), CHUNK_BYTES):
            self._read(memory[start : start + CHUNK_BYTES])
        return len(memory)

    def wait(self) -> None:
        """Wait until all that was read is hashed."""
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None

    @property
    def sha256(self) -> str:
        """The hash of all bytes read so far, in hexadecimal."""
        self.wait()
        return self._digest.hexdigest()

    def _read(self, part: memoryview) -> None:
        try:
            whole = read_at(self._handle, part, self.read_bytes)
        except OSError as error:  # a disk that fails, a network folder that is gone
            raise self._unreadable(error) from error
        if not whole:
            raise IntegrityError(
                "M411",
                "a weight file became shorter while it was read",
                where=paths.shown(self.path),
                fix=self.fix,
            )
        self.read_bytes += len(part)
        self._drop_behind(self.read_bytes)
        self.wait()  # one piece at a time, in order
        self._hashing = self._hasher.submit(self._digest.update, part)

    def _drop_behind(self, size_bytes: int) -> None:
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(self._handle, 0, size_bytes, os.POSIX_FADV_DONTNEED)

    def _unreadable(self, error: OSError) -> ResourceError:
        return ResourceError(
            "R402",
            "a weight file cannot be read",
            where=paths.shown(self.path),
            actual=error.strerror,
            fix="allow reading it, and check its disk",
        )
