"""How large a pass and how many K/V slots fit into what the device has left. Made once, before the first allocation.

What is left is cut into four: a margin that stays free, workspaces of libraries, the activations of the largest pass,
and K/V slots with all the rest. If an allocation fails all the same, `pass_runner.py` goes on with smaller passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.engine.shape import Shape
from pipeline.engine.state import Limits
from pipeline.errors import ResourceError

MIB = 2**20

HEAD_ROWS = 1024
"""Most rows whose logits are held at the same time."""

MARGIN = 0.10
"""Share of the free memory that stays free: fragmentation, and what others on the device may take meanwhile."""

WORKSPACE_BYTES = {"cpu": 0, "cuda": 96 * MIB}
"""Workspace of cuBLAS and the like: 32 MiB a handle and stream on Hopper, and what an allocator rounds up."""

BUDGET_ROWS = {"cpu": 256, "cuda": 8192}
"""Rows of a pass at most: beyond these a row gets no cheaper (`benchmarks/cpu.py`, `benchmarks/gpu.py`)."""

PASS_SHARE, LEAST_ROWS = 0.25, 128
"""Share of the usable memory for the activations of a pass, and the rows that it has at least; the rest is for K/V, of
the longest context at least."""

LIVE = 4096
"""Answers at the same time at most; the measured cost of a pass lowers it."""

CONTEXTS = {"cpu": 2, "cuda": 32}
"""Slots for so many of the longest contexts at most; a CPU's answers are few at a time."""


STREAMED = "read from the disk in every pass"
"""A manifest's word for weights that do not stay on the device."""


class Element(Protocol):
    """A dtype as a plan needs it: a `torch.dtype`, or a `Kind` where torch is not there."""

    @property
    def itemsize(self) -> int: ...


class Place(Protocol):
    """A device as a plan needs it: a `torch.device`, or a `Kind`."""

    @property
    def type(self) -> str: ...


@dataclass(frozen=True)
class Kind:
    """A dtype and a device in one, for a plan without torch: of a device that need not be here."""

    itemsize: int
    type: str

    def __str__(self) -> str:
        return self.type


@dataclass(frozen=True)
class Plan:
    """How the free memory is divided."""

    free_bytes: int
    margin_bytes: int
    workspace_bytes: int
    pass_bytes: int
    kv_bytes: int
    limits: Limits
    most_slots: int
    """To which the slots may be raised for a prompt beyond the longest context, as far as memory was free."""

    def text(self) -> str:
        parts = {
            "free": self.free_bytes,
            "margin": self.margin_bytes,
            "workspaces": self.workspace_bytes,
            f"a pass of {self.limits.budget_rows:,} rows": self.pass_bytes,
            f"K/V of {self.limits.slots:,} tokens": self.kv_bytes,
        }
        return ", ".join(f"{name} {size / MIB:,.0f} MiB" for name, size in parts.items())


def plan(
    shape: Shape,
    dtype: Element,
    device: Place,
    free_bytes: int,
    *,
    fused: bool = False,
    streamed: bool = False,
) -> Plan:
    """For an engine whose weights lie on the device already, or as much of them as there is at the same time.

    `fused`: our kernels do the steps between the products, which need no copies for it. `streamed`: the weights come
    from a disk.

    Raises ResourceError (R302) when not even one prompt of the longest context would fit.
    """
    margin_bytes, workspace_bytes = int(free_bytes * MARGIN), WORKSPACE_BYTES[device.type]
    usable = free_bytes - margin_bytes - workspace_bytes
    slot_bytes = shape.kv_elements_per_token * dtype.itemsize
    # A pass that reads the weights from a disk takes all that there is room for, so each slot may be a row of it.
    kept_bytes = kept_bytes_per_row(shape, dtype) if streamed else 0
    longest_bytes = shape.max_positions * (slot_bytes + kept_bytes)
    rows = BUDGET_ROWS[device.type]
    while rows > LEAST_ROWS and pass_bytes(shape, dtype, rows, fused) > min(
        PASS_SHARE * usable, usable - longest_bytes
    ):
        rows //= 2
    of_pass = pass_bytes(shape, dtype, rows, fused)
    contexts = CONTEXTS["cuda" if streamed else device.type]
    most_slots = (usable - of_pass) // (slot_bytes + kept_bytes)
    slots = min(contexts * shape.max_positions, most_slots)
    if slots < shape.max_positions:
        short = (shape.max_positions - slots) * slot_bytes
        raise ResourceError(
            "R302",
            "too little memory is left for the longest context",
            where=str(device),
            expected=f"{shape.max_positions:,} tokens of K/V, {shape.max_positions * slot_bytes / MIB:,.0f} MiB",
            actual=f"{max(0, slots):,} tokens beside activations and margin; {short / MIB:,.0f} MiB are missing",
            fix="end other programs, or use a smaller model",
        )
    limits = Limits(slots if streamed else rows, slots, LIVE, rows if streamed else None)
    of_pass += slots * kept_bytes
    return Plan(free_bytes, margin_bytes, workspace_bytes, of_pass, slots * slot_bytes, limits, most_slots)


