"""A set that is none of the nineteen: it is read, its hardest rows are found, and its answers are the pipe's."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import private_set
from support.checkpoints import random_model

from pipeline import reference, text_generation
from pipeline.dataset import hardest
from pipeline.dataset.records import Record

RULES = {"max_new_tokens": 12, "return_full_text": False, "do_sample": False}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return private_set.write(tmp_path_factory.mktemp("private") / "private.jsonl")


def test_every_chat_is_read_as_it_was_written(rows: list[Record]) -> None:
    assert [(row.messages, row.answer) for row in rows] == private_set.chats()


def test_each_kind_of_hard_row_is_found(rows: list[Record]) -> None:
    chosen = hardest.choose(rows, each=1)
    by_kind = {kind: rows[index] for index, kinds in chosen.items() for kind in kinds}
    assert set(by_kind) == set(hardest.KINDS)
    assert "How many keys" in by_kind["longest prompt"].messages[-1]["content"]
    assert len(by_kind["most turns"].messages) == 19
    assert by_kind["least ASCII"].messages[-1]["content"] in private_set.LANGUAGES
    assert "choices:" in by_kind["widest branching"].messages[-1]["content"]


def test_answers_are_those_of_the_pipe(rows: list[Record], standin: Path, tmp_path: Path, one_thread: None) -> None:
    model = random_model(tmp_path, standin, context=4096)
    ours, theirs = text_generation.load(model, dtype="float32"), reference.load(model, dtype="float32")
    chats = [row.messages for row in rows]
    assert max(len(prompt) for prompt in ours.prompts(chats)) >= 3000
    tokens: dict[str, dict[int, list[int]]] = {"ours": {}, "theirs": {}}

    def noting(side: str):
        return lambda answered: tokens[side].__setitem__(answered.index, answered.token_ids)

    assert ours(chats, **RULES, on_answer=noting("ours")) == theirs(chats, **RULES, on_answer=noting("theirs"))
    assert tokens["ours"] == tokens["theirs"]
    assert len(tokens["ours"]) == len(chats)
