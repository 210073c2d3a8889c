"""Whether an answer depends on its prompt alone, and the products that make it so.

A token is computed in passes whose other tokens depend on memory, measured times, and which answers run beside it. It
has the same bits in all of them if the products, attention and the steps between have: each is tried on the device by
comparing bits (`settle`), when a model is loaded. The trial of the products takes seconds to a minute, and is kept
beside the built kernels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.engine import product_trial
from pipeline.engine.attention import Plan
from pipeline.engine.kernels import build, cublaslt, library
from pipeline.engine.ops import Ops
from pipeline.engine.padding import FINE_ROWS, sizes
from pipeline.engine.products import CUBLASLT, OURS, Key, Products, Runner, Way, summary
from pipeline.engine.segment import Segment, pack
from pipeline.engine.shape import Shape
from pipeline.engine.state import Limits
from pipeline.engine.weights import Weights

if TYPE_CHECKING:
    from pipeline.engine.backend import Backend

TRIED_LAYERS = 3
"""Layers whose weights take turns when products are timed."""

SMALL_PROPOSALS, LARGE_PROPOSALS = 4, 2
"""Number of cuBLASLt's proposals that are tried at a size up to FINE_ROWS, and beyond."""

LARGE_TILINGS = (4, 5, 6)
"""Our tilings that are tried beyond FINE_ROWS: tiles of 128 rows and more."""

BITS_ROWS = 64
"""Rows whose products stand for the order in which a machine sums."""

ON_A_CPU = "not tried on a CPU, where bits may depend on what comes beside a row (docs/exactness.md)"


@dataclass(frozen=True)
class Invariance:
    holds: bool
    """A token has the same bits in every pass."""
    why: str
    products: dict[str, str] = field(default_factory=dict)
    """By weight shape: which way computes which sizes."""
    bits: str = ""
    """sha256 of fixed rows' products (`bits_of`), which tells ways that sum in another order apart; empty unless
    `holds`."""


NOT_TRIED = Invariance(False, "not tried")


@torch.inference_mode()
def settle(backend: Backend, weights: Weights, limits: Limits) -> Backend:
    """The backend with products whose rows have the same bits in every pass, if attention and the steps between have
    them, too; otherwise as it was, with the reason. Uses no more memory than the largest pass."""
    device, shape = weights.device, weights.shape
    if device.type != "cuda":
        return replace(backend, invariance=Invariance(False, ON_A_CPU))
    if not ops_are_invariant(backend.ops, shape, weights.dtype, device):
        why = f"the steps between the products ({backend.ops_name}) depend on the number of rows"
        return replace(backend, invariance=Invariance(False, why))
    if not attention_is_invariant(backend.plan, shape, weights.dtype, device):
        why = f"attention ({backend.attention_name}) depends on what comes beside a row"
        return replace(backend, invariance=Invariance(False, why))
    kernels = backend.ops if isinstance(backend.ops, library.Kernels) else None
    blas = _blas(device) if weights.dtype is torch.bfloat16 else None
    largest = limits.chunk_rows or limits.budget_rows
    kept = Kept.of(weights, backend.fused, largest, blas)
    try:
        ways = kept.read()
        if ways is None:
            ways = _try_products(weights, backend.fused, largest, kernels, blas)
            kept.write(ways)
        products = Products(Runner(kernels, blas), ways)
        bits = bits_of(products, weights, backend.fused, min(largest, BITS_ROWS))
    except product_trial.NoClass as reason:
        return replace(backend, invariance=Invariance(False, f"products: {reason}"))
    except RuntimeError as error:  # an allocation that failed, or a call that this device refuses
        why = f"the trial of products failed: {(str(error).splitlines() or ['no reason'])[0]}"
        return replace(backend, invariance=Invariance(False, why))
    finally:
        torch.cuda.empty_cache()
    why = f"products, attention and steps gave equal bits at all {len(sizes(largest))} sizes up to {largest:,} rows"
    return replace(backend, linear=products, invariance=Invariance(True, why, summary(ways), bits))


