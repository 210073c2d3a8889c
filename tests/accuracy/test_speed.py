"""How much faster one run was than another, in one sentence; and what has no time says why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.record import speed


def manifest(*sections_s: Any, **more: Any) -> dict[str, Any]:
    return {
        "state": "finished",
        "device": "cpu",
        "phases_s": {"timed": list(sections_s)},
        "telemetry": {"energy_j": None},
        "environment": {"processor": "EPYC", "gpu": None},
        **more,
    }


def said(a: dict[str, Any], b: dict[str, Any], rows_a: int = 30, rows_b: int = 30) -> str:
    return speed.between(a, b, rows_a, rows_b).headline


def test_the_headline_has_the_ratio_of_medians_and_each_spread() -> None:
    a, b = manifest(63.2), manifest(9.4, 9.1, 9.9)
    assert said(a, b) == (
        "B is 6.72 × as fast as A: 9.40 s (9.10 s to 9.90 s in 3 sections) against 63.20 s (one section)."
    )
    assert said(b, a) == (
        "A is 6.72 × as fast as B: 9.40 s (9.10 s to 9.90 s in 3 sections) against 63.20 s (one section)."
    )


def test_medians_that_nothing_tells_apart_are_called_equal() -> None:
    assert said(manifest(10.0), manifest(10.1)).startswith("B takes as long as A: 10.10 s")


def test_energy_and_other_devices_are_told_where_they_are_known() -> None:
    energy, h100 = {"energy_j": 1234.0}, {"processor": "EPYC", "gpu": "H100"}
    a, b = manifest(10.0, telemetry=energy), manifest(5.0, telemetry={"energy_j": 600.0})
    assert said(a, b).endswith("; energy 1,234 J for A, 600 J for B.")
    assert "energy" not in said(a, manifest(5.0))
    other = manifest(5.0, device="cuda", environment=h100)
    assert said(a, other).endswith("; not on one device: EPYC for A, H100 for B.")


@pytest.mark.parametrize(
    ("b", "why"),
    [
        (manifest(5.0, resumed=[{"kept": 3}]), "B was resumed, so it has no valid time"),
        (manifest(5.0, state="failed"), "B did not finish"),
        (manifest(), "B has no time in its manifest"),
        (manifest(-1.0), "B has no time in its manifest"),
        (manifest(float("nan")), "B has no time in its manifest"),
        (manifest(10**400), "B has no time in its manifest"),
        (manifest("5"), "B has no time in its manifest"),
        ({}, "B did not finish"),
    ],
)
def test_what_has_no_time_says_why(b: dict[str, Any], why: str) -> None:
    assert said(manifest(10.0), b) == f"No times to compare: {why}."
    assert speed.between(manifest(10.0), b, 30, 30).ratio is None


def test_times_of_other_numbers_of_rows_are_not_compared() -> None:
    assert said(manifest(10.0), manifest(1.0), 30, 3) == "No times to compare: A answered 30 rows, B 3."


times = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=5)


@given(a=times, b=times)
def test_the_ratio_turns_over_with_the_runs(a: list[float], b: list[float]) -> None:
    one, other = (speed.between(manifest(*x), manifest(*y), 1, 1).ratio for x, y in ((a, b), (b, a)))
    assert one is not None
    assert other is not None
    assert one * other == pytest.approx(1.0)


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(manifest(1.0))), value=anything)
@pytest.mark.slow
def test_no_manifest_stops_it(key: str, value: Any) -> None:
    assert said(manifest(10.0), manifest(1.0, **{key: value})).endswith(".")
