"""Small integer arrays on the host: token ids, positions, slots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

EMPTY: Ints = np.empty(0, dtype=np.int64)


def ints(values: Sequence[int] | Ints) -> Ints:
    return np.asarray(values, dtype=np.int64)


def common_prefix(a: Ints, b: Ints) -> int:
    """How many elements from the start are equal."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
