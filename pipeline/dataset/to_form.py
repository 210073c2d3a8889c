"""`invoke data --convert FILE`: a file as people have them, written in the organiser's form beside it.

Read are JSON lines, a JSON list of rows or chats (or an object that holds one, or a column each), CSV with a head,
Parquet, each also compressed by gzip.
A chat stands under `message`, `messages` or `conversations` (turns of role and content, or of from and value), a plain
prompt under `prompt`. An answer stands under `answer`, `completion` or `response`, or is the chat's last turn where
that is the assistant's. Every other column is left out, and the summary names it. Nothing is ever overwritten.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shlex
import sys
import textwrap
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths, table
from pipeline.dataset import foreign, formats, json_shapes, records, stream
from pipeline.dataset.json_shapes import ANSWER_KEYS, CHAT_KEYS, KEYS, Row
from pipeline.errors import EnvironmentProblem, FormError, UsageError
from pipeline.files import write_atomically

ROLES = {"human": "user", "gpt": "assistant"}
"""Names of roles under `from`, and ours."""


@dataclass(frozen=True)
class Converted:
    source: Path
    kind: str
    path: Path
    """What is in the organiser's form; the source itself where that was already."""
    rows: int
    answers: int
    """Rows that have one."""
    chats_from: tuple[str, ...]
    answers_from: tuple[str, ...]
    """Columns; a chat's own where the answer was its last turn."""
    left_out: tuple[str, ...]
    """Columns that nothing was made of."""


def convert(path: Path) -> Converted:
    """Write FILE.jsonl beside FILE.

    Raises UsageError (U111 to U113 no such file, U115 there is a file where the result would go, U116 a pipe),
    FormError (F121 no column that is known, F122 a damaged file, F123 a kind that something has to be done to before,
    and F1xx of a row), EnvironmentProblem (E112 no pyarrow) and ResourceError (R101, R102).
    """
    if stream.is_stream(path):
        raise UsageError(
            "U116",
            "a pipe cannot be converted",
            where=paths.shown(path),
            expected="a file, beside which the result goes",
            fix="write the data to a file first",
        )
    content = records.read_bytes(path)
    compressed = foreign.kind_of(path, content) is foreign.GZIP
    if compressed:
        content = _damaged_or(path, foreign.GZIP, lambda: gzip.decompress(content))
    kind = foreign.kind_of(path, content)
    kind = foreign.GZIP_TWICE if kind is foreign.GZIP else kind
    if kind is None and not compressed and _is_in_form(path, content):
        whole = records.parse(path, content)
        return Converted(path, "", path, len(whole), _answers(whole), ("message",), (), ())
    rows = _rows(path, content, kind)
    made = [_in_form(path, index, row) for index, row in enumerate(rows)]
    if not made:
        records.parse(path, b"")  # raises: it is empty
    target = _target(path)
    with write_atomically(target) as file:
        for record, _, _ in made:
            file.write(records.write_line(record.messages, record.answer).encode())
    keys = dict.fromkeys(key for row in rows for key in row)
    chats_from = dict.fromkeys(chat for _, chat, _ in made)
    answers_from = dict.fromkeys(answer for _, _, answer in made if answer)
    return Converted(
        source=path,
        kind=" ".join([kind.called if kind else "lines of JSON", *([foreign.GZIP.called] if compressed else [])]),
        path=target,
        rows=len(made),
        answers=_answers([record for record, _, _ in made]),
        chats_from=tuple(chats_from),
        answers_from=tuple(answers_from),
        left_out=tuple(key for key in keys if key not in chats_from and key not in answers_from),
    )


