"""Tensors, each allocated once where it stays, and filled by plain reads: on the CPU straight into its memory, on a GPU
through two small pinned buffers a file. Several files are read at a time: one core hashes less than a disk reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import ResourceError
from pipeline.model import lock, shard
from pipeline.model.safetensors_file import Entry
from pipeline.model.shard import DTYPES

FILES = 4
"""Files read at the same time."""


def read(
    folder: Path,
    entries: Sequence[Entry],
    keep: set[str],
    dtype: torch.dtype,
    device: torch.device,
    on_bytes: Callable[[int], object] | None = None,
    places: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Read all files of a checkpoint once, front to back, hash them, and hold them against the lock if there is one.

    `entries`: all tensors, file by file in order. Those named in `keep` are returned. `places`: for tensors that are
    read into a buffer, the function that copies it to where it stays; files are then read one by one, so that there
    is one such buffer.
    Raises IntegrityError (M411 to M413) and ResourceError (R401, R402).
    """
    places = places or {}
    locked = lock.known(folder)
    tensors: dict[str, Tensor] = {}
    together = threading.Lock()
    largest = max((prod(entry.shape) for entry in entries if entry.name in places), default=0)
    scratch = _Filler(dtype, device, lambda _: None).allocate("the largest projection", (largest,))

    def counted(size_bytes: int) -> None:
        if on_bytes is not None:
            with together:
                on_bytes(size_bytes)

    def read_file(path: Path, in_file: Sequence[Entry]) -> None:
        filler = _Filler(dtype, device, counted)
        with shard.Shard(path, lock.fix(folder)) as file:
            for entry in in_file:
                file.skip_to(entry.offset)
                if entry.name not in keep:
                    file.skip_to(entry.offset + entry.size_bytes)
                    counted(entry.size_bytes)
                elif entry.name in places:
                    file.wait()  # the buffer may still be hashed
                    raw = filler.fill(file, entry, scratch[: prod(entry.shape)].view(entry.shape))
                    tensors[entry.name] = places[entry.name](raw)
                else:
                    tensors[entry.name] = filler.fill(file, entry, filler.allocate(entry.name, entry.shape))
            if locked is not None:
                lock.check_read(folder, locked, path.name, file.sha256)

    by_file = [(path, list(in_file)) for path, in_file in groupby(entries, key=lambda entry: entry.path)]
    with ThreadPoolExecutor(1 if places else FILES, thread_name_prefix="weights") as pool:
        try:
            for _ in pool.map(lambda each: read_file(*each), by_file):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return tensors


class _Filler:
    """Allocates tensors and fills them, through two buffers where bytes cannot go straight to where they stay."""

    def __init__(self, dtype: torch.dtype, device: torch.device, on_bytes: Callable[[int], object]) -> None:
        self.dtype, self.device, self.on_bytes = dtype, device, on_bytes
        self.buffers: list[Tensor] = []

    def allocate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        try:
            return torch.empty(shape, dtype=self.dtype, device=self.device)
        except (RuntimeError, MemoryError) as error:
            # RuntimeError also covers torch.OutOfMemoryError, and Tegra's failure that names NVML.
            size_bytes = torch.empty(shape, dtype=self.dtype, device="meta").nbytes
            raise no_memory(f"{size_bytes / 1e6:.0f} MB more for {name}", error) from error

    def fill(self, file: shard.Shard, entry: Entry, tensor: Tensor) -> Tensor:
        """Fill `tensor`, contiguous and of the entry's shape, with what comes next in the file, and return it."""
        flat, stored = tensor.view(-1), DTYPES[entry.dtype]
        if self.device.type == "cpu" and stored is self.dtype:
            self.on_bytes(file.fill(flat.view(torch.uint8)))
            return tensor
        step = shard.CHUNK_BYTES // stored.itemsize
        for start in range(0, flat.numel(), step):
            part = flat[start : start + step]
            raw = self._next_buffer()[: part.numel() * stored.itemsize]
            self.on_bytes(file.fill(raw))
            part.copy_(raw.view(stored))  # blocks; converts where dtypes differ
        return tensor

    def _next_buffer(self) -> Tensor:
        """Two, in turn: while one is read into, the other is hashed."""
        if not self.buffers:
            pinned = self.device.type == "cuda"
            self.buffers = [torch.empty(shard.CHUNK_BYTES, dtype=torch.uint8, pin_memory=pinned) for _ in range(2)]
        self.buffers.reverse()
        return self.buffers[0]


def no_memory(expected: str, actual: object) -> ResourceError:
    return ResourceError(
        "R401",
        "the weights do not fit into memory",
        expected=expected,
        actual=actual,
        fix="end other programs, or choose bfloat16 or a smaller model",
    )
