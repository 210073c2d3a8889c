"""The matrix products with the weights.

On a CPU whose torch has oneDNN, weights are laid out once in the blocks that oneDNN's kernels read;
plain F.linear does that again in every call, which for a pass of 16 to 128 rows costs as much as the
product itself. Values are unchanged: `to_dense` gives back every bit (a test shows it). The method is
that of torch.inductor's CPU freezing (torch/_inductor/fx_passes/mkldnn_fusion.py), by the same calls.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from loguru import logger
from torch import Tensor

TYPICAL_ROWS = 128
"""Rows of the pass that the layout is chosen for; other sizes run with it too."""


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (T, in) times weight (out, in) transposed."""
    if weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return F.linear(x, weight)


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this torch has the layout and computes correctly with it: tried on a small product."""
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    x = torch.arange(-24, 24, dtype=torch.float32).view(3, 16).to(dtype)
    weight = torch.arange(-56, 56, dtype=torch.float32).view(7, 16).remainder(5).to(dtype)
    try:
        found = linear(x, torch.ops.mkldnn._reorder_linear_weight(weight.clone(), TYPICAL_ROWS))
    except (RuntimeError, NotImplementedError, AttributeError) as error:  # this build lacks the layout or the kernel
        logger.info("plain products in place of oneDNN's layout of weights: {!r}", error)
        return False
    return torch.equal(found, F.linear(x, weight))  # small integers: exact in either dtype


def packer(dtype: torch.dtype, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """Lays a projection out anew, as a copy; None where that cannot be. For the loader, which calls it as it reads."""
    if not can_pack(dtype, device):
        return None
    return lambda weight: torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)
