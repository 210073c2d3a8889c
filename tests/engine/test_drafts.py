"""Guesses come from where they say, and are made as long as they pay."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from pipeline.engine.arrays import ints
from pipeline.engine.cost import UNKNOWN, PassCost
from pipeline.engine.drafts import (
    LONGEST,
    LOOKUP_LENGTHS,
    NONE,
    SOURCES,
    Acceptance,
    Draft,
    Guesses,
    from_choices,
    from_lookup,
    guess,
    worth,
)

TOKENS = st.lists(st.integers(0, 2), max_size=8)
ANSWER = st.lists(st.integers(0, 2), min_size=1, max_size=5)


def shared(runs: list[list[int]]) -> list[int]:
    """The longest start of all."""
    columns = zip(*runs, strict=False)
    return [column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns)]


@given(ANSWER, st.lists(TOKENS, max_size=6))
def test_a_guess_from_choices_is_all_that_the_choices_still_open_share(answer: list, candidates: list) -> None:
    still_open = [c[len(answer) :] for c in candidates if c[: len(answer)] == answer and len(c) > len(answer)]
    assert list(from_choices(answer, candidates)) == shared(still_open)


def test_choices_that_part_ways_are_guessed_up_to_there() -> None:
    candidates = [[1, 2, 3, 9], [1, 2, 4, 9], [5, 9]]
    assert from_choices([1], candidates) == (2,)
    assert from_choices([1, 2], candidates) == ()
    assert from_choices([1, 2, 4], candidates) == (9,)
    assert from_choices([5], candidates) == (9,)
    assert from_choices([7], candidates) == ()
    assert from_choices([5, 9], candidates) == ()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=25), st.integers(1, 20))
def test_a_guess_from_lookup_followed_the_newest_tokens_where_they_last_stood(sequence: list, longest: int) -> None:
    expected: list[int] = []
    for length in LOOKUP_LENGTHS:
        places = [i for i in range(len(sequence) - length) if sequence[i : i + length] == sequence[-length:]]
        if len(sequence) > length and places:
            expected = sequence[places[-1] + length :][:longest]
            break
    assert list(from_lookup(ints(sequence), longest)) == expected


def test_lookup_prefers_the_longer_match() -> None:
    sequence = [1, 2, 3, 4, 7, 0, 3, 4, 8, 1, 2, 3, 4]
    assert from_lookup(ints(sequence), 2) == (7, 0)


@given(TOKENS, ANSWER, st.lists(TOKENS, max_size=4), st.integers(-3, 40))
def test_a_guess_is_as_long_as_allowed_at_most_and_says_its_source(
    prompt: list, answer: list, candidates: list, longest: int
) -> None:
    draft = guess(lambda: ints(prompt), answer, candidates, longest)
    assert len(draft.tokens) <= max(0, min(longest, max(LONGEST.values())))
    assert draft.source in SOURCES
    if longest > 0 and from_choices(answer, candidates):
        assert draft == Draft(from_choices(answer, candidates)[:longest], "choices")
    elif draft.tokens:
        assert draft.source == "lookup"


def test_lookup_reads_prompt_and_answer_as_one() -> None:
    assert guess(lambda: ints([1, 2, 5, 6, 1]), [2], (), 2) == Draft((5, 6), "lookup")


@given(st.lists(st.tuples(st.sampled_from(SOURCES), st.integers(1, 6), st.integers(0, 6)), max_size=30))
def test_the_rate_of_each_source_follows_its_own_guesses(records: list[tuple[str, int, int]]) -> None:
    acceptance = Acceptance()
    for source, proposed, accepted in records:
        right = min(proposed, accepted)
        before = {name: acceptance.rate(name) for name in SOURCES}
        acceptance.record(Draft((1,) * proposed, source), right)
        others = set(SOURCES) - {source}
        assert all(acceptance.rate(name) == before[name] for name in others)
        assert 0 < acceptance.rate(source) < 1
        if right == proposed:
            assert acceptance.rate(source) > before[source]
        if right == 0:
            assert acceptance.rate(source) < before[source]
    assert acceptance.proposed == {name: sum(p for s, p, _ in records if s == name) for name in SOURCES}
    assert acceptance.accepted == {name: sum(min(p, a) for s, p, a in records if s == name) for name in SOURCES}


def test_an_empty_draft_says_nothing_about_its_source() -> None:
    acceptance = Acceptance()
    before = acceptance.rate(NONE.source)
    acceptance.record(NONE, 0)
    assert acceptance.rate(NONE.source) == before


DRAFT = Draft(tuple(range(10)), "choices")


@given(st.floats(0.01, 0.99), st.integers(1, 600), st.floats(1e-4, 2.0))
def test_what_is_worth_checking_is_the_start_of_the_draft(rate: float, rows: int, saved_s: float) -> None:
    cost = PassCost((1, 8, 64, 512), (1.0, 1.1, 2.0, 12.0))
    kept = worth(DRAFT, rate, rows, saved_s, cost)
    assert kept.tokens == DRAFT.tokens[: len(kept.tokens)]
    better = worth(DRAFT, min(0.999, rate * 1.01), rows, saved_s, cost)
    assert len(better.tokens) >= len(kept.tokens)


def test_below_break_even_a_whole_draft_is_free() -> None:
    flat = PassCost((1, 128), (1.0, 1.0))
    assert worth(DRAFT, 0.1, rows=1, saved_s=1.0, cost=flat) == DRAFT


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.99])
def test_where_every_row_costs_the_same_no_draft_pays(rate: float) -> None:
    assert worth(DRAFT, rate, rows=4, saved_s=UNKNOWN.seconds(4) / 4, cost=UNKNOWN) == NONE


def test_a_draft_ends_where_it_stops_to_pay() -> None:
    # One row: 1 s; each row more: 0.2 s. At rate 0.5 the second token is worth 0.25 s, the third 0.125 s.
    cost = PassCost((1, 100), (1.0, 20.8))
    assert len(worth(DRAFT, 0.5, rows=1, saved_s=1.0, cost=cost).tokens) == 2


def test_lookup_on_a_long_prompt_is_quick_enough_to_be_free() -> None:
    sequence = np.tile(np.arange(1000), 8)
    assert from_lookup(sequence, 3) == (0, 1, 2)


class FailingAt:
    """Candidates of which some cannot be had, and some are none."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> list:
        if index == 0:
            raise TypeError("no text")
        return [[1, 2, 3]] if index == 1 else [None]


def test_a_source_that_fails_costs_its_draft_and_one_line_in_the_log() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    guesses = Guesses(FailingAt())
    try:
        for index in (0, 2):
            assert guesses.whole(index, frozenset(), 9) == []
            assert guesses.following(index, lambda: ints([5, 1, 7, 8, 9, 5]), [1], 4) == Draft((7, 8, 9, 5), "lookup")
            assert guesses.following(index, lambda: 1 / 0, [1], 4) == NONE
        assert guesses.following(1, lambda: 1 / 0, [1], 4) == Draft((2, 3), "choices")
        assert guesses.whole(1, frozenset(), 9) == [Draft((1, 2, 3), "choices")]
    finally:
        logger.remove(sink)
    assert lines == ["a draft could not be made, the answers are the same: TypeError: no text\n"]
