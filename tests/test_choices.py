"""The choices that a prompt lists; text that only looks like choices never does harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pipeline import choices
from pipeline.model.config import stop_tokens

PIECES = [
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "'",
    '"',
    ",",
    ":",
    "\\",
    "\n",
    "choices:",
    " ",
    "a",
    "1",
    "None",
    "x",
    "-",
    "\0",
]


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=25).map("".join)))
@example("[" * 5000)
@example("-" * 5000 + "1")
@example("['a', b]")
@example("['a'")
@example("f'{1}'")
@example("[1, 2")
def test_odd_text_never_raises_and_gives_strings(text: str) -> None:
    for whole in (text, f"choices: {text}", f"question\nchoices: {text}\n"):
        found = choices.listed(whole)
        assert isinstance(found, list)
        assert all(isinstance(item, str) for item in found)


UNREADABLE = ["[{[]}]", "{[]: 1}", "{{}}", "[0x" + "f" * 5000 + "]"]


@pytest.mark.parametrize("text", UNREADABLE, ids=["set of lists", "list as key", "set of dicts", "endless number"])
def test_lists_that_python_cannot_build_or_write_give_no_choices(text: str) -> None:
    assert choices.listed(f"choices: {text}") == []


ITEM = st.one_of(st.text(alphabet="ab'\"[]\\, é🙂\t", max_size=9), st.booleans(), st.integers(-99, 99))


@given(st.lists(ITEM, max_size=5))
def test_a_list_as_python_writes_it_is_read_back(items: list) -> None:
    assert choices.listed(f"question: why?\nchoices: {items!r}\n") == [str(item) for item in items]


def test_apostrophes_brackets_and_booleans() -> None:
    assert choices.listed("choices: [\"it's\", 'say \"so\"', 'a [b, c]']") == ["it's", 'say "so"', "a [b, c]"]
    assert choices.listed("choices: [True, False]") == ["True", "False"]
    assert choices.listed("choices: [['a', 'b'], 'c']") == ["['a', 'b']", "c"]


def test_the_last_line_counts() -> None:
    text = "choices: ['old']\npassage: x\nchoices: ['new']\nthanks"
    assert choices.listed(text) == ["new"]


@pytest.mark.parametrize(
    "text", ["", "choices:", "choices: 'a'", "choices: ('a',)", " choices: ['a']", "Choices: ['a']"]
)
def test_anything_else_is_no_choices(text: str) -> None:
    assert choices.listed(text) == []


def test_candidates_are_the_tokenised_choices_with_the_end_behind_each(standin: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(standin)
    end = choices.end_of_answer(tokenizer, stop_tokens(standin))
    assert tokenizer.decode([end]) == "<|im_end|>"
    texts = ["choices: ['a cat', \"it's\"]", "no list", "choices: [True]"]
    chats = [[{"role": "user", "content": text}] for text in texts]
    found = choices.candidates(tokenizer, chats, end)
    assert [[tokenizer.decode(run) for run in runs] for runs in found] == [
        [f"{text}<|im_end|>" for text in ("a cat", " a cat", "it's", " it's")],
        [],
        ["True<|im_end|>", " True<|im_end|>"],
    ]
    assert choices.candidates(tokenizer, chats[1:2], end) == [[]]


def test_only_the_last_turn_is_read(standin: Path) -> None:
    chat = [
        {"role": "user", "content": "choices: ['a']"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "and now?"},
    ]
    assert choices.candidates(AutoTokenizer.from_pretrained(standin), [chat], None) == [[]]


def test_token_ids_are_those_of_the_tokenizer_one_chat_at_a_time(standin: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(standin)
    chats = [[{"role": "user", "content": text}] for text in ("short", "a good deal longer than that", "é🙂")]
    one_by_one = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
        for chat in chats
    ]
    assert choices.token_ids(tokenizer, chats) == one_by_one


@pytest.fixture(scope="module")
def tokenizer(standin: Path) -> Any:
    return AutoTokenizer.from_pretrained(standin)


@given(st.lists(st.lists(st.text(max_size=40), min_size=1, max_size=3), min_size=1, max_size=5))
@example([["<|user|> <s></s> <|end|>", "\r\n\t  x"]])
def test_asked_directly_the_tokenizer_gives_the_ids_of_the_template(tokenizer: Any, texts: list[list[str]]) -> None:
    prompts = choices.Prompts(tokenizer)
    roles = ("user", "assistant")
    chats = [[{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)] for turns in texts]
    assert prompts.direct == hasattr(tokenizer.backend_tokenizer, "encode_batch_fast")  # tokenizers 0.20
    assert prompts(chats) == choices.token_ids(tokenizer, chats)


def test_a_tokenizer_whose_library_gives_other_ids_is_not_asked_directly(standin: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(standin)
    prompts = choices.Prompts(Padding(tokenizer))
    chats = [[{"role": "user", "content": "hello"}]]
    assert not prompts.direct
    assert prompts(chats) == choices.token_ids(tokenizer, chats)


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
