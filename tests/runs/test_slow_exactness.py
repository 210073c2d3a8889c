"""Ours and transformers' pipe() agree byte for byte in float32 on hundreds of real rows: minutes, so marked slow."""

from __future__ import annotations

import pytest

from pipeline import reference, text_generation
from pipeline.accuracy.scoring import verdicts
from pipeline.dataset import fetch, records
from pipeline.model import fetch as setup
from pipeline.text import candidates as choices

RULES = {"max_new_tokens": 500, "return_full_text": False, "do_sample": False, "temperature": 0.0}


@pytest.fixture(scope="module")
def pipes():
    folder = setup.ensure("standin")
    return text_generation.load(folder, dtype="float32"), reference.load(folder, dtype="float32")


@pytest.fixture(scope="module")
def answered(pipes):
    """Ours to all of obqa-test: the outputs, and the tokens by row."""
    tokens: dict[int, list[int]] = {}
    return pipes[0](chats_of("obqa-test"), **RULES, on_answer=noting(tokens)), tokens


def chats_of(dataset):
    return [row.messages for row in records.read(fetch.ensure(dataset))]


def noting(tokens):
    return lambda answered: tokens.__setitem__(answered.index, answered.token_ids)


def check_equal(pipes, chats, found, tokens):
    """pipe() gives the same to these, byte for byte and token for token."""
    theirs: dict[int, list[int]] = {}
    expected = pipes[1](chats, **RULES, on_answer=noting(theirs))
    assert len(found) == len(chats)
    differing = [index for index in range(len(chats)) if found[index] != expected[index]]
    assert not differing, [(found[index], expected[index]) for index in differing[:3]]
    assert tokens == theirs


@pytest.mark.slow
def test_outputs_equal_the_pipe_on_every_second_row_of_obqa_test(pipes, answered):
    """Ours answered all rows at once: what a row gets does not depend on which others are compared."""
    outputs, tokens = answered
    chats = chats_of("obqa-test")
    some = range(0, len(chats), 2)
    found = [outputs[index] for index in some]
    check_equal(pipes, [chats[index] for index in some], found, {n: tokens[index] for n, index in enumerate(some)})


@pytest.mark.slow
def test_outputs_equal_the_pipe_on_the_long_prompts_of_boolq(pipes):
    chats = chats_of("boolq-validation")[:100]
    tokens: dict[int, list[int]] = {}
    check_equal(pipes, chats, pipes[0](chats, **RULES, on_answer=noting(tokens)), tokens)


@pytest.mark.slow
def test_the_stand_in_answers_in_the_organisers_form(answered):
    """What its model card says: at least 40 % of obqa-test exact, at least 97 % of the outputs among the choices."""
    rows = records.read(fetch.ensure("obqa-test"))
    texts = [output[0]["generated_text"] for output in answered[0]]
    said = [text.lstrip().replace("\n", "") for text in texts]
    listed = [choices.listed(row.messages[-1]["content"]) for row in rows]
    assert verdicts("obqa-test", rows, texts, execute_code=False).share >= 0.40
    assert sum(text in items for text, items in zip(said, listed, strict=True)) >= 0.97 * len(rows)
