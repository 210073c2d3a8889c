"""The contest's numbers, as `contest` in `configs/rules.yaml` has them."""

from __future__ import annotations

from functools import cache

from pydantic import BaseModel, ConfigDict, Field

from pipeline import paths, settings
from pipeline.schemas import Strict


class Contest(Strict):
    model: str
    """A name under `configs/models`."""
    dtype: str
    tensors: int = Field(gt=0)
    weights_bytes: int = Field(gt=0)
    torch_major: int
    largest_team: int


class _File(BaseModel):
    """The rules beside it are `rules.load`'s."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    contest: Contest


@cache
def load() -> Contest:
    """Raises IntegrityError (M101)."""
    return settings.load(paths.CONFIGS / "rules.yaml", _File).contest
