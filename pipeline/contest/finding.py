"""What a check says, and the contest's numbers that checks ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from pipeline.schemas import Strict

OK, FAIL, UNKNOWN, HUMAN = "ok", "fail", "unknown", "human"
State = Literal["ok", "fail", "unknown", "human"]


@dataclass(frozen=True)
class Finding:
    state: State
    found: str
    wanted: str = ""


class Contest(Strict):
    """`contest` in `configs/rules.yaml`."""

    model: str
    """A name under `configs/models`."""
    dtype: str
    tensors: int = Field(gt=0)
    weights_bytes: int = Field(gt=0)
    torch_major: int
    largest_team: int


def found(fine: bool, what: str, wanted: str = "") -> Finding:
    return Finding(OK if fine else FAIL, what, wanted)


def fail(what: str, wanted: str = "") -> Finding:
    return Finding(FAIL, what, wanted)


def unknown(what: str, wanted: str = "") -> Finding:
    return Finding(UNKNOWN, what, wanted)
