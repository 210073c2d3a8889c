"""A low-rank adapter (LoRA, arXiv 2106.09685) merged into a checkpoint: W + scale·B·A, the same bits on every machine.

A BLAS product sums in an order that depends on the library and the processor. Here the rank-1 products are formed and
added one after the other, element by element, in float32: numpy's multiply and its add are each correctly rounded and
are never contracted into one operation. So the hashes that `configs/models/standin.yaml` pins hold with an adapter too.

The file is safetensors: for a projection P of the checkpoint, `P.lora_a` of shape (rank, inputs) and `P.lora_b` of
shape (outputs, rank), both bfloat16. Ranks may differ; `scale` in the metadata is alpha / rank, one for all. A
projection of which the file says nothing stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline import paths
from pipeline.errors import IntegrityError
from pipeline.files import sha256_of
from pipeline.model import safetensors_file

BLOCK_ELEMENTS = 1 << 16
"""Rows are merged in blocks of about so many elements, which stay in the cache. Their size changes no bit."""

SUFFIXES = (".lora_a", ".lora_b")
_FIX = "take the file as it is in the project (git checkout data/standin)"


@dataclass(frozen=True)
class Adapter:
    """`pairs`: projection name (without ".weight") to float32 A (rank, inputs) and B (outputs, rank)."""

    path: Path
    scale: float
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]


def read(path: Path, sha256: str | None = None) -> Adapter:
    """Read an adapter's file, and check it against its hash where one is given.

    Raises IntegrityError: M501 no such file, M502 its content is not what is pinned, M503 it is no adapter; and what
    `safetensors_file.read_header` raises for a file that is not safetensors (M402, M403).
    """
    if not path.is_file():
        raise IntegrityError("M501", "the adapter is missing", where=paths.shown(path), fix=_FIX)
    if sha256 is not None and (actual := sha256_of(path)) != sha256:
        raise IntegrityError(
            "M502",
            "the adapter is not the one that is pinned",
            where=paths.shown(path),
            expected=sha256,
            actual=actual,
            fix=_FIX,
        )
    entries = safetensors_file.read_header(path, _FIX)
    halves: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        for entry in entries:
            if entry.dtype != "BF16" or len(entry.shape) != 2 or not entry.name.endswith(SUFFIXES):
                raise _no_adapter(path, f"{entry.name} is {entry.dtype} of shape {entry.shape}")
            file.seek(entry.offset)
            halves[entry.name] = _float32(file.read(entry.size_bytes)).reshape(entry.shape)
            if not np.isfinite(halves[entry.name]).all():
                raise _no_adapter(path, f"{entry.name} is not finite")
    return Adapter(path, _scale(path), _paired(path, halves))


def transform(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]) -> Callable[[str, np.ndarray], np.ndarray]:
    """The function that merges `adapter` into one projection after another, for `standin.tensors`.

    shapes: of all the tensors of the checkpoint. Raises IntegrityError: M504 the adapter is for a projection that the
    checkpoint does not have, M505 for one of another shape.
    """
    for name, (a, b) in adapter.pairs.items():
        expected = shapes.get(f"{name}.weight")
        if expected is None or not name.endswith("_proj"):
            raise IntegrityError(
                "M504",
                "the adapter is for a projection that the checkpoint does not have",
                where=paths.shown(adapter.path),
                actual=name,
                fix=_FIX,
            )
        if expected != (b.shape[0], a.shape[1]):
            raise IntegrityError(
                "M505",
                "the adapter is for a checkpoint of another shape",
                where=f"{paths.shown(adapter.path)}, {name}",
                expected=expected,
                actual=(b.shape[0], a.shape[1]),
                fix=_FIX,
            )

    def merge(name: str, rows: np.ndarray) -> np.ndarray:
        pair = adapter.pairs.get(name.removesuffix(".weight"))
        return rows if pair is None else merged(rows, *pair, adapter.scale)

    return merge


def merged(weight: np.ndarray, a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    """weight + scale·b·a as a new array. weight (outputs, inputs), a (rank, inputs), b (outputs, rank), all float32.

    Every element is weight + (((s₀ + s₁) + s₂) + …) with sⱼ = (scale·bⱼ)·aⱼ, each operation rounded to float32.
    """
    scaled = np.float32(scale) * b
    result = np.empty_like(weight)
    block_rows = max(1, BLOCK_ELEMENTS // weight.shape[1])
    for start in range(0, len(weight), block_rows):
        rows = slice(start, start + block_rows)
        total = np.multiply(scaled[rows, 0, None], a[0])
        product = np.empty_like(total)
        for j in range(1, len(a)):
            np.multiply(scaled[rows, j, None], a[j], out=product)
            np.add(total, product, out=total)
        np.add(weight[rows], total, out=result[rows])
    return result


def _float32(bfloat16: bytes) -> np.ndarray:
    """bfloat16 is the upper half of float32."""
    return (np.frombuffer(bfloat16, dtype="<u2").astype(np.uint32) << 16).view(np.float32)


def _scale(path: Path) -> float:
    try:
        with safe_open(path, framework="np") as file:
            scale = float((file.metadata() or {})["scale"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise _no_adapter(path, f"no scale in its metadata ({error!r})") from error
    if not np.isfinite(scale):
        raise _no_adapter(path, f"the scale is {scale}")
    return scale


def _paired(path: Path, halves: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    names = sorted({name.removesuffix(".lora_a").removesuffix(".lora_b") for name in halves})
    pairs = {}
    for name in names:
        a, b = (halves.get(name + suffix) for suffix in SUFFIXES)
        if a is None or b is None:
            raise _no_adapter(path, f"{name} has {'B but no A' if a is None else 'A but no B'}")
        if a.shape[0] != b.shape[1] or a.size == 0:
            raise _no_adapter(path, f"{name} has A of shape {a.shape} and B of shape {b.shape}")
        pairs[name] = (a, b)
    if not pairs:
        raise _no_adapter(path, "it holds no tensor")
    return pairs


def _no_adapter(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        "M503",
        "not an adapter",
        where=paths.shown(path),
        expected="pairs PROJECTION.lora_a, PROJECTION.lora_b in bfloat16, and a scale",
        actual=why,
        fix=_FIX,
    )
