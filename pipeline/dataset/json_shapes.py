"""JSON as people keep whole data sets in it: a list of rows or of chats, a column each, one chat; and the rows in it.

Only what can be one thing alone is taken: of two texts side by side nobody knows which is the answer.
"""

from __future__ import annotations

import json
from typing import Any

CHAT_KEYS = ("message", "messages", "conversations")
"""Names under which files keep a chat; the first is the organiser's."""
KEYS = (*CHAT_KEYS, "prompt")
ANSWER_KEYS = ("answer", "completion", "response")

Row = dict[str, Any]


def rows_of(whole: Any) -> list[Row] | None:
    """The rows of a JSON value; None for one that has none, or that might be several things.

    Raises ValueError where columns are of different lengths.
    """
    if isinstance(whole, dict):
        return _of_columns(whole)
    if not isinstance(whole, list) or not whole:
        return None
    if is_chat(whole) and not any(set(KEYS) & set(turn) for turn in whole):
        return [{CHAT_KEYS[0]: whole}]
    rows = [row_of(each) for each in whole]
    return None if None in rows else [row for row in rows if row is not None]


def row_of(value: Any) -> Row | None:
    """An object as it is; a chat, alone or in front of its answer; a prompt. None for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"prompt": value}
    if is_chat(value):
        return {CHAT_KEYS[0]: value}
    if isinstance(value, list) and len(value) == 2 and is_chat(value[0]) and isinstance(value[1], str):
        return {CHAT_KEYS[0]: value[0], ANSWER_KEYS[0]: value[1]}
    return None


def chat_in(line: str) -> Row | None:
    """The row of a line that is a chat without an object around it."""
    try:
        return row_of(json.loads(line)) if line.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return None


def is_chat(value: Any) -> bool:
    """Whether it is a list of turns: of role and content, or of from and value."""
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def _of_columns(whole: Row) -> list[Row] | None:
    """Rows of an object whose values are columns: lists, or objects with the rows' numbers for keys (pandas)."""
    key = next((name for name in KEYS if name in whole), None)
    chats = None if key is None else _column(whole[key])
    if key is None or not chats or not (all(map(is_chat, chats)) or all(isinstance(each, str) for each in chats)):
        return None
    if any(isinstance(whole.get(name), str) for name in ANSWER_KEYS):
        return None  # one answer, and so one row, if a wrong one
    columns = {name: column for name, value in whole.items() if (column := _column(value)) is not None}
    for name in (*KEYS, *ANSWER_KEYS):
        if name in whole and len(columns.get(name, ())) != len(chats):
            raise ValueError(f"`{key}` has {len(chats)} values, `{name}` {len(columns.get(name, ()))}")
    columns = {name: column for name, column in columns.items() if len(column) == len(chats)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _column(value: Any) -> list[Any] | None:
    if isinstance(value, dict) and value and all(key.isdecimal() for key in value):
        return list(value.values())
    return value if isinstance(value, list) else None
