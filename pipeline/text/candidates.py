"""The answers that a prompt itself lists, as token runs: guesses for the engine, which checks every one.

A wrong or missing guess costs time, never a different answer.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Any

from pipeline.text.chat_template import token_ids

MARK = "choices:"


def listed(text: str) -> list[str]:
    """The items of the last line that starts with `choices:` and goes on with a Python list; [] if there is none."""
    line = next((line for line in reversed(text.splitlines()) if line.startswith(MARK)), "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # a stray backslash in somebody's text
            items = ast.literal_eval(line[len(MARK) :].strip() or "[]")
        return [str(item) for item in items] if isinstance(items, list) else []
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return []  # some other text that happens to start so: no guesses then


class Candidates(Sequence[list[list[int]]]):
    """For each chat the token runs of its choices, with and without a leading space, the end token behind each.

    Made all at once when the first is asked for: by then a GPU is at work on the prompts.
    """

    def __init__(self, tokenizer: Any, chats: Sequence[Sequence[dict[str, str]]], end: int | None) -> None:
        self._tokenizer, self._chats, self._end = tokenizer, chats, end
        self._made: list[list[list[int]]] | None = None

    def __len__(self) -> int:
        return len(self._chats)

    def __getitem__(self, index: Any) -> Any:
        if self._made is None:
            self._made = candidates(self._tokenizer, self._chats, self._end)
        return self._made[index]


def candidates(tokenizer: Any, chats: Sequence[Sequence[dict[str, str]]], end: int | None) -> list[list[list[int]]]:
    """For each chat the token runs of its choices, with and without a leading space, the end token behind each."""
    texts = [listed(chat[-1]["content"]) for chat in chats]
    flat = [variant for items in texts for item in items for variant in (item, f" {item}")]
    if not flat:
        return [[] for _ in chats]
    encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    tail = [] if end is None else [end]
    # Two variants an item, in the order in which they were put in.
    return [[[*next(encoded), *tail] for _ in range(2 * len(items))] for items in texts]


def end_of_answer(tokenizer: Any, stop_tokens: frozenset[int]) -> int | None:
    """The stop token that the chat template itself puts behind an answer."""
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    ids = token_ids(tokenizer, [chat], add_generation_prompt=False)[0]
    return next((token for token in reversed(ids) if token in stop_tokens), None)
