"""Tar files from strangers, read strictly: plain files and folders in ustar or pax form, and nothing else.

By hand, since tarfile is made to cope: it takes a damaged header for the end, reads extensions that nobody sent by
accident, and a name may then mean one thing here and another to the next program. Here everything has one reading, or
is refused. Layout of ustar and pax: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.errors import FormError, IntegrityError

BLOCK = 512
MOST_PAX_BYTES = 64 << 10
MOST_PADDING_BYTES = 1 << 20
"""Most zeros behind the end; tar itself pads to 10 KiB."""

KINDS = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a character device",
    "4": "a block device",
    "6": "a named pipe",
    "7": "a contiguous file",
    "S": "a sparse file",
    "L": "a long name in GNU's form",
    "K": "a long link in GNU's form",
}
TELLING = {"path", "size"}
"""Keys of pax headers that change what a member is; links and sparse files are refused by theirs."""
HARMLESS = {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "charset", "hdrcharset"}


@dataclass(frozen=True)
class Member:
    name: str
    """As it stands there: nobody has looked at it yet."""
    is_folder: bool
    mode: int
    size_bytes: int
    offset: int
    """First byte of its content in the archive."""


def members(file: BinaryIO, where: str) -> Iterator[Member]:
    """Every member, in order, by headers only. `where` names the archive in errors.

    Raises FormError: F401 no tar or a damaged header, F402 it ends early, or something stands behind its end or a
    member's, F403 an extension that has no place here; IntegrityError: M701 neither a file nor a folder.
    """
    end = file.seek(0, os.SEEK_END)
    at = 0
    extended: dict[str, str] = {}
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise _truncated(where, f"nothing at byte {at:,}, where a header or the end belongs")
        if not any(block):
            _check_end(file, end - at, where)
            return
        header = _header(block, where, at)
        data = at + BLOCK
        size = int(extended.get("size", header.size_bytes))
        if data + size > end:
            raise _truncated(where, f"{header.name!r} would end at byte {data + size:,} of {end:,}")
        if header.kind in "xg":
            if header.size_bytes > MOST_PAX_BYTES:
                raise _extension(where, f"a header of {header.size_bytes:,} bytes")
            records = _pax(file.read(header.size_bytes), where)
            if header.kind == "g" and set(records) & TELLING:
                raise _extension(where, f"{', '.join(set(records) & TELLING)} for all members")
            extended = records if header.kind == "x" else extended
        else:
            yield _member(header, extended, size, data, where)
            extended = {}
        # What stands between a member's end and the next header is nobody's, and must be nothing.
        stop = data + (header.size_bytes if header.kind in "xg" else size)
        at = stop + -stop % BLOCK
        file.seek(stop)
        if any(file.read(at - stop)):
            raise _truncated(where, f"something behind the end of {header.name!r}")


@dataclass(frozen=True)
class _Header:
    name: str
    kind: str
    mode: int
    size_bytes: int


def _header(block: bytes, where: str, at: int) -> _Header:
    try:
        expected = _octal(block[148:156])
        if sum(block[:148]) + sum(block[156:]) + 8 * ord(" ") != expected:
            raise ValueError("its checksum is wrong")  # noqa: TRY301
        if block[257:265] != b"ustar\x0000":
            raise ValueError("it is not in ustar's form")  # noqa: TRY301
        name, prefix = (_text(part) for part in (block[:100], block[345:500]))
        full = f"{prefix}/{name}" if prefix else name
        kind = chr(block[156]) if block[156] else "0"
        return _Header(full, kind, _octal(block[100:108]), _octal(block[124:136]))
    except ValueError as error:  # also not UTF-8
        raise FormError(
            "F401",
            "this is not a tar file, or its headers are damaged",
            where=f"{where}, byte {at:,}",
            expected="an uncompressed tar file in ustar or pax form",
            actual=error,
            fix="have it sent again; invoke submit writes such files",
        ) from error


def _octal(field: bytes) -> int:
    digits = field.split(b"\0", 1)[0].strip()
    if not re.fullmatch(rb"[0-7]+", digits):
        raise ValueError(f"{field!r} is no octal number")
    return int(digits, 8)


def _text(field: bytes) -> str:
    name, _, rest = field.partition(b"\0")
    if any(rest):
        raise ValueError("something stands behind the end of a name")
    return name.decode("utf-8")


def _pax(content: bytes, where: str) -> dict[str, str]:
    """Records as "<length> <key>=<value>\\n"."""
    records: dict[str, str] = {}
    at = 0
    while at < len(content):
        length = re.match(rb"([1-9]\d{0,5}) ", content[at : at + 7])
        record = content[at : at + int(length[1])] if length else b""
        key, equals, value = record[len(length[0]) if length else 0 :].partition(b"=")
        if not (length and len(record) == int(length[1]) and equals and record.endswith(b"\n")):
            raise _extension(where, "a record that cannot be read")
        try:
            name, text = key.decode(), value[:-1].decode()
        except UnicodeDecodeError:
            raise _extension(where, "a record that is not UTF-8") from None
        fine = name in HARMLESS or name == "path" or (name == "size" and re.fullmatch(r"\d{1,15}", text))
        if not fine or name in records:
            raise _extension(where, f"{name[:40]!r}")
        records[name] = text
        at += len(record)
    return records


def _member(header: _Header, extended: dict[str, str], size: int, offset: int, where: str) -> Member:
    name = extended.get("path", header.name)
    if header.kind not in "05":
        raise IntegrityError(
            "M701",
            "the archive holds something that is neither a file nor a folder",
            where=f"{where}: {name!r}",
            expected="files and folders",
            actual=KINDS.get(header.kind, f"a member of kind {header.kind!r}"),
            fix="do not unpack it by other means; ask the team what it is for",
        )
    if header.kind == "5" and size:
        raise _truncated(where, f"the folder {name!r} has a content")
    return Member(name, header.kind == "5", header.mode, size, offset)


def _check_end(file: BinaryIO, left: int, where: str) -> None:
    """Two blocks of zeros end an archive, and only zeros follow."""
    rest = file.read(MOST_PADDING_BYTES + 1)
    if left < 2 * BLOCK or any(rest) or len(rest) > MOST_PADDING_BYTES:
        raise _truncated(where, "no proper end: two blocks of zeros, and nothing but a few more behind them")


def _truncated(where: str, actual: str) -> FormError:
    return FormError(
        "F402",
        "the archive ends too early, or has more bytes after its end",
        where=where,
        actual=actual,
        fix="have it sent again; compare its size and sha256 with the sender's",
    )


def _extension(where: str, actual: str) -> FormError:
    return FormError(
        "F403",
        "the archive uses an extension of tar that a submission may not use",
        where=where,
        expected="pax headers for long names and large files only",
        actual=actual,
        fix="pack it by invoke submit",
    )
