"""What two manifests promise about their answers, and who holds them to it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support import small_network
from torch import Tensor

from pipeline.engine import invariance, projection
from pipeline.record import promise

INVARIANT = {
    "model": {"lock_sha256": "1" * 64},
    "arguments": {"max_new_tokens": 24},
    "dtype": "bfloat16",
    "environment": {"gpu": "NVIDIA H100", "packages": {"torch": "2.11.0"}},
    "engine": {
        "backend": {"attention": "paged"},
        "invariant": {"holds": True, "why": "tried", "products": {}, "bits": "2" * 64},
    },
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """INVARIANT with one value another."""
    manifest: dict[str, Any] = copy.deepcopy(INVARIANT)
    *path, last = key.split(".")
    place = manifest
    for name in path:
        place = place[name]
    place[last] = value
    return manifest


def test_two_invariant_runs_on_one_kind_of_device_promise_equal_bytes() -> None:
    assert promise.between(INVARIANT, copy.deepcopy(INVARIANT)).equal


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("model.lock_sha256", "3" * 64, "other weights"),
        ("arguments", {"max_new_tokens": 25}, "other arguments"),
        ("dtype", "float32", "other number formats: bfloat16 and float32"),
        ("environment.gpu", "Orin", "other kinds of device: NVIDIA H100 and Orin"),
        ("environment.packages.torch", "2.4.1", "other releases of torch: 2.11.0 and 2.4.1"),
        ("engine.backend.attention", "flash", "other ways of attention"),
        ("engine.invariant.bits", "4" * 64, "other orders of sums in the products"),
    ],
)
def test_whatever_can_change_a_sum_ends_the_promise_by_name(key: str, value: Any, why: str) -> None:
    promised = promise.between(INVARIANT, changed(key, value))
    assert not promised.equal
    assert why in promised.why


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"engine": None},
        changed("engine.invariant", None),
        changed("engine.invariant.holds", "yes"),
        changed("engine.invariant", {"holds": False, "why": "not tried on a CPU"}),
    ],
)
def test_a_run_that_did_not_try_promises_nothing_and_says_why(manifest: dict[str, Any]) -> None:
    for promised in (promise.between(manifest, INVARIANT), promise.between(INVARIANT, manifest)):
        assert not promised.equal
        assert "run does not promise" in promised.why
    if "not tried on a CPU" in str(manifest):
        assert "not tried on a CPU" in promise.between(INVARIANT, manifest).why


def test_the_order_of_sums_is_seen_in_the_bits() -> None:
    weights = small_network.weights()

    def halves(x: Tensor, weight: Tensor) -> Tensor:
        middle = x.shape[1] // 2 + 1
        return x[:, :middle] @ weight[:, :middle].T + x[:, middle:] @ weight[:, middle:].T

    plain = invariance.bits_of(projection.linear, weights, fused=False)
    assert plain == invariance.bits_of(projection.linear, weights, fused=False)
    assert plain != invariance.bits_of(halves, weights, fused=False)
