"""The code that runs between the matrix products on a device: probed once, the best that works is chosen.

`self_test.py` runs each candidate on a small random input. One that does not build, does not run or is not near
float64 is passed over, and the reason is kept for the log and the run's manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pipeline.engine import projection
from pipeline.engine.attention import Plan, buckets, flash, paged, pool
from pipeline.engine.invariance import NOT_TRIED, Invariance
from pipeline.engine.kernels import build, cpu, library
from pipeline.engine.ops import Ops, TorchOps
from pipeline.engine.self_test import attention_error, ops_error, refusal
from pipeline.engine.shape import Shape

PLAIN = "torch"
COMPILED = "C++"
KERNELS = "kernels"


@dataclass(frozen=True)
class Backend:
    ops: Ops
    plan: Plan
    ops_name: str
    attention_name: str
    passed_over: dict[str, str]
    """Ways that would have been better, and why they are not taken."""
    linear: Callable[[Tensor, Tensor], Tensor] = projection.linear
    """x (T, in) times weight (out, in) transposed."""
    invariance: Invariance = NOT_TRIED

    @property
    def fused(self) -> bool:
        """The steps need no memory of their own."""
        return self.ops_name == KERNELS


def plain() -> Backend:
    """Works everywhere."""
    return Backend(TorchOps(), buckets.plan, PLAIN, "buckets", {})


def choose(shape: Shape, dtype: torch.dtype, device: torch.device, without: frozenset[str] = frozenset()) -> Backend:
    """The best for a model of this shape. `without`: names of ways that are not to be tried, for comparisons."""
    if device.type != "cuda":
        return plain() if "kernels" in without or device.type != "cpu" else _on_cpu(shape, dtype, device)
    passed_over: dict[str, str] = {}
    kernels = None
    if "kernels" not in without:
        kernels = _kernels(shape, dtype, device, passed_over)
    for name, plan in _ways(kernels, without):
        reason = refusal(partial(attention_error, plan, shape, dtype, device), dtype)
        if reason is None:
            ops_name = PLAIN if kernels is None else KERNELS
            return Backend(kernels or TorchOps(), plan, ops_name, name, passed_over)
        passed_over[name] = reason
    raise AssertionError(f"no way of attention works on {device}: {passed_over}")


def _on_cpu(shape: Shape, dtype: torch.dtype, device: torch.device) -> Backend:
    reason = cpu.can_run(shape, dtype)
    if reason is None:
        try:
            kernels = cpu.load()
        except (build.CannotBuild, OSError) as error:
            reason = str(error)
        else:
            plan = pool.planner(kernels)
            reason = refusal(partial(ops_error, kernels, shape, dtype, device), dtype)
            reason = reason or refusal(partial(attention_error, plan, shape, dtype, device), dtype)
            if reason is None:
                return Backend(kernels, plan, COMPILED, "pool", {})
    return replace(plain(), passed_over={COMPILED: reason})


def _ways(kernels: library.Kernels | None, without: frozenset[str]) -> Iterator[tuple[str, Plan]]:
    if kernels is not None and "paged" not in without:
        yield "paged", paged.planner(kernels)
    if "flash" not in without:
        yield "flash", flash.plan
    yield "buckets", buckets.plan


def _kernels(
    shape: Shape, dtype: torch.dtype, device: torch.device, passed_over: dict[str, str]
) -> library.Kernels | None:
    reason = library.can_run(shape, dtype, device)
    kernels = None
    if reason is None:
        try:
            kernels = library.load(torch.cuda.get_device_capability(device))
            reason = refusal(partial(ops_error, kernels, shape, dtype, device), dtype)
        except (build.CannotBuild, OSError) as error:
            reason = str(error)
    if reason is None:
        return kernels
    passed_over["kernels"] = reason
    return None
