"""Data files in a form that is not the organiser's: which one it is, by the bytes, and what its owner can do.

Looked at only when a file could not be read, so that a good file costs nothing. What can be converted is
(`to_form`); for what cannot, the remedy ends in a file that can.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.dataset import json_shapes, stream
from pipeline.dataset.json_shapes import KEYS

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Kind:
    called: str
    before: str | None = None
    """What has to be done before it can be converted; None: nothing."""
    convertible: bool = True
    """Whether it, or what `before` makes of it, is something to convert; otherwise it is only to be unpacked."""


GZIP = Kind("compressed by gzip")
GZIP_TWICE = Kind("compressed by gzip twice", "unpack it once (gunzip)", convertible=False)
PARQUET = Kind("a Parquet file")
JSON_LIST = Kind("one JSON list, and not a line for each row")
JSON_OBJECT = Kind("one JSON object over several lines")
JSON_COLUMNS = Kind("one JSON object with a list for each column")
CHAT_LINES = Kind("lines of JSON that are chats, and no objects with a `message`")
CSV = Kind("a CSV table")
UTF_16 = Kind("text in UTF-16")
UNMARKED = Kind(
    "text in UTF-16 or UTF-32", "save it as UTF-8 (for instance: iconv -f UTF-16LE -t UTF-8)", convertible=False
)
EXCEL = Kind("an Excel workbook", "save it as CSV (UTF-8) in the program that wrote it")
ARROW = Kind("an Arrow file", "save it as Parquet")
MAGIC = (
    (b"\x1f\x8b", GZIP),
    (b"PAR1", PARQUET),
    (b"ARROW1", ARROW),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", EXCEL),
    (b"\xff\xfe\0\0", UNMARKED),
    (b"\0\0\xfe\xff", UNMARKED),
    (b"\xff\xfe", UTF_16),
    (b"\xfe\xff", UTF_16),
    (b"PK\x03\x04", Kind("a zip archive", "unpack it (unzip)", convertible=False)),
    (
        b"version https://git-lfs",
        Kind("a pointer of Git LFS", "fetch the file (git lfs pull)", convertible=False),
    ),
    (b"<!DOCTYPE", Kind("a web page", "download the file itself", convertible=False)),
    (b"<html", Kind("a web page", "download the file itself", convertible=False)),
    (b"BZh", Kind("compressed by bzip2", "unpack it (bunzip2)", convertible=False)),
    (b"\xfd7zXZ\x00", Kind("compressed by xz", "unpack it (unxz)", convertible=False)),
    (b"\x28\xb5\x2f\xfd", Kind("compressed by Zstandard", "unpack it (unzstd)", convertible=False)),
)


def kind_of(path: Path, content: bytes) -> Kind | None:
    """The kind of a file; None: lines of text, whatever is in them."""
    for magic, kind in MAGIC:
        if content.startswith(magic):
            return EXCEL if magic.startswith(b"PK") and b"xl/workbook" in content else kind
    if content[:4].count(0) in (2, 3) and content[:4].strip(b"\0").isascii():  # letters, without a mark before them
        return UNMARKED
    text = content.decode("utf-8-sig", "replace").lstrip()
    first, _, more = text.partition("\n")
    if text.startswith(("[", "{")):
        return _kind_of_json(text, _json(first), more.strip() != "")
    named_so = Path(path.name.removesuffix(".gz")).suffix.lower() in {".csv", ".tsv"}
    return CSV if first.strip() and (named_so or set(KEYS) & set(columns(text))) else None


def _kind_of_json(text: str, first: object, more: bool) -> Kind | None:
    """`first`: the value in the first line, if it is whole: then it is a row, right or wrong, where others follow."""
    if more and first is not None:
        return CHAT_LINES if json_shapes.is_chat(first) else None
    whole = _json(text)
    try:
        rows = json_shapes.rows_of(whole)
    except ValueError:  # columns all the same
        rows = [{}]
    if isinstance(whole, dict):
        return JSON_COLUMNS if rows else JSON_OBJECT if more else None
    return JSON_LIST if rows else None


def columns(text: str) -> list[str]:
    """Names of a table's columns, in small letters."""
    return [name.strip().lower() for name in _head(text, delimiter(text))]


def delimiter(text: str) -> str:
    """The character between the columns: the one that finds most columns, among them a name that we know."""
    heads = {each: [name.strip().lower() for name in _head(text, each)] for each in DELIMITERS}
    return max(DELIMITERS, key=lambda each: (bool(set(KEYS) & set(heads[each])), len(heads[each])))


def remedy(kind: Kind, path: Path) -> str:
    """For an error's `do:`, the one command behind whatever has to be done first."""
    if kind.before is None:
        return command(path)
    if not kind.convertible:
        return f"{kind.before}, then name the file that comes of it"
    ending = ".parquet" if kind is ARROW else ".csv"
    return f"{kind.before}, then: {command(path.with_suffix(ending))}"


def command(path: Path) -> str:
    """The command that converts a file; for a pipe, that it has to be a file first."""
    if stream.is_stream(path):
        return "write the data to a FILE, then: invoke data --convert FILE"
    return f"invoke data --convert {shlex.quote(paths.shown(path))}"


def _head(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text.partition("\n")[0]), delimiter=delimiter), [])
    except csv.Error:
        return []


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
