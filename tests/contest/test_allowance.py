"""How many rows of two runs may differ: none where both promise equal bytes, else what rounding explains."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.contest.checks.answer_checks import SAME_SHARE, allowance


def manifest(dtype: str = "bfloat16", holds: bool = True, gpu: str = "Orin", bits: str = "abc") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "model": {"lock_sha256": "1"},
        "arguments": {"max_new_tokens": 48},
        "environment": {"gpu": gpu, "packages": {"torch": "2.4.1"}},
        "engine": {
            "backend": {"attention": "kernel"},
            "invariant": {"holds": holds, "why": "two sizes had other bits", "bits": bits},
        },
    }


def test_two_runs_that_promise_equal_bytes_may_not_differ_at_all() -> None:
    allowed = allowance(manifest(), manifest())
    assert allowed.share == 0.0
    assert "at most 0 of 30 rows may differ: both runs tried" in allowed.words(30)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (manifest(holds=False), "two sizes had other bits"),
        (manifest(gpu="H100"), "other kinds of device"),
        (manifest(bits="abd"), "other orders of sums"),
        ({"dtype": "bfloat16"}, "its manifest does not say"),
    ],
)
def test_any_other_pair_may_differ_by_rounding_and_the_reason_is_said(other: dict[str, Any], why: str) -> None:
    for allowed in (allowance(manifest(), other), allowance(other, manifest())):
        assert allowed.share == SAME_SHARE["bfloat16"]
        assert why in allowed.words(30)


def test_bfloat16_on_either_side_is_rounding_on_both_and_an_unknown_dtype_explains_nothing() -> None:
    assert allowance(manifest("float32"), manifest()).share == SAME_SHARE["bfloat16"]
    assert allowance(manifest("float32", holds=False), manifest("float32")).share == SAME_SHARE["float32"]
    assert allowance(manifest("int4"), manifest("int4", holds=False)).share == 0.0


def test_few_rows_in_bfloat16_may_differ_by_chance_which_decides_nothing_and_in_float32_none() -> None:
    """30 rows that each differ in 5 % of runs: more than one does in almost every second pair of runs."""
    rounded = allowance(manifest(holds=False), manifest())
    assert [rounded.fine(differing, 30) for differing in (0, 1, 2, 6, 7, 30)] == [True, True, None, None, False, False]
    assert [rounded.fine(differing, 1000) for differing in (50, 51, 73, 74)] == [True, None, None, False]
    assert "at most 1 of 30 rows may differ, and up to 6 by chance, which --audit decides: " in rounded.words(30)
    exact = allowance(manifest("float32", holds=False), manifest("float32"))
    assert [exact.fine(differing, 199) for differing in (0, 1)] == [True, False]
    assert [exact.fine(differing, 1000) for differing in (5, 6)] == [True, False]
    same = allowance(manifest(), manifest())
    assert [same.fine(differing, 1000) for differing in (0, 1)] == [True, False]
