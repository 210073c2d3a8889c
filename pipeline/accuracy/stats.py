"""Two runs on the same rows, as numbers: is the difference in accuracy real, and how large can it be.

Only rows that one run gets right and the other does not carry information: `only_a` and `only_b`.
"""

from __future__ import annotations

from math import comb, exp, log, log1p, sqrt

ALLOWED_DROP = 0.005
"""Largest allowed drop of accuracy, as a share, by the contest's rules."""

ALLOWED_PERCENT = f"{100 * ALLOWED_DROP:g} %"
DROP_RULE = f"a drop of at most {ALLOWED_PERCENT}"

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test: as likely as a fair coin that falls so unevenly, or more.

    Integers until the last division, so that it neither under- nor overflows.
    """
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(tosses, heads) for heads in range(fewer + 1))
    return min(1.0, 2 * tail / 2**tosses)


def interval(only_a: int, only_b: int, rows: int) -> tuple[float, float]:
    """95 % interval of B's accuracy less A's, by Tango's score method (Statistics in Medicine 17, 1998).

    Unlike the textbook's it has a width where no row differs, and keeps to its 95 % with few that do. The interval is
    all differences d that a score test does not reject; its ends are found by bisection.
    """

    def z(d: float) -> float:
        a, b, c = 2 * rows, -only_a - only_b + (2 * rows - only_b + only_a) * d, -only_a * d * (1 - d)
        q = (sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # P(only A) at its likeliest, given d
        variance = rows * (2 * q + d * (1 - d))
        gap = only_b - only_a - rows * d
        return gap / sqrt(variance) if variance > 0 else (gap > 0) * 1e9 - (gap < 0) * 1e9

    def end(inside: float, outside: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(z(middle)) <= Z95 else (inside, middle)
        return inside

    found = (only_b - only_a) / rows
    return end(found, -1.0), end(found, 1.0)


def at_most(rows: int, share: float, chance: float) -> int:
    """The smallest number that a count of rows exceeds with at most this chance, where each counts with probability
    `share`, whatever the others do."""
    number, below = 0, rows * log1p(-share)
    reached = exp(below)
    while 1 - reached > chance and number < rows:
        # By logarithms: the first terms of thousands of rows are smaller than any float.
        below += log((rows - number) / (number + 1)) + log(share) - log1p(-share)
        number, reached = number + 1, reached + exp(below)
    return number


def wilson(right: int, rows: int) -> tuple[float, float]:
    """95 % interval of an accuracy, by Wilson's score method (J. American Statistical Association 22, 1927).

    Unlike the textbook's it has a width where all rows are right, and stays between 0 and 1.
    """
    share, z2 = right / rows, Z95 * Z95
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = Z95 * sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows)) / (1 + z2 / rows)
    return max(0.0, middle - half), min(1.0, middle + half)


def coverage(compared: int, of: int) -> str:
    """The sentence that comes first wherever less than all rows of the data were compared; empty where all were."""
    return f"Only {compared:,} of {of:,} rows were compared, and the others may be anything. " * (compared < of)
