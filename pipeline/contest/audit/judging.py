"""Two checks from what the model saw: no token further behind than the limit, and all together within the sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.check import INTEGRITY, CheckResult, decided, listed, unknown
from pipeline.contest.audit.allowance import Allowance, allowance
from pipeline.contest.audit.looking import Seen

TOKENS, SUM = "audit-tokens", "audit-sum"

BLUNT = 3.0
"""Logits. With a larger limit the noise hides what the audit looks for, so answers within it show nothing."""


@dataclass(frozen=True)
class Audit:
    allowed: Allowance
    rows: int
    tokens: int
    other: int
    """Tokens to which the model prefers another."""
    total: float
    """Logits that all tokens together are behind."""
    largest: float
    beyond: tuple[int, ...]
    """Rows with a token beyond the limit."""

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "other_tokens": self.other,
            "sum_logits": self.total,
            "largest_logits": self.largest,
            "rows_beyond": list(self.beyond),
            "allowed": self.allowed.as_json(),
        }


def judge(seen: Seen) -> Audit:
    together = np.concatenate(list(seen.behind.values())).astype(np.float64)
    allowed = allowance(seen.noise, seen.leads)
    return Audit(
        allowed,
        len(seen.behind),
        len(together),
        int((together > 0).sum()),
        float(together.sum()),
        float(together.max()),
        tuple(row for row, behind in sorted(seen.behind.items()) if behind.max() > allowed.limit),
    )


def checks(made: Audit) -> list[CheckResult]:
    allowed = made.allowed
    limit, total = f"at most {allowed.limit:.3g} logits behind", f"at most {allowed.total:.3g} logits behind in all"
    measured = f"noise of the model here {allowed.noise:.2g}, from {allowed.places} places"
    if made.beyond:
        found = f"rows {listed(made.beyond)}: up to {made.largest:.3g}"
    else:
        found = f"{made.other} of {made.tokens:,} tokens not the model's first choice, up to {made.largest:.2g} behind"
    fine = made.total <= allowed.total
    if allowed.limit > BLUNT:
        why = f"the noise is so large that honest answers cannot be told from others; {found}"
        blunt = None if fine and not made.beyond else False
        return [decided(TOKENS, INTEGRITY, blunt, why, f"{limit}; {measured}"), unknown(SUM, INTEGRITY, why, total)]
    return [
        decided(TOKENS, INTEGRITY, not made.beyond, found, f"each token the model's choice, or {limit}; {measured}"),
        decided(SUM, INTEGRITY, fine, f"{made.total:.3g} logits over {made.tokens:,} tokens", total),
    ]
