"""Attestation: the weights in memory, compared bit for bit with the checkpoint's lock.

The lock pins the sha256 of whole files. A weight file is its header and then its tensors, one behind the other: so the
header as it is on the disk and the tensors as they lie on the device, hashed in that order, must give the very hash.
Nothing but headers is read for it. A file is read again only where it has to be: to name the tensor that differs, and
for weights that were rounded to bfloat16, which no longer tell what the file holds.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from pipeline import paths
from pipeline.errors import IntegrityError
from pipeline.model import loader, lock, shard
from pipeline.model.config import read_shape
from pipeline.model.safetensors_file import Entry

WORKERS = 4
"""Files hashed at the same time at most; each may hold one projection, laid out plainly, on the host."""


@dataclass(frozen=True)
class Attestation:
    """All weights were found to be what the lock says."""

    lock_sha256: str
    tensors: int
    size_bytes: int
    """Sum over all tensors, as the files hold them."""
    rounded: bool
    """Memory holds float32 weights rounded to bfloat16, as was asked for: compared after the same rounding."""
    files: dict[str, str]
    """Weight file to the sha256 that memory gives; of rounded weights, that of the file they agree with."""
    elapsed_s: float


def attest(folder: Path, resident: Mapping[str, Tensor], locked: lock.Lock) -> Attestation:
    """Compare the `resident` tensors (by their names in the files, on any device) with the files that `locked` pins.

    Raises IntegrityError: M421 a tensor differs (it is named), M422 a weight file is not what the lock says, and what
    `loader.plan` raises.
    """
    start = time.perf_counter()
    entries = loader.plan(folder, read_shape(folder))
    counted = [entry for name, entry in entries.items() if name != loader.HEAD or name in resident]
    if len(counted) < len(entries):  # a tied head that stands in the files once more is the embedding
        entries[loader.HEAD] = replace(entries[loader.HEAD], name=loader.EMBEDDING)
    by_file = {path: list(part) for path, part in groupby(loader.in_order(entries), key=lambda entry: entry.path)}
    hashes = {file.name: file.sha256 for file in locked.files}
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        hashed = list(
            pool.map(lambda path: _attest_file(path, by_file[path], resident, hashes.get(path.name)), by_file)
        )
    size_bytes = sum(entry.size_bytes for entry in counted)
    held = resident[loader.EMBEDDING].dtype
    rounded = any(shard.DTYPES[entry.dtype].itemsize > held.itemsize for entry in entries.values())
    files = {path.name: sha256 for path, sha256 in zip(by_file, hashed, strict=True)}
    return Attestation(locked.root, len(counted), size_bytes, rounded, files, time.perf_counter() - start)


def _attest_file(path: Path, entries: list[Entry], resident: Mapping[str, Tensor], expected: str | None) -> str:
    if expected is not None and _sha256(path, entries, resident) == expected:
        return expected
    actual = _compare(path, entries, resident)
    if actual != expected:
        raise IntegrityError(
            "M422",
            "a weight file is not what the checkpoint's lock says, though memory holds what the file holds",
            where=paths.shown(path),
            expected=expected,
            actual=actual,
            fix=lock.fix(path.parent),
        )
    return actual


def _sha256(path: Path, entries: list[Entry], resident: Mapping[str, Tensor]) -> str:
    """The sha256 of a file that has this one's header and holds the resident tensors."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(entries[0].offset))
    for entry in entries:
        for part in _parts(resident[entry.name]):
            stored = part.cpu().to(shard.DTYPES[entry.dtype])
            digest.update(stored.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _compare(path: Path, entries: list[Entry], resident: Mapping[str, Tensor]) -> str:
    """Read the file and compare tensor by tensor; its sha256 if all is the same. Raises IntegrityError (M421)."""
    with shard.Shard(path, lock.fix(path.parent)) as file:
        file.skip_to(entries[0].offset)
        for entry in entries:
            stored, compared = shard.DTYPES[entry.dtype], 0
            for part in _parts(resident[entry.name]):
                raw = torch.empty(part.numel() * stored.itemsize, dtype=torch.uint8)
                file.fill(raw)
                expected, actual = raw.view(stored).to(part.dtype), part.cpu()
                bits = torch.int32 if part.dtype.itemsize == 4 else torch.int16
                differing = (expected.view(bits) != actual.view(bits)).nonzero()
                if len(differing):
                    raise _differs(entry, compared, int(differing[0]), len(differing), expected, actual)
                compared += part.numel()
        return file.sha256


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The values in the file's order, some megabytes at a time; oneDNN's layout is undone."""
    flat = (tensor.to_dense() if tensor.is_mkldnn else tensor).detach().reshape(-1)
    yield from flat.split(shard.CHUNK_BYTES // flat.element_size())


def _differs(entry: Entry, compared: int, first: int, count: int, expected: Tensor, actual: Tensor) -> IntegrityError:
    columns = entry.shape[-1]
    row, column = divmod(compared + first, columns)
    place = f"[{row}, {column}]" if len(entry.shape) == 2 else f"[{column}]"
    return IntegrityError(
        "M421",
        f"the tensor {entry.name} in memory is not what its file holds",
        where=f"{paths.shown(entry.path)}, {entry.name}{place}",
        expected=_value(expected[first]),
        actual=f"{_value(actual[first])}; {count:,} of the {len(expected):,} values around it differ",
        fix="do not trust what this run answered; run it again, and if it comes back have the memory tested",
    )


def _value(value: Tensor) -> str:
    raw = value.reshape(1).view(torch.uint8).numpy().tobytes()[::-1]  # little-endian, as all that we run on
    return f"{float(value):.9g} (bits 0x{raw.hex()})"
