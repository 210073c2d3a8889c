"""How far behind the model's own choice an honest answer's tokens may be, from the model's own noise.

Rounding and the order of sums move logits. Where the likeliest token leads by less than they move the difference of the
two, an honest program may answer with the second, and is behind by that lead; elsewhere it cannot. So the noise of that
difference, measured on the same answers, says what is allowed: of a single token, and, with every place's own lead, of
the sum over all. The idea of comparing claimed tokens under teacher forcing is published as Token-DiFR (arXiv
2511.20621), which compares with a sampling seed; here there is none, and the yardstick is the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.engine.arrays import Floats

RARE, TAIL = 0.99, 1.5
"""The limit of a token is so many times this quantile of the noise: not the largest, which an odd answer could stretch.
An honest token beyond it is rare, and must be beyond it in every look (`looking.py`) to count."""

SAFETY = 2.0
"""For the sum, noise of so many times the size: another machine's kernels have their own orders of sums."""

LEAST_LIMIT = 0.02
"""Logits. In float32 the noise is thousandths, and a margin of hundredths changes no answer worth a lie."""

DEVIATIONS = 6.0
"""Of the sum of an honest submission's margins, above its expectation."""


@dataclass(frozen=True)
class Allowance:
    limit: float
    """Logits that a single token may be behind."""
    total: float
    """Logits that all tokens together may be behind."""
    noise: float
    """The noise's quantile `RARE`, in logits."""
    places: int
    """Of how many places it was measured."""

    def as_json(self) -> dict[str, Any]:
        return {
            "token_logits": self.limit,
            "sum_logits": self.total,
            "noise_logits": self.noise,
            "noise_places": self.places,
        }


def limit(noise: Floats) -> float:
    """Logits that a single token may be behind. `noise`: as for `allowance`."""
    return max(LEAST_LIMIT, TAIL * _rare(noise))


def allowance(noise: Floats, leads: Floats) -> Allowance:
    """`noise`: changes of the lead of the likeliest token over the second, where it was computed two ways; of one place
    at least. `leads`: that lead in every submitted place."""
    size = np.sort(np.abs(noise.astype(np.float64))) * SAFETY
    most = limit(noise)
    near = leads[leads <= most].astype(np.float64)
    # The chance that noise turns a lead round, never taken for nothing within the limit: few places were measured.
    beyond = len(size) - np.searchsorted(size, near, side="left")
    chance = (beyond + 1) / (len(size) + 1) / 2  # noise of the other sign makes a lead larger
    expected, variance = float((near * chance).sum()), float((near**2 * chance).sum())
    return Allowance(most, most + expected + DEVIATIONS * variance**0.5, _rare(noise), len(size))


def _rare(noise: Floats) -> float:
    return float(np.quantile(np.abs(noise.astype(np.float64)), RARE))
