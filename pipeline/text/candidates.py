"""The answers that a prompt itself lists, as token runs: guesses for the engine, which checks every one.

A wrong or missing guess costs time, never a different answer and never the run.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from loguru import logger

from pipeline.text.chat_template import token_ids

MARK = "choices:"


def listed(text: str) -> list[str]:
    """The items of the last line that starts with `choices:` and goes on with a list as JSON or as Python writes it; []
    if there is none. Items that hold half of a surrogate pair, which no model answers, are left out."""
    line = next((line for line in reversed(text.splitlines()) if line.startswith(MARK)), "")
    body = line[len(MARK) :].strip()
    for read in (_as_json, _as_python):
        try:
            return [item for item in map(_whole, read(body)) if item is not None] if body else []
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return []  # some other text that happens to start so: no guesses then


def _as_json(body: str) -> list[str]:
    """JSON spells a character beyond 16 bits as two escapes, which Python's literals would read as two halves."""
    return [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in _list(json.loads(body))]


def _as_python(body: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # a stray backslash in somebody's text
        return [str(item) for item in _list(ast.literal_eval(body))]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def _whole(item: str) -> str | None:
    """The item, two halves of a pair that follow each other as the character that they spell; None for a lone half."""
    try:
        return item.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return None


class Candidates(Sequence[list[list[int]]]):
    """For each chat the token runs of its choices, with and without a leading space, the end token behind each.

    Made all at once when the first is asked for: by then a GPU is at work on the prompts. Where that fails, each chat's
    are made by themselves, and those that fail alone are left out; so are runs with a token of which the model has no
    embedding.
    """

    def __init__(
        self, tokenizer: Any, chats: Sequence[Sequence[dict[str, str]]], end: int | None, vocabulary: int
    ) -> None:
        self._tokenizer, self._chats, self._end, self._vocabulary = tokenizer, chats, end, vocabulary
        self._made: list[list[list[int]]] | None = None

    def __len__(self) -> int:
        return len(self._chats)

    def __getitem__(self, index: Any) -> Any:
        if self._made is None:
            runs = self._make()
            self._made = [[run for run in each if max(run, default=0) < self._vocabulary] for each in runs]
        return self._made[index]

    def _make(self) -> list[list[list[int]]]:
        try:
            return candidates(self._tokenizer, self._chats, self._end)
        except Exception as error:  # whatever it is: guesses only save time
            made, failed = [], 0
            for chat in self._chats:
                try:
                    made += candidates(self._tokenizer, [chat], self._end)
                except Exception:  # counted, and told below with the first cause
                    made.append([])
                    failed += 1
            logger.warning("no drafts from the choices of {} prompts: {}: {}", failed, type(error).__name__, error)
            return made


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


def end_of_answer(
    tokenizer: Any, stop_tokens: frozenset[int], say: Callable[[str], object] = lambda line: None
) -> int | None:
    """The stop token that the chat template itself puts behind an answer; None where there is none, and `say` why."""
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        ids = token_ids(tokenizer, [chat], add_generation_prompt=False)[0]
    except Exception as error:  # a template's own refusal, in whatever class: only drafts need this
        say(f"drafts from choices come without an end: {type(error).__name__}: {error}")
        return None
    return next((token for token in reversed(ids) if token in stop_tokens), None)
