"""The text of an answer is what the installed pipe() itself makes of the token ids."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.pipelines.text_generation import ReturnType, TextGenerationPipeline

from pipeline.text.detokenize import probe

FORM = probe()
TEXTS = ["It 's fine , is n't it ?", " a . b !", "Grüße", "🙂\u200d🙂", "\n\n", " do not", "I 'm", "we 've", "\t x"]


@pytest.fixture(scope="module")
def tokenizer(standin: Path) -> Any:
    return AutoTokenizer.from_pretrained(standin)


def theirs(tokenizer: Any, prompt: list[int], answer: list[int]) -> str:
    """By the pipe's own code."""
    outputs = {
        "generated_sequence": torch.tensor([[[*prompt, *answer]]]),
        "input_ids": torch.tensor([prompt]),
        "prompt_text": "",
    }
    pipe = SimpleNamespace(tokenizer=tokenizer)
    return TextGenerationPipeline.postprocess(pipe, outputs, return_type=ReturnType.NEW_TEXT)[0]["generated_text"]


# Any id, the control tokens, and the single bytes that split characters.
IDS = st.lists(st.one_of(st.integers(0, 49151), st.integers(0, 20), st.integers(17, 280)), max_size=14)


@settings(max_examples=200)
@given(prompt=IDS.filter(bool), answer=IDS)
def test_any_token_ids(tokenizer: Any, prompt: list[int], answer: list[int]) -> None:
    assert FORM.text(tokenizer, prompt, answer) == theirs(tokenizer, prompt, answer)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("before", ["<|im_start|>assistant\n", "word", "é "])
def test_spaces_that_a_clean_up_would_touch(tokenizer: Any, before: str, text: str) -> None:
    prompt, answer = tokenizer(before)["input_ids"], tokenizer(text)["input_ids"]
    assert FORM.text(tokenizer, prompt, answer) == theirs(tokenizer, prompt, answer)


def test_a_character_split_between_prompt_and_answer(tokenizer: Any) -> None:
    ids = tokenizer("🙂")["input_ids"]
    assert len(ids) > 1
    for cut in range(1, len(ids)):
        assert FORM.text(tokenizer, ids[:cut], ids[cut:]) == theirs(tokenizer, ids[:cut], ids[cut:])


def test_the_same_is_found_each_time() -> None:
    assert probe() == FORM
