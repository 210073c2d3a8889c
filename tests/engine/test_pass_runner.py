"""A pass that fails for want of memory is done again in pieces, with the same tokens, however the failure says so."""

from __future__ import annotations

import functools
import random
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_network import KINDS, NEW, PROMPTS, STOP, Failing, ran_out, weights
from support.watched_passes import watched
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.engine.cost import UNKNOWN, PassCost
from pipeline.engine.engine import Engine, Result
from pipeline.engine.pass_runner import GROW_AFTER, cut, is_out_of_memory
from pipeline.engine.segment import Segment
from pipeline.engine.state import Limits
from pipeline.errors import ResourceError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", KINDS)
def test_every_platforms_word_for_it_is_understood(kind: str) -> None:
    assert is_out_of_memory(ran_out(kind))


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: an illegal memory access"), ValueError("out of memory"), KeyError("NvMap")]
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


LIMITS = Limits(budget_rows=24, slots=400, live=8)


def answers(mode: TorchDispatchMode, limits: Limits = LIMITS, cost: PassCost = UNKNOWN) -> Result:
    """The set, `mode` watching all that passes do on the device."""
    engine = Engine(weights(), limits, cost, make_passes=watched(mode))
    return engine.generate(PROMPTS, max_new_tokens=NEW, stop_tokens=STOP)


@functools.cache
def undisturbed() -> tuple[list[list[int]], int]:
    counting = Failing(lambda count: False)
    return answers(counting).tokens, counting.count


def check(places: list[int]) -> None:
    expected, _ = undisturbed()
    for place in places:
        mode = Failing(lambda count, place=place: count == place, KINDS[place % len(KINDS)])
        result = answers(mode)
        assert mode.count >= place
        assert result.tokens == expected, f"operation {place}"
        assert result.stats.failed_allocations == 1, f"operation {place}"


def test_a_failure_at_any_operation_changes_no_token() -> None:
    _, count = undisturbed()
    check(random.Random(0).sample(range(1, count + 1), 30))


@pytest.mark.slow
def test_a_failure_at_every_second_operation_changes_no_token() -> None:
    """Each by itself; the fast test draws from all of them."""
    _, count = undisturbed()
    check(list(range(1, count + 1, 2)))


@pytest.mark.parametrize("every", [260, 401, 900])
def test_failures_again_and_again_change_no_token(every: int) -> None:
    expected, _ = undisturbed()
    result = answers(Failing(lambda count: count % every == 0))
    assert result.tokens == expected
    assert result.stats.failed_allocations > 1


def test_passes_stay_small_for_a_while_and_grow_back() -> None:
    rows: list[int] = []
    passes = watched(Failing(lambda count: count == 5), rows)
    engine = Engine(weights(), Limits(budget_rows=24, slots=2000, live=64), make_passes=passes)
    engine.generate([[2 + i % 30, 3 + i // 30, 5, 6, 7, 8] for i in range(120)], max_new_tokens=2, stop_tokens=STOP)
    assert rows[0] == 24
    assert max(rows[1 : 1 + GROW_AFTER]) == 12
    assert max(rows) == 24
    assert 24 in rows[1 + GROW_AFTER :]


def test_when_not_even_one_row_fits_it_is_said() -> None:
    with pytest.raises(ResourceError) as caught:
        answers(Failing(lambda count: True, "tegra"))
    assert caught.value.code == "R304"
    assert "NVML_SUCCESS" in str(caught.value)


def test_any_other_failure_comes_through() -> None:
    class Broken(TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        answers(Broken())


@dataclass(frozen=True)
class Row:
    token: int
    context: tuple[int, ...]
    wanted: bool


def rows_of(segments: list[Segment]) -> list[Row]:
    return [
        Row(
            int(segment.tokens[at]),
            tuple(segment.context[: segment.start + at + 1].tolist()),
            at >= len(segment) - segment.output_rows,
        )
        for segment in segments
        for at in range(len(segment))
    ]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=8), st.data())
def test_a_cut_pass_has_the_same_rows_in_the_same_order(parts: list[tuple[int, int, int]], data: st.DataObject) -> None:
    segments = [
        Segment(np.arange(new) + 10 * i, before, np.arange(before + new) + 100 * i, min(wanted, new))
        for i, (before, new, wanted) in enumerate(parts)
    ]
    total = sum(map(len, segments))
    at = data.draw(st.integers(0, total))
    first, second = cut(segments, at)
    assert sum(map(len, first)) == at
    assert all(len(segment) for segment in (*first, *second))
    assert rows_of([*first, *second]) == rows_of(segments)


def test_passes_that_are_filled_up_give_the_same_tokens() -> None:
    rows: list[int] = []
    cost = PassCost((1, 8, 24), (9.0, 8.0, 1.0))
    engine = Engine(weights(), LIMITS, cost, make_passes=watched(nullcontext(), rows))
    result = engine.generate(PROMPTS, max_new_tokens=NEW, stop_tokens=STOP)
    assert result.tokens == undisturbed()[0]
    assert set(rows) == {24}
