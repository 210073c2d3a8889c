"""The contest's numbers, as `contest` in `configs/rules.yaml` has them."""

from __future__ import annotations

from pydantic import Field

from pipeline.schemas import Strict


class Contest(Strict):
    model: str
    """A name under `configs/models`."""
    dtype: str
    tensors: int = Field(gt=0)
    weights_bytes: int = Field(gt=0)
    torch_major: int
    largest_team: int
