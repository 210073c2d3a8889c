"""Layers from a disk, one at a time, while the one before is computed: for weights that do not fit into memory.

Two layers are there at once: one in use, one being read. Several threads read, since one alone does not keep an NVMe
disk busy; on a GPU each has a small pinned buffer and a stream for its copies. Files are hashed once, when the model is
opened, as a loaded model's are; what later sweeps read is compared again by the run's attestation.

The method, weights on a disk and large batches over each layer, is FlexGen's (arXiv 2303.06865).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline import paths
from pipeline.engine.weights import LayerWeights
from pipeline.errors import IntegrityError, ResourceError
from pipeline.model.safetensors_file import Entry
from pipeline.model.shard import CHUNK_BYTES, DTYPES, read_at

READERS = 4


@dataclass(frozen=True)
class _Piece:
    """A run of values of one tensor: where it lies in its file, and where it goes."""

    path: Path
    offset: int
    stored: torch.dtype
    into: Tensor  # flat


class _Reader:
    """The buffer and the stream that belong to one thread."""

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self.raw = torch.empty(CHUNK_BYTES, dtype=torch.uint8, pin_memory=cuda)
        self.stream = torch.cuda.Stream(device) if cuda else None


class Files:
    """Open weight files, read at any place by any thread."""

    def __init__(self, device: torch.device, fix: str) -> None:
        self.device, self.fix = device, fix
        # A discrete GPU leaves the host's memory to the page cache; elsewhere the cache would take what passes need.
        shared = device.type != "cuda" or torch.cuda.get_device_properties(device).is_integrated
        self._drops_cache = shared and hasattr(os, "posix_fadvise")
        self._handles: dict[Path, int] = {}
        self._lock = threading.Lock()
        self._own = threading.local()

    def read(self, piece: _Piece, after: torch.cuda.Event | None = None) -> None:
        """Fill `piece.into`, once the device is past `after`. Returns when it is there.

        Raises IntegrityError (M431: the file is too short) and ResourceError (R431: it cannot be read).
        """
        if not hasattr(self._own, "reader"):
            self._own.reader = _Reader(self.device)
        reader: _Reader = self._own.reader
        size_bytes = piece.into.numel() * piece.stored.itemsize
        straight = self.device.type == "cpu" and piece.into.dtype is piece.stored
        raw = piece.into.view(torch.uint8) if straight else reader.raw[:size_bytes]
        self._fill(raw.numpy().data, piece)
        if straight:
            return
        if reader.stream is None:
            piece.into.copy_(raw.view(piece.stored))
            return
        with torch.cuda.stream(reader.stream):
            if after is not None:
                reader.stream.wait_event(after)
            piece.into.copy_(raw.view(piece.stored), non_blocking=True)
        reader.stream.synchronize()

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def _fill(self, memory: memoryview, piece: _Piece) -> None:
        try:
            handle = self._handle(piece.path)
            if not read_at(handle, memory, piece.offset):
                raise IntegrityError(
                    "M431",
                    "a weight file became shorter since the model was opened",
                    where=paths.shown(piece.path),
                    fix=self.fix,
                )
            if self._drops_cache:
                os.posix_fadvise(handle, piece.offset, len(memory), os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise ResourceError(
                "R431",
                "a weight file cannot be read any more",
                where=paths.shown(piece.path),
                actual=error.strerror,
                fix="check its disk; what was answered is kept",
            ) from error

    def _handle(self, path: Path) -> int:
        with self._lock:
            if path not in self._handles:
                self._handles[path] = os.open(path, os.O_RDONLY)
            return self._handles[path]


class Layers:
    """The layers of a model, read anew each time they are walked through.

    What is yielded is overwritten when the next but one is read: use it before asking for the next.
    """

    def __init__(
        self, files: Files, entries: Sequence[Mapping[str, Entry]], dtype: torch.dtype, device: torch.device
    ) -> None:
        """`entries[i]`: of layer i, by field of LayerWeights."""
        self._files, self._entries = files, entries
        self._cuda = device.type == "cuda"
        self._buffers = [
            {field: torch.empty(entry.shape, dtype=dtype, device=device) for field, entry in entries[0].items()}
            for _ in range(2)
        ]
        self._used: list[torch.cuda.Event | None] = [None, None]
        """When the device is done with what a buffer held."""
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="layers")
        self._ahead: list[tuple[int, int, list[Future[None]]]] = []  # layer, buffer, reads under way

    def __iter__(self) -> Iterator[LayerWeights]:
        count = len(self._entries)
        if self._ahead and self._ahead[0][0] != 0:  # the sweep before was broken off
            self._settle()
            self._used = [self._now(), self._now()]
        if not self._ahead:
            self._start(0, 0)
        for index in range(count):
            _, buffer, reads = self._ahead[0]
            if len(self._ahead) < 2 and count > 1:
                self._start((index + 1) % count, 1 - buffer)
            for read in reads:
                read.result()
            yield LayerWeights(**self._buffers[buffer])
            self._ahead.pop(0)
            self._used[buffer] = self._now()

    def tensor(self, layer: int, field: str) -> Tensor:
        """One tensor, read as a sweep reads it, into memory of its own."""
        entry = self._entries[layer][field]
        like = self._buffers[0][field]
        into = torch.empty(entry.shape, dtype=like.dtype, device=like.device)
        for piece in pieces(entry, into):
            self._files.read(piece)
        return into

    def close(self) -> None:
        """End the threads and close the files. What was yielded stays."""
        self._settle()
        self._pool.shutdown()
        self._files.close()

    def _start(self, layer: int, buffer: int) -> None:
        """Begin to read a layer into a buffer that the host has no more use for."""
        after = self._used[buffer]
        reads = [
            self._pool.submit(self._files.read, piece, after)
            for field, entry in self._entries[layer].items()
            for piece in pieces(entry, self._buffers[buffer][field])
        ]
        self._ahead.append((layer, buffer, reads))

    def _now(self) -> torch.cuda.Event | None:
        """When the device is done with all that it was given so far."""
        if not self._cuda:
            return None
        now = torch.cuda.Event()
        now.record()
        return now

    def _settle(self) -> None:
        """Nothing is being read any more, whatever became of it."""
        for _, _, reads in self._ahead:
            for read in reads:
                read.cancel() or read.exception()
        self._ahead.clear()


class ByName(Mapping[str, Tensor]):
    """The tensors of a model by their names in the files; those of the layers are read when they are asked for."""

    def __init__(self, resident: Mapping[str, Tensor], layers: Layers, names: Mapping[str, tuple[int, str]]) -> None:
        """`names`: layer and field of each tensor that is in none of the `resident` ones."""
        self._resident, self._layers, self._names = resident, layers, names

    def __getitem__(self, name: str) -> Tensor:
        return self._resident[name] if name in self._resident else self._layers.tensor(*self._names[name])

    def __iter__(self) -> Iterator[str]:
        return iter([*self._resident, *self._names])

    def __len__(self) -> int:
        return len(self._resident) + len(self._names)


def pieces(entry: Entry, into: Tensor) -> list[_Piece]:
    """A tensor of a file, to be read into `into`, some megabytes at a time."""
    flat, stored = into.view(-1), DTYPES[entry.dtype]
    step = CHUNK_BYTES // stored.itemsize
    return [
        _Piece(entry.path, entry.offset + start * stored.itemsize, stored, flat[start : start + step])
        for start in range(0, flat.numel(), step)
    ]