def text(made: Converted) -> str:
    """For the terminal: what was read, where the result is, and how to run it."""
    run = f"invoke run --dataset {shlex.quote(paths.shown(made.path))}"
    if made.path == made.source:
        head = f"{paths.shown(made.source)} has the organiser's form already: nothing to convert"
        return table.labelled(head, [("rows", f"{made.rows:,}, {made.answers:,} with an answer"), ("run it", run)])
    chats = " and ".join(f"`{name}`" for name in made.chats_from)
    answers = " and ".join(f"{'the last turn of ' * (name in made.chats_from)}`{name}`" for name in made.answers_from)
    lines = [
        ("rows", f"{made.rows:,}, the chats from {chats}"),
        ("answers", f"{made.answers:,}, from {answers}" if made.answers else "none, so that nothing can be scored"),
        *([("left out", ", ".join(made.left_out))] if made.left_out else []),
        ("written", paths.shown(made.path)),
        ("run it", run),
    ]
    return table.labelled(f"{paths.shown(made.source)}: {made.kind}", lines)


def _is_in_form(path: Path, content: bytes) -> bool:
    try:
        records.parse(path, content)
    except FormError:
        return False
    return True


def _answers(made: list[records.Record]) -> int:
    return sum(record.answer is not None for record in made)


def _target(path: Path) -> Path:
    """Where the result goes. Raises UsageError (U115) where something lies there."""
    plain = path.with_name(path.name.removesuffix(".gz"))
    target = plain.with_suffix(".jsonl")
    if target == path:
        target = plain.with_suffix(".converted.jsonl")
    if os.path.lexists(target):
        raise UsageError(
            "U115",
            "there is a file already where the result would go",
            where=paths.shown(target),
            actual="nothing is overwritten",
            fix=f"move it away, or run it: invoke run --dataset {shlex.quote(paths.shown(target))}",
        )
    return target


def _rows(path: Path, content: bytes, kind: foreign.Kind | None) -> list[Row]:
    if kind is foreign.UTF_16:
        content = _damaged_or(path, kind, lambda: content.decode("utf-16").encode())
        kind = foreign.kind_of(path, content)
    if kind in (None, foreign.CHAT_LINES):
        return _lines(path, content)
    if kind in (foreign.JSON_LIST, foreign.JSON_OBJECT, foreign.JSON_COLUMNS):
        return _of_json(path, kind, json.loads(content.decode("utf-8-sig")))
    if kind is foreign.CSV:
        return _table(path, _damaged_or(path, kind, lambda: content.decode("utf-8-sig")))
    if kind is foreign.PARQUET:
        try:
            return _damaged_or(path, kind, lambda: formats.rows_of(".parquet", content))
        except ModuleNotFoundError as error:
            raise EnvironmentProblem(
                "E112",
                "reading Parquet needs pyarrow, which this Python does not have",
                where=sys.executable,
                expected="the version that requirements/cpu.lock (on a Jetson jetpack6.lock) names",
                fix="pip install pyarrow; in a checkout make run installs it",
            ) from error
    raise FormError(
        "F123",
        f"{kind.called} is not converted",
        where=paths.shown(path),
        expected="JSON lines, a JSON list, CSV or Parquet, each also compressed by gzip",
        fix=foreign.remedy(kind, path),
    )


def _lines(path: Path, content: bytes) -> list[Row]:
    """Lines of JSON, blank ones left out."""
    text = _damaged_or(path, foreign.Kind("lines of JSON"), lambda: content.decode("utf-8-sig"))
    numbered = [(index, line) for index, line in enumerate(text.split("\n")) if line.strip()]
    return [json_shapes.chat_in(line) or records.row_in(path, index, line) for index, line in numbered]


def _of_json(path: Path, kind: foreign.Kind, whole: Any) -> list[Row]:
    """The list's, or the columns'; of another object those of the one list in it, or the object where it is a row."""
    if isinstance(whole, dict) and not set(KEYS) & set(whole):
        lists = [each for each in whole.values() if isinstance(each, list) and json_shapes.rows_of(each)]
        if len(lists) != 1:
            raise _no_column(path, whole)
        whole = lists[0]
    rows = _damaged_or(path, kind, lambda: json_shapes.rows_of(whole))
    if rows is None and isinstance(whole, dict):
        return [whole]
    if rows is None:
        raise _damaged(path, kind, "a row that is neither an object nor a chat")
    return list(rows)


