"""The contest's numbers, as `contest` in `configs/rules.yaml` has them."""

from __future__ import annotations

from functools import cache

from pydantic import BaseModel, ConfigDict

from pipeline import paths, settings
from pipeline.schemas import Strict


class Contest(Strict):
    model: str
    """A name under `configs/models`."""
    torch_major: int
    largest_team: int


class _File(BaseModel):
    """The rules beside it are `rules.load`'s."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    contest: Contest


@cache
def load() -> Contest:
    """The contest's numbers, from configs/rules.yaml. Raises IntegrityError (M101)."""
    return settings.load(paths.CONFIGS / "rules.yaml", _File).contest
