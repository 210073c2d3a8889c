"""The organiser's model looks at submitted answers: at all in float32; at some, for the noise, in the submission's own
dtype and in passes of another size; and so again at those that would be held against it.

Weights that do not fit into memory are read layer by layer from the disk, as in a run (`text_generation.load`).
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline import text_generation
from pipeline.contest.audit import allowance
from pipeline.engine import teacher_forcing
from pipeline.engine.arrays import Floats, Ints, ints
from pipeline.engine.engine import Engine
from pipeline.engine.teacher_forcing import Given, Look

CALIBRATION_ROWS = 32
"""Answers, spread over all, on which the noise is measured."""

SMALL_PASS_ROWS = 64

HOPELESS = 4.0
"""Times the limit: no look in another dtype brings back a token that is further behind."""

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Subject:
    """The answers that are looked at, and the model that looks."""

    model: Path
    """The organiser's own copy."""
    dtype: str
    """Of `DTYPES`: the submission's."""
    prompts: Mapping[int, Sequence[int]]
    answers: Mapping[int, Sequence[int]]
    """Token ids by row; of each answer one at least, all in the vocabulary."""


@dataclass(frozen=True)
class Seen:
    behind: Mapping[int, Floats]
    """By row, for each token of the answer: by how many logits the model prefers another; where it was looked at again,
    in the look that prefers it least: a token that one look has as its first choice is an honest one's, too."""
    leads: Floats
    """Of the likeliest token over the second, in all places, in float32."""
    noise: Floats
    """Changes of that lead in other looks."""


def look(subject: Subject, device: str | None = None, noise: Floats | None = None) -> Seen:
    """`noise`: None, or what an earlier look has measured by the same model, dtype and device.

    Raises what loading the model raises, and ResourceError (R301) where an answer does not fit into memory.
    """
    rows = sorted(subject.answers)
    pipe = text_generation.load(subject.model, dtype="float32", device=device)
    own = {row: ints(subject.answers[row])[:, None] for row in rows}
    first = _looks(pipe.engine, subject, own)
    if subject.dtype != "float32":
        pipe = _loaded_instead(pipe, subject, device)

    def again(some: Sequence[int]) -> list[dict[int, Look]]:
        """Behind each token, the two that the first look has as likeliest: their difference here and there is noise."""
        probes = {row: np.concatenate([own[row], first[row].top], axis=1) for row in some}
        sizes = (None, SMALL_PASS_ROWS) if subject.dtype != "float32" else (SMALL_PASS_ROWS,)
        return [_looks(pipe.engine, subject, probes, size) for size in sizes]

    if noise is None:
        looks = again(spread(rows, CALIBRATION_ROWS))
        noise = np.concatenate(
            [each.behind[:, 2] - each.behind[:, 1] - first[row].lead for of in looks for row, each in of.items()]
        )
    behind = {row: each.behind[:, 0] for row, each in first.items()}
    limit = allowance.limit(noise)
    for of in again([row for row in rows if limit < behind[row].max() <= HOPELESS * limit]):
        behind |= {row: np.minimum(behind[row], each.behind[:, 0]) for row, each in of.items()}
    return Seen(behind, np.concatenate([first[row].lead for row in rows]), noise)


def spread(rows: Sequence[int], most: int) -> list[int]:
    """At most so many of the rows, evenly spread."""
    count = min(most, len(rows))
    return [rows[turn * len(rows) // count] for turn in range(count)]


def _loaded_instead(
    pipe: text_generation.TextGenerator, subject: Subject, device: str | None
) -> text_generation.TextGenerator:
    """The model in the submission's dtype, in the room of the one before."""
    del pipe.engine
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return text_generation.load(subject.model, dtype=subject.dtype, device=device)


def _looks(engine: Engine, subject: Subject, probes: Mapping[int, Ints], rows: int | None = None) -> dict[int, Look]:
    """Looks at the answers of the rows in `probes`, by row."""
    given = [Given(subject.prompts[row], subject.answers[row], each) for row, each in probes.items()]
    return dict(zip(probes, teacher_forcing.look(engine, given, rows), strict=True))
