"""One prompt's answer, as a pipe hands it on while the others are still being answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answered:
    index: int
    """Position of the prompt in the call's input, from 0."""
    output: list[dict[str, Any]]
    """As pipe() returns it for this chat."""
    token_ids: list[int]
    """The answer's tokens, the stop token included."""
