"""A slot has one owner at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.pool import SlotPool
from pipeline.engine.shape import Shape
from pipeline.errors import ResourceError

SHAPE = Shape(
    vocab=5, hidden=8, layers=3, heads=4, kv_heads=2, head_dim=2, intermediate=4, norm_eps=1e-5, rope_theta=1e4,
    max_positions=64, window=None, tied=True,
)  # fmt: skip


def make(slots: int) -> SlotPool:
    return SlotPool(SHAPE, slots, torch.float32, torch.device("cpu"))


STEPS = st.lists(st.tuples(st.sampled_from(["take", "give back"]), st.integers(0, 12)), max_size=30)


@given(st.integers(1, 30), STEPS)
def test_a_slot_is_never_handed_out_twice(slots: int, steps: list[tuple[str, int]]) -> None:
    pool = make(slots)
    owned: list[np.ndarray] = []
    peak = 0
    for step, number in steps:
        if step == "take":
            if number > pool.free:
                with pytest.raises(AssertionError, match="slots wanted"):
                    pool.take(number)
                continue
            owned.append(pool.take(number))
            assert len(owned[-1]) == number
        elif owned:
            pool.give_back(owned.pop(number % len(owned)))
        used = [slot for part in owned for slot in part.tolist()]
        assert len(used) == len(set(used)) == slots - pool.free
        assert all(0 <= slot < slots for slot in used)
        peak = max(peak, len(used))
    assert pool.peak_used == peak


def test_slots_that_were_given_back_come_before_new_ones() -> None:
    pool = make(8)
    assert pool.take(5).tolist() == [0, 1, 2, 3, 4]
    pool.give_back(np.array([3, 1]))
    assert pool.take(3).tolist() == [3, 1, 5]


@pytest.mark.parametrize("slots", [[4], [0, 4], [1, 1]])
def test_giving_back_what_is_free_or_the_same_twice_is_a_fault(slots: list[int]) -> None:
    pool = make(8)
    pool.take(3)
    with pytest.raises(AssertionError, match="given back twice"):
        pool.give_back(np.array(slots))
    assert pool.free == 5


def test_reset_frees_all() -> None:
    pool = make(6)
    pool.take(4)
    pool.reset()
    assert pool.free == 6
    assert pool.take(6).tolist() == list(range(6))


def test_a_layer_is_a_view_with_keys_and_values_side_by_side() -> None:
    pool = make(7)
    assert pool.layer(1).shape == (7, 4, 2)
    pool.layer(1).fill_(3.0)
    assert torch.equal(pool.store[1], torch.full((7, 4, 2), 3.0))


def test_a_pool_that_cannot_be_had_is_refused_with_numbers() -> None:
    shape = Shape(
        vocab=4, hidden=2, layers=10**5, heads=1, kv_heads=10**4, head_dim=128, intermediate=2, norm_eps=1e-5,
        rope_theta=1e4, max_positions=64, window=None, tied=True,
    )  # fmt: skip
    with pytest.raises(ResourceError) as refused:
        SlotPool(shape, 10**6, torch.float32, torch.device("cpu"))
    assert refused.value.code == "R306"
    assert "for 1,000,000 tokens" in str(refused.value)


def test_a_pool_that_is_resized_has_all_its_slots_free() -> None:
    pool = make(6)
    slots = pool.take(4)
    with pytest.raises(AssertionError, match="in use"):
        pool.resize(9)
    pool.give_back(slots)
    pool.resize(9)
    assert (pool.slots, pool.free, pool.store.shape) == (9, 9, (3, 9, 4, 2))
    assert sorted(pool.take(9).tolist()) == list(range(9))


def test_a_pool_that_cannot_grow_stays_as_it_was() -> None:
    pool = make(6)
    with pytest.raises(ResourceError):
        pool.resize(10**15)
    assert (pool.slots, pool.free, pool.store.shape) == (6, 6, (3, 6, 4, 2))
