"""Data files as people have them: what is read stays read, and what is refused is refused by the same name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipeline.dataset import records
from pipeline.errors import FormError

ROW = '{"message": [{"role": "user", "content": "Who?"}], "answer": "me"}'
BOM = b"\xef\xbb\xbf"


def row(content: str = '"Who?"', answer: str = '"me"', role: str = '"user"', more: str = "") -> str:
    """A line of the file; all in JSON, `more` a key and its value."""
    return f'{{"message": [{{"role": {role}, "content": {content}}}], "answer": {answer}{more and ", " + more}}}'


HALF = json.dumps(chr(0xD83D))

READ = {
    "two rows": (f"{ROW}\n{ROW}\n", 2),
    "an empty line at the end": (f"{ROW}\n{ROW}\n\n", 2),
    "no line break at the end": (f"{ROW}\n{ROW}", 2),
    "CRLF": (f"{ROW}\r\n{ROW}\r\n", 2),
    "a byte order mark at the start": (BOM + f"{ROW}\n{ROW}\n".encode(), 2),
    "line separators of Unicode inside a text": (row('"a\u2028b\u2029c\x85d"'), 1),
    "a key twice": (row(more='"answer": "you"'), 1),
    "a role twice": (row(role='"system", "role": "user"'), 1),
    "half a surrogate pair where nobody reads": (row(more=f'"source": {HALF}'), 1),
    "NaN where nobody reads": (row(more='"score": NaN'), 1),
    "NUL inside a text": (row(json.dumps("a" + chr(0) + "b")), 1),
    "no answer": (row(answer="null"), 1),
    "a surrogate pair as two escapes": (row(json.dumps("😀")), 1),
}

REFUSED = {
    "one list": (f"[{ROW}, {ROW}]", "F115"),
    "one object over several lines": (json.dumps(json.loads(ROW), indent=2), "F115"),
    "gzip": (gzip.compress(ROW.encode()), "F115"),
    "UTF-16": (ROW.encode("utf-16"), "F115"),
    "UTF-16 without a mark, little end first": (ROW.encode("utf-16-le"), "F115"),
    "UTF-16 without a mark, big end first": (ROW.encode("utf-16-be"), "F115"),
    "UTF-32": (ROW.encode("utf-32"), "F115"),
    "UTF-32 without a mark": (ROW.encode("utf-32-be"), "F115"),
    "nothing but NUL": (bytes(1000), "F104"),
    "empty": ("", "F101"),
    "a byte order mark alone": (BOM, "F101"),
    "Latin 1": (row('"é"').encode("latin-1"), "F102"),
    "half a surrogate pair as bytes": (row('"?"').encode().replace(b"?", b"\xed\xa0\xbd"), "F102"),
    "an empty line at the start": (f"\n{ROW}\n", "F103"),
    "an empty line in the middle": (f"{ROW}\n\n{ROW}\n", "F103"),
    "a byte order mark inside": (f"{ROW}\n\ufeff{ROW}\n", "F104"),
    "two byte order marks": (BOM + BOM + ROW.encode(), "F104"),
    "two objects in a line": (f"{ROW}{ROW}\n", "F104"),
    "CR alone": (f"{ROW}\r{ROW}\r", "F104"),
    "a no-break space behind a row": (f"{ROW}\u00a0\n{ROW}\n", "F104"),
    "a comma behind the last key": (row().removesuffix("}") + ",}", "F104"),
    "a comma behind a row": (f"{ROW},\n{ROW}\n", "F104"),
    "a tab that is not escaped": (row('"a\tb"'), "F104"),
    "another key for the chat": (ROW.replace('"message"', '"messages"'), "F106"),
    "a chat in a list, and one answer": (ROW.replace("[", "[[").replace("]", "]]"), "F109"),
    "a role that no template knows": (row(role='"tool"'), "F110"),
    "a content in parts": (row('[{"type": "text", "text": "Who?"}]'), "F111"),
    "a number as an answer": (row(answer="4"), "F112"),
    "NaN as an answer": (row(answer="NaN"), "F112"),
    "half a surrogate pair in a text": (row(HALF), "F114"),
}


def written(content: str | bytes, tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("kind", READ)
def test_it_is_read(kind: str, tmp_path: Path) -> None:
    content, rows = READ[kind]
    assert len(records.read(written(content, tmp_path))) == rows


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    content, code = REFUSED[kind]
    with pytest.raises(FormError) as caught:
        records.read(written(content, tmp_path))
    assert caught.value.code == code
    assert caught.value.fix
