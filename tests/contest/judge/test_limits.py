"""How long a run may take: by the team's own word, grown to the data of the judge."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.contest.judge.plan import LIMIT_MORE_S, MOST_LIMIT_S, Size, limit_s

CLAIMED = "a" * 64
counts = st.integers(1, 1_000_000)


@given(rows=counts, characters=counts, own_rows=counts, own_tokens=st.none() | counts)
def test_more_data_never_shorten_a_limit(rows: int, characters: int, own_rows: int, own_tokens: int | None) -> None:
    size = Size("b" * 64, rows, characters)
    growth = size.growth(CLAIMED, own_rows, own_tokens)
    assert growth >= max(1.0, rows / own_rows)
    assert Size("b" * 64, 2 * rows, 2 * characters).growth(CLAIMED, own_rows, own_tokens) >= growth
    assert Size(CLAIMED, rows, characters).growth(CLAIMED, own_rows, own_tokens) == 1.0


def test_long_prompts_count_and_not_their_number_alone() -> None:
    passages = Size("b" * 64, 30, 30 * 2_000)
    assert passages.growth(CLAIMED, 30, 30 * 100) == 10.0
    assert passages.growth(CLAIMED, 30, None) == passages.growth(CLAIMED, 30, 0) == 1.0


def test_a_claim_of_any_length_has_an_end() -> None:
    assert limit_s(0.0) == LIMIT_MORE_S
    assert limit_s(10.0 * MOST_LIMIT_S) == MOST_LIMIT_S
