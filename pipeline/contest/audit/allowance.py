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

RARE, COMMON = 0.99, 0.9
"""Quantiles of the noise's size from which its scale is read: not the largest, which an odd answer could stretch.

Noise falls off as exp(-size / scale). Over 14,067 places in 29 sets, bfloat16 against float32, quantiles 0.9, 0.99,
0.999 and 0.9999 were 0.22, 0.42, 0.66 and 0.93 of a logit: as far apart as that says (benchmarks/audit.py)."""

WIDER = 1.25
"""Another program's noise may be so many times as wide: it has its own orders of sums."""

RISK = 1e-3
"""How many tokens of an honest submission may be expected beyond the limit; in every look (`looking.py`), fewer."""

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


def limit(noise: Floats, leads: Floats) -> float:
    """Logits that a single token may be behind; arguments as for `allowance`.

    An honest token is behind by its place's lead, where noise turned that round. So the limit is the largest lead for
    which that is not too rare: all places with a larger one together would bring `RISK` tokens.
    """
    spread = _scale(noise) * WIDER
    largest_first = np.sort(leads.astype(np.float64))[::-1]
    turned = np.cumsum(np.exp(-largest_first / spread) / 2)  # noise of the other sign makes a lead larger
    rare = int(np.searchsorted(turned, RISK, side="right"))
    reached = float(largest_first[rare]) if rare < len(largest_first) else 0.0
    return max(LEAST_LIMIT, _rare(noise), reached)


def allowance(noise: Floats, leads: Floats) -> Allowance:
    """`noise`: changes of the lead of the likeliest token over the second, where it was computed two ways; of one place
    at least. `leads`: that lead in every submitted place."""
    size = np.sort(np.abs(noise.astype(np.float64))) * SAFETY
    most = limit(noise, leads)
    near = leads[leads <= most].astype(np.float64)
    # The chance that noise turns a lead round, never taken for nothing within the limit: few places were measured.
    beyond = len(size) - np.searchsorted(size, near, side="left")
    chance = (beyond + 1) / (len(size) + 1) / 2  # noise of the other sign makes a lead larger
    expected, variance = float((near * chance).sum()), float((near**2 * chance).sum())
    return Allowance(most, most + expected + DEVIATIONS * variance**0.5, _rare(noise), len(size))


def _scale(noise: Floats) -> float:
    """The scale of the exponential whose quantiles the measured ones do not exceed."""
    size = np.abs(noise.astype(np.float64))
    scales = [np.quantile(size, share) / -np.log(1 - share) for share in (COMMON, RARE)]
    return max(float(max(scales)), LEAST_LIMIT / 10)


def _rare(noise: Floats) -> float:
    return float(np.quantile(np.abs(noise.astype(np.float64)), RARE))
