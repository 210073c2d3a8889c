"""The organiser's form: JSON lines of {"message": [{"role": …, "content": …}, …], "answer": …}.

`read` is inside the timed section of a run: one read of the file, one json.loads a line, plain checks.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pipeline import paths
from pipeline.dataset import foreign, json_shapes, stream
from pipeline.errors import FormError, UsageError

ROLES = ("user", "assistant", "system")
_EXAMPLE = '{"message": [{"role": "user", "content": "…"}], "answer": "…"}'
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """One prompt. `index` counts from 0 in file order; `answer` is None where the file has none to score against."""

    index: int
    messages: list[dict[str, str]]
    answer: str | None


def read(path: Path, *, once: bool = False) -> list[Record]:
    """All records of a file, in file order.

    Allowed: no `answer` (or null), keys that the form does not know (they are ignored), a byte order mark at the
    start, no newline at the end or several. Raises FormError (F101 to F114) for the first line that is wrong, in file
    order, F115 for a file of another kind, and UsageError as `read_bytes` does.
    """
    return parse(path, read_bytes(path, once=once))


def parse(path: Path, data: bytes) -> list[Record]:
    """The records in a file's bytes; `path` is for the errors, which are those of `read`."""
    try:
        return _parse(path, data.removeprefix(_BOM))
    except FormError as error:
        kind = foreign.kind_of(path, data)
        if kind is None:
            raise
        raise FormError(
            "F115",
            f"the data file is {kind.called}",
            where=paths.shown(path),
            expected=f"{_EXAMPLE} a line",
            fix=foreign.remedy(kind, path),
        ) from error


def _parse(path: Path, body: bytes) -> list[Record]:
    try:
        return _records(path, body.decode("utf-8"))
    except UnicodeDecodeError as error:
        _refuse_bytes(path, body, error)


def write_line(messages: list[dict[str, str]], answer: str | None) -> str:
    """One line of the organiser's file, byte for byte; without the answer's key if there is none."""
    row: dict[str, object] = {"message": messages}
    if answer is not None:
        row["answer"] = answer
    return json.dumps(row, ensure_ascii=False) + "\n"


def check_path(path: Path) -> None:
    """Raise UsageError: U111 there is no such file (with the nearest names), U112 it is a folder."""
    if os.path.isdir(path):
        files = [name for name in _names(path) if name.endswith(".jsonl")]
        raise UsageError(
            "U112",
            "a folder was named where a data file belongs",
            where=paths.shown(path),
            expected="a .jsonl file" + (f", for instance {', '.join(sorted(files)[:3])}" if files else ""),
            fix="name the file",
        )
    if not os.path.exists(path):
        names = [name for name in _names(path.parent) if name != path.name]
        near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
        near = near or sorted(name for name in names if name.endswith(".jsonl"))[:3]
        at_hand = f"there are {', '.join(near)}" if near else "no set has a name like it"
        if os.path.islink(path):
            at_hand = f"a link to {os.readlink(path)}, where no file is; {at_hand}"
        raise UsageError(
            "U111",
            "there is no such data file",
            where=paths.shown(path),
            actual=at_hand if path.parent.is_dir() else f"there is no folder {paths.shown(path.parent)}",
            fix=f"name one that exists, for instance {paths.shown(path.parent / near[0])}"
            if near
            else "correct the path",
        )


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def check_no_pipe(path: Path) -> None:
    """Raise UsageError (U117) for a pipe, for who hashes or reads the file more than once."""
    if stream.is_stream(path):
        fix = "write the data into a file, and name that"
        raise stream.refuse_again("U117", "these data are read more than once", path, fix)


def read_bytes(path: Path, *, once: bool = False) -> bytes:
    """A whole data file; a pipe only for who reads `once`: a second reader would wait for ever. Raises UsageError:
    U111, U112 as `check_path` does, U113 it may not be read, U117 it is a pipe."""
    if not once:
        check_no_pipe(path)
    try:
        return path.read_bytes()
    except OSError as error:
        check_path(path)
        raise UsageError(
            "U113",
            "a data file cannot be read",
            where=paths.shown(path),
            actual=error.strerror,
            fix="allow reading it (chmod, or run as its owner)",
        ) from error


def _records(path: Path, text: str) -> list[Record]:
    # Blank lines at the end are an editor's habit; inside, a line is missing or the file is damaged.
    body = text.rstrip()
    if not body:
        _refuse(path, 1, "F101", "the data file is empty", None, fix="check how it was written", expected=_EXAMPLE)
    # Not splitlines(): U+2028 and its like are ordinary characters inside a JSON string.
    return [_record(path, index, line) for index, line in enumerate(body.split("\n"))]


def _record(path: Path, index: int, line: str) -> Record:
    return checked(path, index, row_in(path, index, line))


