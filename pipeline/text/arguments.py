"""Inputs that the pipe takes: chats and arguments that pipe() would answer in the same way; all others are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import FormError, UsageError


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


def refuse(max_new_tokens: int, do_sample: bool, unknown: dict[str, Any]) -> None:
    if do_sample:
        raise UsageError(
            "U201",
            "this pipe decodes greedily and does not sample",
            expected="do_sample=False",
            actual=f"do_sample={do_sample!r}",
            fix="pass do_sample=False, or use transformers' own pipe()",
        )
    if unknown:
        raise UsageError(
            "U202",
            "this pipe does not know an argument",
            expected="max_new_tokens, return_full_text, do_sample, temperature, batch_size",
            actual=", ".join(f"{key}={value!r}" for key, value in unknown.items()),
            fix="leave it out, or use transformers' own pipe()",
        )
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise UsageError(
            "U205",
            "at least one new token",
            expected="max_new_tokens ≥ 1",
            actual=max_new_tokens,
            fix="ask for one or more",
        )


def check_chats(chats: Sequence[Any], place: Callable[[int], str] = counted) -> None:
    """Raises FormError: F201 an input is no chat, F202 its last turn is not the user's."""
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
                fix="wrap a plain prompt as [{'role': 'user', 'content': prompt}]",
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
