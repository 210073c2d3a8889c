"""The organiser's score: exact match after `lstrip()` and dropping newlines; nothing else is forgiven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.accuracy.rules import is_exact


@dataclass(frozen=True)
class Score:
    correct: int
    scored: int
    """Rows that have an answer in the file."""

    @property
    def share(self) -> float | None:
        return self.correct / self.scored if self.scored else None


def score(outputs: Sequence[list[dict[str, Any]]], answers: Sequence[str | None]) -> Score:
    """`outputs` in pipe()'s form, by row; rows without an answer are left out."""
    pairs = [
        (out[0]["generated_text"], answer) for out, answer in zip(outputs, answers, strict=True) if answer is not None
    ]
    return Score(sum(is_exact(said, answer) for said, answer in pairs), len(pairs))