def row_in(path: Path, index: int, line: str) -> dict[str, Any]:
    """The object in a line. Raises FormError (F103 to F105)."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        _refuse_line(path, index + 1, line, error)
    if not isinstance(row, dict):
        _refuse(path, index + 1, "F105", "a row is not an object", _json(row), expected=_EXAMPLE)
    return row


def checked(path: Path, index: int, row: dict[str, Any]) -> Record:
    """The record in an object. Raises FormError (F106 to F114)."""
    number = index + 1
    if "message" not in row:
        keys = f"the keys {', '.join(row) or '(none)'}"
        fix = foreign.command(path) if set(json_shapes.KEYS) & set(row) else "correct that line"
        _refuse(path, number, "F106", "a row has no `message`", keys, expected=_EXAMPLE, fix=fix)
    messages = _messages(path, number, row["message"])
    answer = row.get("answer")
    if answer is not None and not isinstance(answer, str):
        _refuse(
            path, number, "F112", "an answer is not text", _json(answer), expected="a string, or no `answer` at all"
        )
    if answer is not None:
        _check_encodes(path, number, answer)
    return Record(index, messages, answer)


def _messages(path: Path, number: int, entries: Any) -> list[dict[str, str]]:
    if not isinstance(entries, list):
        fix = foreign.command(path) if isinstance(entries, str) else "correct that line"
        turns = '[{"role": …, "content": …}, …]'
        _refuse(path, number, "F107", "`message` is not a list", _json(entries), expected=turns, fix=fix)
    if not entries:
        _refuse(
            path, number, "F108", "a message list is empty", _json(entries), expected="at least one turn, the user's"
        )
    messages = []
    for entry in entries:
        if not isinstance(entry, dict):
            _refuse(path, number, "F109", "a turn is not an object", _json(entry), expected='{"role": …, "content": …}')
        role, content = entry.get("role"), entry.get("content")
        if role not in ROLES:
            actual = _json(role) if "role" in entry else f"no role, the keys {', '.join(entry) or '(none)'}"
            _refuse(path, number, "F110", "a turn has an unknown role", actual, expected=f"one of {', '.join(ROLES)}")
        if not isinstance(content, str):
            actual = _json(content) if "content" in entry else f"no content, the keys {', '.join(entry)}"
            _refuse(path, number, "F111", "the content of a turn is not text", actual, expected="a string")
        _check_encodes(path, number, content)
        messages.append({"role": role, "content": content})
    if messages[-1]["role"] != "user":
        _refuse(
            path,
            number,
            "F113",
            "the last turn is not the user's",
            f"role {messages[-1]['role']}",
            expected="role user",
        )
    return messages


def _check_encodes(path: Path, number: int, text: str) -> None:
    """JSON can spell half of a surrogate pair, which is no character: no tokenizer takes it, no file holds it."""
    try:
        text.isascii() or text.encode("utf-8")
    except UnicodeEncodeError as error:
        actual = f"\\u{ord(text[error.start]):04x} at character {error.start}"
        _refuse(path, number, "F114", "a text contains half of a surrogate pair", actual, expected="whole characters")


def _refuse_bytes(path: Path, body: bytes, error: UnicodeDecodeError) -> NoReturn:
    """Refuse a file that is not UTF-8; an earlier line that is wrong in another way comes first."""
    before, newline, _ = body[: error.start].rpartition(b"\n")
    if newline and before.strip():
        _records(path, before.decode("utf-8"))
    column = error.start - len(before) - len(newline) + 1
    _refuse(
        path,
        before.count(b"\n") + len(newline) + 1,
        "F102",
        "the data file is not UTF-8",
        f"byte 0x{body[error.start]:02x} at byte {column} of the line",
        expected="UTF-8 text",
        fix="save it as UTF-8 (for instance: iconv -f ENCODING -t UTF-8)",
    )


def _refuse_line(path: Path, number: int, line: str, error: Exception) -> NoReturn:
    if not line.strip():
        _refuse(path, number, "F103", "a line is empty", None, expected="one JSON object a line", fix="delete the line")
    if isinstance(error, json.JSONDecodeError):
        around = line[max(0, error.pos - 20) : error.pos + 40]
        actual = f"{error.msg.removesuffix(' at')} at column {error.pos + 1}, near {around!r}"
    else:
        actual = f"{error} in {line[:40]!r}"
    _refuse(path, number, "F104", "a line is not JSON", actual, expected=_EXAMPLE)


def _refuse(
    path: Path, number: int, code: str, what: str, actual: str | None, *, expected: str, fix: str = "correct that line"
) -> NoReturn:
    where = f"{paths.shown(path)} line {number}"
    raise FormError(code, what, where=where, expected=expected, actual=_short(actual), fix=fix)


def _json(value: Any) -> str:
    """A value as it stands in the file."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"


def _short(text: str | None, limit: int = 80) -> str | None:
    """Cut, and printable whatever the file holds."""
    if text is None:
        return None
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return cut.encode("utf-8", "backslashreplace").decode("utf-8")
