"""Inputs that the pipe takes: chats and arguments that pipe() would answer in the same way; all others are refused."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.errors import FormError, UsageError

KNOWN = ("max_new_tokens", "return_full_text", "do_sample", "temperature", "batch_size")


def rows_of(chats: Any) -> list[Any]:
    """The inputs of whatever pipe() takes: a list, a data set with a length or without, a generator. A single chat
    gives its turns. What holds no inputs, such as one string, is one input, to be refused as such."""
    chats = _chat(chats)
    if isinstance(chats, str | bytes | Mapping):
        return [chats]
    if hasattr(chats, "__len__") and hasattr(chats, "__getitem__"):
        return [_chat(chats[index]) for index in range(len(chats))]
    if isinstance(chats, Iterable):
        return [_chat(each) for each in chats]
    return [chats]


def _chat(row: Any) -> Any:
    """transformers' own `Chat` is a wrapper around its turns."""
    messages = getattr(row, "messages", None)
    return messages if isinstance(messages, list) else row


def counted(index: int) -> str:
    """How an input is named where nobody knows better."""
    return f"input {index} (counted from 0)"


def beyond_context(indices: Sequence[int], limit: int, place: Callable[[int], str], most: int = 8) -> str:
    """The warning of prompts that leave no room in the context for a new token."""
    more = f" and {len(indices) - most:,} more" if len(indices) > most else ""
    return (
        f"prompts that fill the model's context of {limit:,} tokens or go beyond it, {len(indices):,} of them, are "
        f"answered as pipe() answers them: {', '.join(map(place, indices[:most]))}{more}"
    )


def refuse(max_new_tokens: int | None, do_sample: bool, unknown: dict[str, Any]) -> None:
    """Check the arguments of a call.

    Raises UsageError: U201 to sample, U202 an argument that is not known, U205 less than one new token, U207 no
    number of new tokens where pipe() has no default either."""
    if do_sample:
        raise UsageError(
            "U201",
            "this pipe decodes greedily and does not sample",
            expected="do_sample=False",
            actual=f"do_sample={do_sample!r}",
            fix="pass do_sample=False, or use transformers' own pipe()",
        )
    if unknown:
        near = list(dict.fromkeys(name for key in unknown for name in difflib.get_close_matches(key, KNOWN, n=1)))
        meant = f"; did you mean {' and '.join(near)}?" if near else ""
        raise UsageError(
            "U202",
            f"this pipe does not know an argument{meant}",
            expected=", ".join(KNOWN),
            actual=", ".join(f"{key}={value!r}"[:80] for key, value in unknown.items()),
            fix=f"write {' and '.join(near)}" if near else "leave it out, or use transformers' own pipe()",
        )
    if max_new_tokens is None:
        raise UsageError(
            "U207",
            "this checkpoint does not say how many new tokens pipe() would make",
            expected="max_new_tokens, or a generation_config.json that names it",
            actual="max_length, which counts the prompt as well",
            fix="pass max_new_tokens=500, for instance",
        )
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise UsageError(
            "U205",
            "max_new_tokens must be at least 1",
            expected="max_new_tokens ≥ 1",
            actual=max_new_tokens,
            fix="ask for one or more",
        )


def check_chats(chats: Sequence[Any], place: Callable[[int], str] = counted) -> None:
    """Check that every input is a chat that ends with the user's turn.

    Raises FormError: F201 an input is no chat, F202 its last turn is not the user's.
    """
    for index, chat in enumerate(chats):
        fine = (
            isinstance(chat, list | tuple)
            and len(chat) > 0
            and all(
                isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
                for m in chat
            )
        )
        if not fine:
            raise FormError(
                "F201",
                "an input is not a chat",
                where=place(index),
                expected="a list of {'role': …, 'content': …}, both strings",
                actual=repr(chat)[:80],
                fix=_wrapped(chat),
            )
        if chat[-1]["role"] != "user":
            raise FormError(
                "F202",
                "the last turn of a chat is not the user's",
                where=place(index),
                expected="role 'user'",
                actual=f"role {chat[-1]['role']!r}",
                fix="end the chat with the question",
            )


def _wrapped(row: Any) -> str:
    """How to make a chat of what is none."""
    if isinstance(row, list | tuple) and row and isinstance(row[0], Mapping):  # all rows, taken for one chat's turns
        row = row[0]
    columns = [key for key, value in row.items() if isinstance(value, list)] if isinstance(row, Mapping) else []
    if columns:
        return f"name the column of the chats: pipe(KeyDataset(rows, {columns[0]!r}))"
    return "wrap a plain prompt as [{'role': 'user', 'content': prompt}]"
