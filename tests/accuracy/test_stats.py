"""McNemar's exact test and Tango's interval, on published values and by what defines them."""

from __future__ import annotations

from math import comb, lgamma, log, log1p

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.accuracy.stats import Z95, at_most, interval, mcnemar, wilson

COUNTS = st.integers(0, 300)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        # Airway hyper-responsiveness, in Fagerland, Lydersen, Laake: Statistics in Medicine 33, 2014.
        (1, 7, 0.0703125),
        (0, 5, 0.0625),
        (0, 6, 0.03125),
        (5, 5, 1.0),
        (0, 0, 1.0),
        (1, 0, 1.0),
    ],
)
def test_mcnemar_on_known_values(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p, abs=1e-12)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


@given(COUNTS, COUNTS)
def test_mcnemar_is_the_chance_of_what_is_as_unlikely(only_a: int, only_b: int) -> None:
    tosses = only_a + only_b
    as_far = [heads for heads in range(tosses + 1) if abs(2 * heads - tosses) >= abs(only_a - only_b)]
    assert mcnemar(only_a, only_b) == pytest.approx(sum(comb(tosses, heads) for heads in as_far) / 2**tosses)


def test_mcnemar_neither_overflows_nor_vanishes() -> None:
    assert mcnemar(0, 900) == 2 / 2**900
    assert 0 < mcnemar(3000, 4000) < 1e-30


@pytest.mark.parametrize(
    ("only_a", "only_b", "rows", "expected"),
    [
        # The same paper as above: Tango's interval of the difference, -0.517 to -0.026.
        (7, 1, 21, (-0.517, -0.026)),
        # Soft contact lenses, in Tango's own paper: one of 44 pairs differs.
        (0, 1, 44, (-0.059, 0.118)),
        # Approval of a president, in Agresti's Categorical Data Analysis: a large sample, where all methods agree.
        (150, 86, 1600, (-0.059, -0.021)),
    ],
)
def test_tango_s_interval_on_published_values(only_a: int, only_b: int, rows: int, expected: tuple) -> None:
    assert interval(only_a, only_b, rows) == pytest.approx(expected, abs=0.0006)


@pytest.mark.parametrize("rows", [1, 30, 500, 14042])
def test_where_no_row_differs_the_interval_still_has_a_width(rows: int) -> None:
    edge = Z95**2 / (rows + Z95**2)
    assert interval(0, 0, rows) == pytest.approx((-edge, edge), abs=1e-9)


@given(COUNTS, COUNTS, COUNTS)
def test_an_interval_holds_the_difference_and_turns_with_the_runs(only_a: int, only_b: int, same: int) -> None:
    rows = only_a + only_b + same
    assume(rows > 0)
    low, high = interval(only_a, only_b, rows)
    assert -1 <= low <= (only_b - only_a) / rows <= high <= 1
    assert interval(only_b, only_a, rows) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("p_a", "p_b"), [(0.02, 0.02), (0.1, 0.05), (0.3, 0.1), (0.01, 0.2), (0.0, 0.05)])
def test_ninety_five_percent_are_about_ninety_five(p_a: float, p_b: float) -> None:
    """Exactly, by summing over every outcome of 40 rows."""
    rows, covered = 40, 0.0
    for a in range(rows + 1):
        for b in range(rows + 1 - a):
            chance = comb(rows, a) * comb(rows - a, b) * p_a**a * p_b**b * (1 - p_a - p_b) ** (rows - a - b)
            if chance > 1e-7:
                low, high = interval(a, b, rows)
                covered += chance * (low <= p_b - p_a <= high)
    assert 0.93 < covered <= 1


@pytest.mark.parametrize(
    ("right", "rows", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_s_interval_on_published_values(right: int, rows: int, expected: tuple) -> None:
    """Newcombe, Statistics in Medicine 17, 1998, table I."""
    assert wilson(right, rows) == pytest.approx(expected, abs=5e-5)
    low, high = wilson(rows - right, rows)
    assert (1 - high, 1 - low) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("rows", [1, 2, 30, 100, 1000, 5000, 40_000])
@pytest.mark.parametrize("share", [0.005, 0.05, 0.4])
def test_a_count_exceeds_its_bound_as_seldom_as_asked(rows: int, share: float) -> None:
    """By the whole distribution, added up from its other end; the next lower bound is exceeded more often."""
    weights = np.array([lgamma(rows + 1) - lgamma(k + 1) - lgamma(rows - k + 1) for k in range(rows + 1)])
    counts = np.arange(rows + 1)
    chances = np.exp(weights + counts * log(share) + (rows - counts) * log1p(-share))
    beyond = np.cumsum(chances[::-1])[::-1]  # P(count >= k)
    bound = at_most(rows, share, 1e-3)
    assert bound == rows or beyond[bound + 1] <= 1e-3 * (1 + 1e-6)
    assert beyond[bound] > 1e-3 * (1 - 1e-6)
