"""Trials of attention and of the steps between the products: small random inputs, held against float64.

`backend.choose` takes nothing into use that has not passed here on the device at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.attention import Plan
from pipeline.engine.ops import Ops, TorchOps
from pipeline.engine.segment import Segment, pack
from pipeline.engine.shape import Shape

NEAR = {torch.bfloat16: 2e-2, torch.float16: 5e-3, torch.float32: 1e-3, torch.float64: 1e-6}
"""How far from float64, ‖found - expected‖ / ‖expected‖, is still rounding."""

TRIAL = ((0, 37), (150, 1), (70, 9), (0, 1))
"""Segments of the trial: tokens before, new tokens."""


def attention_error(
    plan: Plan,
    shape: Shape,
    dtype: torch.dtype,
    device: torch.device,
    lengths: tuple[tuple[int, int], ...] = TRIAL,
    seed: int = 0,
) -> float:
    """Distance from attention written out in float64, over scattered slots; NaN lies in every other slot."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    slots = 2 * max(before + new for before, new in lengths) + 64
    contexts = [rng.permutation(slots)[: before + new] for before, new in lengths]
    segments = [
        Segment(np.ones(new, dtype=np.int64), before, context, 0)
        for (before, new), context in zip(lengths, contexts, strict=True)
    ]
    layer = torch.full((slots, 2 * shape.kv_heads, shape.head_dim), float("nan"), dtype=dtype)
    used = torch.from_numpy(np.unique(np.concatenate(contexts)))
    layer[used] = torch.randn(len(used), *layer.shape[1:], generator=generator).to(dtype)
    rows = sum(new for _, new in lengths)
    qkv = torch.randn(rows, shape.heads + 2 * shape.kv_heads, shape.head_dim, generator=generator).to(dtype) * 2
    attend = plan(pack(segments, device), shape, dtype)
    return _distance(attend(qkv.to(device), layer.to(device)), written_out(qkv, layer, segments, shape))


def written_out(qkv: Tensor, layer: Tensor, segments: list[Segment], shape: Shape) -> Tensor:
    """(T, Q·D) in float64: softmax(q·k / √D)·v, one segment at a time."""
    group, parts, row = shape.heads // shape.kv_heads, [], 0
    for segment in segments:
        kv = layer[torch.from_numpy(segment.context)].double().repeat_interleave(group, 1)  # (N, 2Q, D)
        q = qkv[row : row + len(segment), : shape.heads].double()  # (n, Q, D)
        row += len(segment)
        scores = torch.einsum("qhd,khd->hqk", q, kv[:, : shape.heads]) * shape.head_dim**-0.5
        at_q = torch.arange(segment.start, segment.start + len(segment))[:, None]
        at_k = torch.arange(len(segment.context))[None]
        hidden = (at_k > at_q) | (at_k <= at_q - (shape.window or len(segment.context)))
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        parts.append(torch.einsum("hqk,khd->qhd", weights, kv[:, shape.heads :]).flatten(1))
    return torch.cat(parts)


def ops_error(ops: Ops, shape: Shape, dtype: torch.dtype, device: torch.device, rows: int = 5, seed: int = 0) -> float:
    """The largest distance of the three steps from torch's own in float64."""
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(dtype)

    hidden, delta, weight = random(rows, shape.hidden), random(rows, shape.hidden), random(shape.hidden)
    qkv = random(rows, shape.heads + 2 * shape.kv_heads, shape.head_dim)
    angles = torch.rand(rows, shape.head_dim // 2, generator=generator).repeat(1, 2) * 6
    gate_up, slots = random(rows, 2 * shape.intermediate), torch.randperm(3 * rows, generator=generator)[:rows]

    def results(run: Ops, place: torch.device, kind: torch.dtype) -> Iterator[Tensor]:
        h, w, x, g = (t.to(place, kind, copy=True) for t in (hidden, weight, qkv, gate_up))
        # The sum rounds to the model's dtype in either; what is compared is the rest.
        yield run.add_norm(h, None, w, shape.norm_eps)
        layer = torch.zeros(3 * rows, 2 * shape.kv_heads, shape.head_dim, device=place, dtype=kind)
        turn = angles.cos().to(dtype).to(place, kind), angles.sin().to(dtype).to(place, kind)
        run.rotate_and_store(x, *turn, slots.to(place), layer, shape)
        yield x[:, : shape.heads]
        yield layer
        yield run.swiglu(g)
        yield run.add_norm(h, delta.to(place, kind), w, shape.norm_eps)
        yield h

    found = results(ops, device, dtype)
    expected = results(TorchOps(), torch.device("cpu"), torch.float64)
    return max(_distance(a, b) for a, b in zip(found, expected, strict=True))


def _distance(found: Tensor, expected: Tensor) -> float:
    found = found.cpu().double()
    off = ((found - expected).norm() / expected.norm()).item()
    return off if found.isfinite().all() else float("inf")


def refusal(error: Callable[[], float], dtype: torch.dtype) -> str | None:
    """The reason why a candidate whose error is `error()` cannot be used; None if it can."""
    try:
        found = error()
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as refusal:  # of this torch or device
        return (str(refusal).splitlines() or [type(refusal).__name__])[0]
    return None if found <= NEAR[dtype] else f"it is {found:.2g} off float64"
