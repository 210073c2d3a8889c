"""The organiser's model computes the scores of submitted answers: all in float32; some again in the submission's own
dtype and in small passes, to measure the noise; and in the same way those that the first look would reject.

Weights that do not fit into memory are read layer by layer from the disk, as in a run (`text_generation.load`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
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
"""Times the limit: an answer with a token further behind is not looked at again, since that would not help it."""

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
    """By row, for each token of the answer: by how many logits the model prefers another. Where there were several
    looks, the least of them: a token that is the first choice in one of them may be an honest program's."""
    leads: Floats
    """By how many logits the likeliest token is ahead of the second, in all places, in float32."""
    noise: Floats
    """Changes of that lead in other looks."""


Take = Callable[..., dict[int, Look]]
"""`take(dtype, probes, rows=None)`: the scores of some tokens (probes, by row) with the model in that dtype, in passes
of so many rows."""


def look(subject: Subject, device: str | None = None) -> Seen:
    """Compute, with the organiser's model, the scores of all submitted tokens.

    Raises what loading the model raises, and ResourceError (R301) where an answer does not fit into memory.
    """
    model = Model(subject.model, device)
    return seen(subject, lambda *which: model.take(subject, *which))


def seen(subject: Subject, take: Take) -> Seen:
    """The scores of an audit, computed by `take`."""
    rows, own = sorted(subject.answers), submitted(subject)
    first = take("float32", own)

    def again(some: Sequence[int]) -> list[dict[int, Look]]:
        """Look again at the two likeliest tokens of the first look: the change of their difference is noise."""
        probes = {row: np.concatenate([own[row], first[row].top], axis=1) for row in some}
        sizes = (None, SMALL_PASS_ROWS) if subject.dtype != "float32" else (SMALL_PASS_ROWS,)
        return [take(subject.dtype, probes, size) for size in sizes] if probes else []

    looks = again(spread(rows, CALIBRATION_ROWS))
    noise = np.concatenate(
        [each.behind[:, 2] - each.behind[:, 1] - first[row].lead for of in looks for row, each in of.items()]
    )
    behind = {row: each.behind[:, 0] for row, each in first.items()}
    leads = np.concatenate([first[row].lead for row in rows])
    limit = allowance.limit(noise, leads)
    for of in again([row for row in rows if limit < behind[row].max() <= HOPELESS * limit]):
        behind |= {row: np.minimum(behind[row], each.behind[:, 0]) for row, each in of.items()}
    return Seen(behind, leads, noise)


def submitted(subject: Subject) -> dict[int, Ints]:
    """The tokens of each answer (n, 1), as probes."""
    return {row: ints(subject.answers[row])[:, None] for row in sorted(subject.answers)}


def spread(rows: Sequence[int], most: int) -> list[int]:
    """At most so many of the rows, evenly spread."""
    count = min(most, len(rows))
    return [rows[turn * len(rows) // count] for turn in range(count)]


class Model:
    """The organiser's copy, in one dtype at a time: the next takes the room of the one before."""

    def __init__(self, folder: Path, device: str | None = None, memory_bytes: int | None = None) -> None:
        """`memory_bytes`: as for `text_generation.load`."""
        self.folder, self.device, self.memory_bytes = folder, device, memory_bytes
        self.dtype = ""
        self.pipe: text_generation.TextGenerator | None = None

    def take(
        self, subject: Subject, dtype: str, probes: Mapping[int, Ints], rows: int | None = None
    ) -> dict[int, Look]:
        """A `Take` at the answers of the subject."""
        given = [Given(subject.prompts[row], subject.answers[row], each) for row, each in probes.items()]
        return dict(zip(probes, teacher_forcing.look(self._engine(dtype), given, rows), strict=True))

    def _engine(self, dtype: str) -> Engine:
        if self.pipe is None or self.dtype != dtype:
            self.pipe = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.pipe = text_generation.load(
                self.folder, dtype=dtype, device=self.device, memory_bytes=self.memory_bytes
            )
            self.dtype = dtype
        return self.pipe.engine
