"""The curve of a CPU, kept between runs of the same machine: a warm-up then times two passes in place of all sizes.

Only a saving of time: a curve follows from no data, changes the sizes of passes and never an answer in float32, and is
measured anew where two of its points do not hold any more. It is found by a hash of all that it follows from: the boot
of this machine, so that no other one's is taken, its cores and threads, torch, this code, the weights' shapes, dtype.
GPUs are measured every time: their warm-up is also what brings them to their power limit.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from pipeline import paths
from pipeline.engine.cost import PassCost
from pipeline.files import remember, remembered, sha256_of
from pipeline.text_generation import TextGenerator

FEW_PROMPTS = 64
"""Up to so many, a few sizes are timed where nothing is kept: what more of them would save is less than they take."""

MOST_KEPT = 32
BOOT = Path("/proc/sys/kernel/random/boot_id")


def warm_up(pipe: TextGenerator, on_step: Callable[[int, int], object], prompts: int | None) -> None:
    """`prompts`: how many are to come; None where that is not known, or they are of several sets."""
    memory, key = paths.data() / "devices" / ".curves.json", _key(pipe)
    if key is None:
        pipe.warm_up(on_step)
        return
    kept = remembered(memory)
    known = _curve(kept.get(key))
    pipe.warm_up(on_step, known=known, few=prompts is not None and prompts <= FEW_PROMPTS)
    engine = pipe.engine
    if known is not None:
        logger.info("the kept curve of passes {}", "holds" if engine.curve_from == engine.KEPT else "does not hold")
    if engine.curve_from == engine.MEASURED:
        others = {name: value for name, value in kept.items() if name != key}
        remember(memory, {**dict(list(others.items())[1 - MOST_KEPT :]), key: asdict(engine.cost)})


def _curve(kept: Any) -> PassCost | None:
    """None where there is none, or a damaged one."""
    try:
        rows, elapsed_s = tuple(map(int, kept["rows"])), tuple(map(float, kept["elapsed_s"]))
    except (KeyError, TypeError, ValueError):
        return None
    ascending = all(a < b for a, b in pairwise(rows))
    whole = len(rows) == len(elapsed_s) > 1 and rows[0] >= 1 and ascending and all(0 < s < 1e6 for s in elapsed_s)
    return PassCost(rows, elapsed_s) if whole else None


def _key(pipe: TextGenerator) -> str | None:
    """None where curves are not kept: on a GPU, of weights that come from the disk, of a machine that does not say its
    boot."""
    weights = pipe.engine.weights
    if weights.device.type != "cpu" or weights.streamed:
        return None
    try:
        boot = BOOT.read_text(encoding="ascii")
    except OSError:
        return None
    follows_from = {
        "boot": boot,
        "node": platform.node(),
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "code": [sha256_of(path) for path in sorted((paths.PACKAGE / "engine").rglob("*.py"))],
        "shape": asdict(weights.shape),
        "dtype": str(weights.dtype),
        "budget_rows": pipe.engine.limits.budget_rows,
        "attention": pipe.engine.backend.attention_name,
    }
    return hashlib.sha256(json.dumps(follows_from, sort_keys=True).encode()).hexdigest()