def _blas(device: torch.device) -> cublaslt.Library | None:
    try:
        return cublaslt.Library(device)
    except cublaslt.CannotLoad:
        return None


# Products


def _matrices(weights: Weights, fused: bool) -> list[tuple[int, list[Tensor]]]:
    """Each kind of product in a pass: values from one row of its input to the next, and some of its weights."""
    shape = weights.shape
    layers = weights.layers[:TRIED_LAYERS] if isinstance(weights.layers, tuple) else [next(iter(weights.layers))]
    inner = 2 * shape.intermediate if fused else shape.intermediate  # our SwiGLU leaves its result in gate's place
    return [
        (shape.hidden, [layer.qkv for layer in layers]),
        (shape.heads * shape.head_dim, [layer.o for layer in layers]),
        (shape.hidden, [layer.gate_up for layer in layers]),
        (inner, [layer.down for layer in layers]),
        (shape.hidden, [weights.head]),
    ]


def bits_of(linear: Callable[[Tensor, Tensor], Tensor], weights: Weights, fused: bool, rows: int = BITS_ROWS) -> str:
    """sha256 of the products of `rows` fixed rows with one weight of each kind.

    The trials on two machines may have chosen ways that sum in different orders. Two runs of one model that agree in
    this hash, and whose products have the same bits in every pass, sum in the same order.
    """
    digest, generator = hashlib.sha256(), torch.Generator().manual_seed(0)
    for stride, matrices in _matrices(weights, fused):
        weight = matrices[0]
        wide = torch.randn(rows, stride, generator=generator).to(weights.dtype).to(weights.device)
        digest.update(linear(wide[:, : weight.shape[1]], weight).float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _try_products(
    weights: Weights, fused: bool, largest: int, kernels: library.Kernels | None, blas: cublaslt.Library | None
) -> dict[Key, dict[int, Way]]:
    """Try the products of every weight shape, and choose one for each size. Raises NoClass."""

    def propose(size: int, weight: Tensor, stride: int) -> Sequence[Way]:
        few = size <= FINE_ROWS
        count = SMALL_PROPOSALS if few else LARGE_PROPOSALS
        algorithms = blas.algorithms(size, weight, stride, count) if blas is not None else []
        tilings = [i for i, rows in enumerate(library.TILING_ROWS) if rows < 2 * size] if few else LARGE_TILINGS
        by_blas = [Way(CUBLASLT, algorithm=algorithm) for algorithm in algorithms]
        return [*by_blas, *(Way(OURS, tiling) for tiling in tilings if kernels is not None)]

    ways: dict[Key, dict[int, Way]] = {}
    for stride, matrices in _matrices(weights, fused):
        key = Key(matrices[0].shape[0], matrices[0].shape[1], stride)
        if key in ways:
            continue
        try:
            ways[key] = product_trial.choose(Runner(kernels, blas), propose, matrices, stride, sizes(largest))
        except product_trial.NoClass as reason:
            raise product_trial.NoClass(f"{key.outputs} × {key.inputs}: {reason}") from reason
    return ways


@dataclass(frozen=True)
class Kept:
    """The file that holds a trial's result, and all that the result depends on."""

    path: Path
    depends_on: dict[str, object]

    @classmethod
    def of(cls, weights: Weights, fused: bool, largest: int, blas: cublaslt.Library | None) -> Kept:
        device = torch.cuda.get_device_properties(weights.device)
        depends_on: dict[str, object] = {
            "device": device.name,
            "multiprocessors": device.multi_processor_count,
            "kernels": build.library_name((device.major, device.minor)),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cublaslt": None if blas is None else blas.version,
            "dtype": str(weights.dtype),
            "products": [[*matrices[0].shape, stride] for stride, matrices in _matrices(weights, fused)],
            "sizes": sizes(largest),
            "trial": hashlib.sha256(Path(product_trial.__file__).read_bytes()).hexdigest()[:12],
        }
        digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]
        return cls(build.BUILT / f"products-{digest}.json", depends_on)

    def read(self) -> dict[Key, dict[int, Way]] | None:
        """None: there is none, or it is damaged."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["depends_on"] != self.depends_on:
                return None
            return {
                Key(*entry["key"]): {
                    size: Way(name, tiling, bytes.fromhex(algorithm)) for size, name, tiling, algorithm in entry["ways"]
                }
                for entry in kept["products"]
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, ways: dict[Key, dict[int, Way]]) -> None:
        """Keep the trial's result; where the folder cannot be written to, every start tries again."""
        products = [
            {
                "key": [key.outputs, key.inputs, key.stride],
                "ways": [[size, way.name, way.tiling, way.algorithm.hex()] for size, way in sorted(table.items())],
            }
            for key, table in ways.items()
        ]
        text = json.dumps({"depends_on": self.depends_on, "products": products})
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(exist_ok=True)
            part.write_text(text, encoding="utf-8")
            part.replace(self.path)
        except OSError:
            return


