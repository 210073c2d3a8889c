"""The dtype that a checkpoint is computed in. Apart from `config.py`, which needs no torch."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline import paths
from pipeline.engine.device import DTYPES
from pipeline.errors import IntegrityError, UsageError
from pipeline.model import config
from pipeline.model.safetensors_file import read_header

FLOATS = {"F16", "F64"}
"""Dtypes of tensors that lose nothing, or next to nothing, in another one that the engine computes in."""


def rewritten(folder: Path) -> str:
    """The remedy for a checkpoint in float16: the command that writes it in a dtype that the engine computes in."""
    source, target = repr(paths.shown(folder)), repr(paths.shown(folder) + "-float32")
    return (
        'write it once in float32, which float16 fits into: python -c "import torch; from transformers import '
        f"AutoTokenizer, Phi3ForCausalLM; Phi3ForCausalLM.from_pretrained({source}, torch_dtype=torch.float32)"
        f'.save_pretrained({target}); AutoTokenizer.from_pretrained({source}).save_pretrained({target})" '
        f"(torch.bfloat16 in its place takes half the room and rounds), then name that folder"
    )


def pick_dtype(name: str | None, folder: Path) -> torch.dtype:
    """The dtype of that name; without a name the one that the checkpoint in `folder` is stored in.

    Raises UsageError (U203) for a dtype that the engine does not run, IntegrityError: M312 the checkpoint is stored in
    one, M301, M302 config.json cannot be read.
    """
    if not name and (own := config.own_dtype(folder)) not in DTYPES:
        raise IntegrityError(
            "M312",
            f"the checkpoint is in {own}, which the engine does not compute in",
            where=paths.shown(folder / "config.json"),
            expected=" or ".join(DTYPES),
            actual=own,
            fix=_remedy(folder),
        )
    name = name or own
    if name not in DTYPES:
        raise UsageError(
            "U203", "there is no such dtype", expected=" or ".join(DTYPES), actual=name, fix="name one of them"
        )
    return DTYPES[name]


def _remedy(folder: Path) -> str:
    """A remedy that goes by the tensors: a config.json may say float16 of weights that are none."""
    stored = {entry.dtype for path in folder.glob("*.safetensors") for entry in read_header(path, "copy it anew")}
    if stored <= {"BF16", "F32"}:
        return f"its tensors are {' and '.join(sorted(stored)) or 'elsewhere'}: give --dtype {' or '.join(DTYPES)}"
    return rewritten(folder) if stored & FLOATS else config.OTHER_MODEL
