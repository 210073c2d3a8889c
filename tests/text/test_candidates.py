"""The choices that a prompt lists; text that only looks like choices never does harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from loguru import logger
from transformers import AutoTokenizer

from pipeline.model.config import stop_tokens
from pipeline.text import candidates as choices

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


@pytest.mark.parametrize(
    ("line", "items"),
    [
        (r'["\ud83d\ude00", "\u00e9"]', ["😀", "é"]),
        (r'["\/", "a\\b"]', ["/", "a\\b"]),
        ('[true, null, 1, 2.5, ["a"], {"b": 1}]', ["true", "null", "1", "2.5", '["a"]', '{"b": 1}']),
        ('["it\'s"]', ["it's"]),
        (r'["\ud83d", "ab\ude00", "c"]', ["c"]),
        (r"['\ud83d\ude00', '\ude00', 'c']", ["😀", "c"]),
        (r'["\ude00\ud83d"]', []),
    ],
)
def test_a_list_as_json_writes_it_is_read_and_halves_of_characters_are_survived(line: str, items: list[str]) -> None:
    assert choices.listed(f"choices: {line}") == items


@given(st.lists(st.one_of(st.text(alphabet="ab'\"[]\\, é🙂\t\n", max_size=9), st.integers(-99, 99)), max_size=5))
def test_a_list_as_json_writes_it_is_read_back(items: list) -> None:
    for line in (json.dumps(items), json.dumps(items, ensure_ascii=False)):
        assert choices.listed(f"choices: {line}") == [str(item) for item in items]


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


# --- a source that fails ------------------------------------------------------------------------------------


class Failing:
    """A tokenizer that fails on some texts, as one does on half of a character."""

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        if any("bad" in text for text in texts):
            raise TypeError("TextEncodeInput must be Union[…]")
        return {"input_ids": [[len(text)] for text in texts]}

    def apply_chat_template(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("Only user roles are supported!")


def test_choices_that_cannot_be_tokenised_cost_their_own_drafts_and_one_line_in_the_log() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    chats = [[{"role": "user", "content": f"choices: ['{text}']"}] for text in ("a", "bad", "abc", "bad too", "x" * 9)]
    try:
        made = choices.Candidates(Failing(), chats, 7, vocabulary=10)
        assert [made[index] for index in range(5)] == [[[1, 7], [2, 7]], [], [[3, 7], [4, 7]], [], [[9, 7]]]
    finally:
        logger.remove(sink)
    assert lines == ["no drafts from the choices of 2 prompts: TypeError: TextEncodeInput must be Union[…]\n"]


def test_a_template_that_takes_no_answers_gives_drafts_without_an_end() -> None:
    assert choices.end_of_answer(Failing(), frozenset({1})) is None
