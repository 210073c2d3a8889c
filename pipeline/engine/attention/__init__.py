"""Attention of a packed pass: several ways to the same sums.

A way is a function `plan(packed, shape, dtype) → Attend`: it looks at a pass once and returns what every
layer of the pass calls. Causal, aligned at the end; each row sees `shape.window` tokens at most. Which
ways work on a device is probed (`backend.py`), never assumed.

* `paged`: our CUDA kernel, which reads K/V where they lie in the pool;
* `pool`: our C++ code for float32 on a CPU, which does too;
* `flash`: the flash kernel that ships with torch, on K/V gathered for the pass;
* `buckets`: scaled_dot_product_attention on padded buckets, on any device in any dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.engine.segment import Packed
from pipeline.engine.shape import Shape

Attend = Callable[[Tensor, Tensor], Tensor]
"""(qkv (T, Q + 2K, D) with q and k turned, one layer of the pool (slots, 2K, D)) → (T, Q·D)."""

Plan = Callable[[Packed, Shape, torch.dtype], Attend]
