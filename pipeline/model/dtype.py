"""The dtype that a checkpoint is computed in. Apart from `config.py`, which needs no torch."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.engine.device import DTYPES
from pipeline.errors import UsageError
from pipeline.model import config


def pick_dtype(name: str | None, folder: Path) -> torch.dtype:
    """The dtype of that name; without a name the one that the checkpoint in `folder` is stored in.

    Raises UsageError (U203) for a dtype that the engine does not run, IntegrityError (M301, M302) where config.json
    cannot be read.
    """
    name = name or config.own_dtype(folder)
    if name not in DTYPES:
        raise UsageError(
            "U203", "there is no such dtype", expected=" or ".join(DTYPES), actual=name, fix="name one of them"
        )
    return DTYPES[name]