def _table(path: Path, text: str) -> list[Row]:
    """A table's rows by its columns' names in small letters; an empty cell is none."""
    longest = csv.field_size_limit(len(text) + 1)  # a cell may be a whole chat
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=foreign.delimiter(text), strict=True)
        head, *body = _damaged_or(path, foreign.CSV, lambda: list(reader))
    finally:
        csv.field_size_limit(longest)
    names = [name.strip().lower() for name in head]
    if twice := [name for name in KEYS + ANSWER_KEYS if names.count(name) > 1]:
        raise _damaged(path, foreign.CSV, f"several columns named {twice[0]}")
    body = [cells for cells in body if any(cells)]
    for number, cells in enumerate(body, 1):
        if len(cells) != len(names):
            raise _damaged(path, foreign.CSV, f"row {number} has {len(cells)} cells, the head {len(names)}")
    return [{name: cell for name, cell in zip(names, cells, strict=True) if cell} for cells in body]


def _in_form(path: Path, index: int, row: Row) -> tuple[records.Record, str, str | None]:
    """The record in a row, and the columns that its chat and its answer came from. Raises FormError."""
    key = next((name for name in KEYS if row.get(name) is not None), None)
    if key is None:
        raise _no_column(path, row, index)
    chat, answered = _chat(key, row[key]), None
    answer_key = next((name for name in ANSWER_KEYS if row.get(name) is not None), None)
    answer = None if answer_key is None else _answer(row[answer_key])
    if isinstance(chat, list) and len(chat) > 1 and isinstance(chat[-1], dict) and chat[-1].get("role") == "assistant":
        *chat, last = chat
        answered = last.get("content")
    if answer is None and answered is not None:
        answer, answer_key = answered, key
    try:
        record = records.checked(path, index, {"message": chat, "answer": answer})
    except FormError as error:
        error.where = f"{paths.shown(path)} row {index + 1}"
        error.fix = "correct that row, then convert again"
        raise
    return record, key, answer_key


def _chat(key: str, value: Any) -> Any:
    """Turns as the organiser has them; whatever is none stays, to be refused by its row."""
    if isinstance(value, str):
        turns = _json_list(value) if key in CHAT_KEYS else None
        if turns is None:
            return [{"role": "user", "content": value}]
        value = turns
    return [_turn(each) for each in value] if isinstance(value, list) else value


def _turn(turn: Any) -> Any:
    if not isinstance(turn, dict) or not {"from", "value"} <= turn.keys() or turn.get("role") is not None:
        return turn
    return {"role": ROLES.get(turn["from"], turn["from"]), "content": turn["value"]}


def _answer(value: Any) -> Any:
    """Text; of a chat of one turn its content, of a whole number its digits."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return _turn(value[0]).get("content")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _json_list(text: str) -> list[Any] | None:
    """A chat that stands in a cell as JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and value and all(isinstance(each, dict) for each in value) else None


def _no_column(path: Path, row: Row, index: int | None = None) -> FormError:
    return FormError(
        "F121",
        "there is no column with a chat or a prompt",
        where=paths.shown(path) + ("" if index is None else f" row {index + 1}"),
        expected=f"one named {', '.join(KEYS)}",
        actual=textwrap.shorten(", ".join(map(str, row)), 300, placeholder=" …") or "(none)",
        fix="rename the column that has the prompts to `prompt`, then convert again",
    )


def _damaged_or(path: Path, kind: foreign.Kind, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:  # pyarrow's are ValueErrors and OSErrors
        raise _damaged(path, kind, " ".join(str(error).split())[:160]) from error


def _damaged(path: Path, kind: foreign.Kind, actual: str) -> FormError:
    return FormError(
        "F122",
        "a file cannot be read as what it looks like",
        where=paths.shown(path),
        expected=f"{kind.called}, whole and in UTF-8 where it is text",
        actual=actual,
        fix="write it anew, as UTF-8 (CSV UTF-8 in a spreadsheet), then convert again",
    )
