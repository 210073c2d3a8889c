"""Small integer arrays on the host: token ids, positions, slots; and their way to the device.

Imports torch only to bring arrays to a device: scheduling and planning need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

EMPTY: Ints = np.empty(0, dtype=np.int64)


def ints(values: Sequence[int] | Ints) -> Ints:
    return np.asarray(values, dtype=np.int64)


def common_prefix(a: Ints, b: Ints) -> int:
    """How many elements from the start are equal."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def upload(parts: Sequence[Ints], device: torch.device, dtype: DTypeLike = np.int64) -> list[Tensor]:
    """The arrays on the device, by one copy that a CUDA device makes while the host goes on."""
    import torch  # noqa: PLC0415 - who only schedules needs none

    together = torch.from_numpy(np.concatenate([EMPTY, *parts]).astype(dtype, copy=False))
    if device.type == "cuda":
        together = together.pin_memory()
    return list(together.to(device, non_blocking=True).split([len(part) for part in parts]))
