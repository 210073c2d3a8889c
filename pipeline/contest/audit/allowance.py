"""How far behind the model's own choice an honest answer's tokens may be, from the model's own noise.

Rounding and the order of sums move logits, and so the lead of the likeliest token over the second. Where noise is
larger than the lead, an honest program may answer with the second token, and is then behind by the lead; elsewhere it
cannot. So this noise, measured on the same answers, says how far a single token may be behind; with every place's own
lead it also says how much all tokens together may be. The idea of comparing claimed tokens under teacher forcing is
published as Token-DiFR (arXiv 2511.20621), which compares under a sampling seed; here the noise is the yardstick.
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
"""Tokens of an honest submission that may be expected beyond the limit at the first look; later ones excuse some."""

SAFETY = 2.0
"""The sum is judged as if noise were so many times as large: another machine's kernels sum in other orders."""

LEAST_LIMIT = 0.02
"""Logits. In float32 noise is thousandths of a logit, and nobody gains by tokens that are hundredths behind."""

DEVIATIONS = 6.0
"""The sum of an honest submission's margins may be so many standard deviations above its expectation."""


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

    An honest token is behind by its place's lead, where noise reversed that. So the limit is a lead that noise hardly
    ever reverses: in all places with a larger one together it would reverse `RISK` tokens.
    """
    spread = _scale(noise) * WIDER
    largest_first = np.sort(leads.astype(np.float64))[::-1]
    turned = np.cumsum(np.exp(-largest_first / spread) / 2)  # noise of the other sign makes a lead larger
    rare = int(np.searchsorted(turned, RISK, side="right"))
    reached = float(largest_first[rare]) if rare < len(largest_first) else 0.0
    return max(LEAST_LIMIT, _rare(noise), reached)


def allowance(noise: Floats, leads: Floats) -> Allowance:
    """`leads`: by how much the likeliest token leads over the second, in every submitted place. `noise`: how much that
    changed where it was computed in two ways; at least one place."""
    size = np.sort(np.abs(noise.astype(np.float64))) * SAFETY
    most = limit(noise, leads)
    near = leads[leads <= most].astype(np.float64)
    # The chance that noise reverses a lead. Within the limit never zero: noise was measured in few places.
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