def must_stream(shape: Shape, dtype: Element, device: Place, free_bytes: int, fused: bool = False) -> bool:
    """Whether the weights have to come from a disk in each pass, since they and the longest context do not fit.

    Raises ResourceError (R302) when they do not fit even so.
    """
    if fits(shape, dtype, device, free_bytes, fused):
        return False
    left_bytes = max(0, free_bytes - streamed_bytes(shape, dtype))
    plan(shape, dtype, device, left_bytes, fused=fused, streamed=True)
    return True


def fits(shape: Shape, dtype: Element, device: Place, free_bytes: int, fused: bool = False) -> bool:
    """Whether all weights, passes and the longest context have room in `free_bytes`."""
    try:
        plan(shape, dtype, device, max(0, free_bytes - shape.parameters * dtype.itemsize), fused=fused)
    except ResourceError:
        return False
    return True


def most_tokens(shape: Shape, dtype: Element, device: Place, free_bytes: int) -> int:
    """Tokens of K/V that a load could leave room for, at most: before it is known how passes are computed.

    Raises ResourceError (R302) when the weights do not fit even from a disk."""
    streamed = must_stream(shape, dtype, device, free_bytes, fused=True)
    held_bytes = streamed_bytes(shape, dtype) if streamed else shape.parameters * dtype.itemsize
    return plan(shape, dtype, device, max(0, free_bytes - held_bytes), fused=True, streamed=streamed).most_slots


def streamed_bytes(shape: Shape, dtype: Element) -> int:
    """Bytes of weights that are there at the same time: all outside the layers, the layer in use, and the next."""
    outside = shape.parameters - shape.layers * shape.parameters_per_layer
    return (outside + 2 * shape.parameters_per_layer) * dtype.itemsize


def kept_bytes_per_row(shape: Shape, dtype: Element) -> int:
    """Bytes of a row that waits for the next layer: the residual, what is added to it, its rotation, its place; and one
    more when the last layer's rows are put together."""
    return (3 * shape.hidden + 2 * shape.head_dim) * dtype.itemsize + 64


def pass_bytes(shape: Shape, dtype: Element, rows: int, fused: bool = False) -> int:
    """The most that a pass of `rows` rows holds at once: in a layer, or, behind them, logits of rows that want them."""
    logits_bytes = min(rows, HEAD_ROWS) * (shape.vocab + 3 * shape.hidden) * dtype.itemsize
    return max(rows * activation_bytes_per_row(shape, dtype, fused), logits_bytes)


def activation_bytes_per_row(shape: Shape, dtype: Element, fused: bool = False) -> int:
    """The most that is alive at once for a row inside a layer: the MLP's two intermediate parts, what goes in and comes
    out, the residual and the rotation. Plain torch copies both parts and norms in float32; attention's gathered keys
    are bounded by its bucket."""
    if fused:
        return (4 * shape.hidden + 2 * shape.intermediate + 2 * shape.head_dim) * dtype.itemsize
    elements = 4 * shape.hidden + shape.qkv_rows + 4 * shape.intermediate
    return elements * dtype.itemsize + 2 * shape.hidden * 4