# Attention and the steps between

TRIED_LENGTH = 333
TRIED_CUTS = ((1, 2, 40, 41, 170), (64, 128, 192, 256, 320), (31, 33, 97, 300), tuple(range(1, 90)))
"""Where the prompt is cut into segments, which come in another order."""


def attention_is_invariant(plan: Plan, shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0) -> bool:
    """Whether a row has the same bits whatever shares its pass and wherever its context is cut: compared on a random
    prompt, over scattered slots, NaN in every other."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    heads = shape.heads + 2 * shape.kv_heads
    qkv = (torch.randn(TRIED_LENGTH, heads, shape.head_dim, generator=generator) * 2).to(dtype).to(device)

    def attend(parts: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The rows (first, end) of each part, all in one pass."""
        slots = rng.permutation(2 * TRIED_LENGTH)[:TRIED_LENGTH]
        size = 2 * TRIED_LENGTH, 2 * shape.kv_heads, shape.head_dim
        layer = torch.full(size, float("nan"), dtype=dtype, device=device)
        layer[torch.from_numpy(slots).to(device)] = qkv[:, shape.heads :]
        segments = [Segment(np.ones(end - first, dtype=np.int64), first, slots[:end], 0) for first, end in parts]
        rows = torch.cat([qkv[first:end] for first, end in parts])
        found = plan(pack(segments, device), shape, dtype)(rows, layer)
        return list(found.split([end - first for first, end in parts]))

    (whole,) = attend([(0, TRIED_LENGTH)])
    for cuts in TRIED_CUTS:
        ends = [0, *cuts, TRIED_LENGTH]
        parts = [(ends[index], ends[index + 1]) for index in rng.permutation(len(ends) - 1).tolist()]
        if not all(torch.equal(rows, whole[slice(*part)]) for part, rows in zip(parts, attend(parts), strict=True)):
            return False
    alone = (0, 1), (170, 171), (TRIED_LENGTH - 1, TRIED_LENGTH)
    return all(torch.equal(attend([part])[0], whole[slice(*part)]) for part in alone)


def ops_are_invariant(ops: Ops, shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0) -> bool:
    """Whether the norm and SwiGLU of a row have the same bits whatever the number of rows. The rotation is a sum of two
    products, each element on its own."""
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(dtype).to(device)

    hidden, delta, weight = random(100, shape.hidden), random(100, shape.hidden), random(shape.hidden)
    gate_up = random(100, 2 * shape.intermediate)
    whole = ops.add_norm(hidden.clone(), delta, weight, shape.norm_eps), ops.swiglu(gate_up.clone())
    for part in (slice(0, 1), slice(7, 9), slice(30, 63), slice(99, 100)):
        normed = ops.add_norm(hidden[part].clone(), delta[part], weight, shape.norm_eps)
        if not (torch.equal(normed, whole[0][part]) and torch.equal(ops.swiglu(gate_up[part].clone()), whole[1][part])):
            return False
    return True
