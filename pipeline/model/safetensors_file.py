"""The safetensors file format, by hand: eight bytes of header length, a JSON header, then the raw tensors.

By hand for two reasons. Writing streams tensor by tensor, so that a checkpoint never lies in memory whole, and its
bytes do not depend on a library's version (they equal what `safetensors.torch.save_file` writes today; a test holds
it). Reading hands out byte positions, so that the loader can read straight into the tensor that stays.

Format: https://github.com/huggingface/safetensors (README, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from pipeline import paths
from pipeline.errors import IntegrityError

ITEM_BYTES = {"BF16": 2, "F32": 4, "F16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of one value, of all dtypes whose tensors can be measured; `shard.DTYPES` are those that we compute with."""

HEADER_LIMIT_BYTES = 100_000_000  # the library's own limit

COMPARED_BYTES = 16 << 20
"""How much of two tensors is compared at a time."""


@dataclass(frozen=True)
class Entry:
    """The place of one tensor: `size_bytes` bytes from `offset` bytes after the start of `path`."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


def read_header(path: Path, fix: str) -> list[Entry]:
    """All tensors of one file, checked to fill the file exactly.

    Raises IntegrityError: M401 no such file, M402 not a safetensors file, M403 the file is shorter or longer than its
    header says.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if size_bytes < 8 or header_bytes > min(HEADER_LIMIT_BYTES, size_bytes - 8):
                raise _not_safetensors(path, f"a header of {header_bytes} bytes in {size_bytes} bytes", fix)
            header = json.loads(file.read(header_bytes))
        start = 8 + header_bytes
        entries = [_entry(path, name, value, start) for name, value in header.items() if name != "__metadata__"]
    except FileNotFoundError as error:
        raise IntegrityError("M401", "a weight file is missing", where=paths.shown(path), fix=fix) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_safetensors(path, error, fix) from error

    end = start
    for entry in sorted(entries, key=lambda e: e.offset):
        if entry.offset != end or entry.size_bytes != prod(entry.shape) * ITEM_BYTES[entry.dtype]:
            raise _not_safetensors(path, f"{entry.name} does not lie where the tensor before it ends", fix)
        end += entry.size_bytes
    if end != size_bytes:
        raise IntegrityError(
            "M403",
            "a weight file is truncated" if size_bytes < end else "a weight file is longer than its header says",
            where=paths.shown(path),
            expected=f"{end} bytes",
            actual=f"{size_bytes} bytes",
            fix=fix,
        )
    return entries


def first_difference(one: Entry, other: Entry) -> int | None:
    """The first byte in which two tensors differ; None where they are the same. Their dtypes count as the first."""
    if one.dtype != other.dtype or one.size_bytes != other.size_bytes:
        return 0
    with one.path.open("rb") as a, other.path.open("rb") as b:
        a.seek(one.offset)
        b.seek(other.offset)
        for start in range(0, one.size_bytes, COMPARED_BYTES):
            size_bytes = min(COMPARED_BYTES, one.size_bytes - start)
            x, y = a.read(size_bytes), b.read(size_bytes)
            if x != y:
                return start + next(i for i in range(size_bytes) if x[i : i + 1] != y[i : i + 1])
    return None


def _entry(path: Path, name: str, value: dict, start: int) -> Entry:
    begin, end = value["data_offsets"]
    if value["dtype"] not in ITEM_BYTES:
        raise ValueError(f"{name} has the data type {value['dtype']}")
    return Entry(path, name, value["dtype"], tuple(map(int, value["shape"])), start + int(begin), int(end) - int(begin))


def _not_safetensors(path: Path, why: object, fix: str) -> IntegrityError:
    return IntegrityError("M402", "not a safetensors file", where=paths.shown(path), actual=why, fix=fix)


def write(path: Path, dtype: str, shapes: Mapping[str, tuple[int, ...]], arrays: Iterable[np.ndarray]) -> None:
    """Write tensors of one dtype, sorted by name. `arrays` yields their raw values in pieces, in that order.

    A piece is any C-contiguous array; pieces of one tensor simply follow each other.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(shapes):
        begin, end = end, end + prod(shapes[name]) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data starts aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            file.write(np.ascontiguousarray(array).data.cast("B"))
        if file.tell() != 8 + len(text) + end:
            raise ValueError(f"{file.tell() - 8 - len(text)} bytes of tensors, the header says {end}")
