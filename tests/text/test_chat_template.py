"""A prompt's token ids are those of transformers' chat template, whichever way they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from pipeline.text.chat_template import Prompts, token_ids

TEMPLATES = hasattr(chat_template_utils, "_compile_jinja_template")  # transformers 4.45


def test_token_ids_are_those_of_the_tokenizer_one_chat_at_a_time(standin: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(standin)
    chats = [[{"role": "user", "content": text}] for text in ("short", "a good deal longer than that", "é🙂")]
    one_by_one = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
        for chat in chats
    ]
    assert token_ids(tokenizer, chats) == one_by_one


@pytest.fixture(scope="module")
def tokenizer(standin: Path) -> Any:
    return AutoTokenizer.from_pretrained(standin)


@given(st.lists(st.lists(st.text(max_size=40), min_size=1, max_size=3), min_size=1, max_size=5))
@example([["<|user|> <s></s> <|end|>", "\r\n\t  x"]])
def test_asked_directly_the_tokenizer_gives_the_ids_of_the_template(tokenizer: Any, texts: list[list[str]]) -> None:
    prompts = Prompts(tokenizer)
    roles = ("user", "assistant")
    chats = [[{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)] for turns in texts]
    assert prompts.renders == TEMPLATES
    assert prompts.encodes == hasattr(tokenizer.backend_tokenizer, "encode_batch_fast")  # tokenizers 0.20
    assert prompts(chats) == token_ids(tokenizer, chats)


def test_a_tokenizer_whose_library_gives_other_ids_is_not_asked_directly(standin: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(standin)
    prompts = Prompts(Padding(tokenizer))
    chats = [[{"role": "user", "content": "hello"}]]
    assert prompts.renders == TEMPLATES
    assert not prompts.encodes
    assert prompts(chats) == token_ids(tokenizer, chats)


class Padding:
    """A tokenizer whose library pads, which the template's way never does."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def backend_tokenizer(self) -> Any:
        self._tokenizer.backend_tokenizer.enable_padding(length=64)
        return self._tokenizer.backend_tokenizer

    def apply_chat_template(self, *arguments: Any, **options: Any) -> Any:
        return self._tokenizer.apply_chat_template(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def test_a_template_that_transformers_fills_in_otherwise_is_not_asked_directly(standin: Path) -> None:
    tokenizer = Greeting(AutoTokenizer.from_pretrained(standin))
    prompts = Prompts(tokenizer)
    chats = [[{"role": "user", "content": "hello"}]]
    assert not prompts.renders
    assert prompts(chats) == token_ids(tokenizer, chats)


class Greeting:
    """A tokenizer that says something before the template's text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def apply_chat_template(self, chats: Any, **options: Any) -> Any:
        greeted = [[chat[0] | {"content": "Good day. " + chat[0]["content"]}, *chat[1:]] for chat in chats]
        return self._tokenizer.apply_chat_template(greeted, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% set who = m['role'] | upper %}{{ who }}: {{ m['content'] }}\n{% endfor %}",
        "{{ bos_token }}{% if tools is none and not documents %}{{ messages[-1].content | trim }}{% endif %}",
        "{% macro say(m) %}<{{ m.content }}>{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}{{ tools }}",
        "{%- if add_generation_prompt %}{{ messages | tojson }}{% endif %}{{ nothing_of_that_name }}",
    ],
)
def test_templates_of_all_kinds_are_filled_in_as_by_transformers(template: str, standin: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(standin)
    tokenizer.chat_template = template
    prompts = Prompts(tokenizer)
    chats = [[{"role": "user", "content": " hello\n"}, {"role": "assistant", "content": "<b>"}]]
    assert prompts.renders == TEMPLATES
    assert prompts(chats) == token_ids(tokenizer, chats)
