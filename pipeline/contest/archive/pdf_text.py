"""The text of a PDF from a stranger, if it has exactly the form that `submit` writes (reportlab's: text and pictures).

The form leaves no room for a second meaning: one table of objects, which fill the file; only the names and operators
that our own papers have, so no scripts, forms, earlier versions or layers. Any other PDF is `Unreadable`. Nothing is
drawn: what a picture shows and the shapes of letters are not looked at.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MOST_OBJECTS = 2_000
MOST_BYTES = 8 << 20
"""The most of all streams that are looked into, as they lie in the file and again inflated."""
MOST_TEXT = 1 << 20
"""Characters."""

_NAMES = """
A ASCII85Decode Action Annot Annots Ascent Author AvgWidth BaseFont BitsPerComponent Border CIDFontType2 CIDSystemInfo
CapHeight Catalog ColorSpace Contents Count CreationDate Creator DW Decode DescendantFonts Descent DeviceGray
DeviceRGB Encoding False Filter FirstChar Flags FlateDecode Font FontBBox FontDescriptor FontFile2 FontName
HYSMyeongJo-Medium Height Helvetica ID Image ImageB ImageC ImageI Info ItalicAngle Keywords Kids LastChar Leading
Length Length1 Link MaxWidth MediaBox MissingWidth ModDate Name Ordering PDF Page PageMode Pages Parent ProcSet
Producer Rect Registry Resources Root Rotate S SMask Size StemH StemV Subject Subtype Supplement Text Title ToUnicode
Trans Trapped TrueType Type Type0 Type1 URI UniKS-UCS2-H UseNone W Width Widths WinAnsiEncoding XHeight XObject
"""
NAMES = frozenset(_NAMES.split())
MADE_NAME = re.compile(rb"F\d+(?:\+\d+)?|FormXob\.[0-9a-f]{32}|[A-Z]{6}\+DejaVu[\w-]*")
_OPERATORS = "q Q cm rg RG w J j l m n re f f* S s h BT ET Tf TL Tm Tj T* Td Tw Do"
OPERATORS = frozenset(_OPERATORS.split())

_END = re.compile(rb"trailer\n(<<(?:[^()]|\(opensource\))*>>)\nstartxref\n(\d{1,10})\n%%EOF\n\Z")
_ENTRY = re.compile(rb"(\d{10}) 00000 n \n")
_STRING = rb"\((?:\\[\x00-\xff]|[^\\()])*\)"
_STRINGS = re.compile(_STRING)
_NAME = re.compile(rb"/([^\s()<>\[\]{}/%]*)")
_STREAM = re.compile(rb"(<<[^()]{1,2000}?>>)\nstream\n")
_TOKEN = re.compile(_STRING + rb"|/[^\s()<>\[\]{}/%]+|[-+.\d]+|[A-Za-z*]+|\s+")
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|[\x00-\xff])")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_MAPPED = re.compile(rb"<([0-9A-F]{2})> <([0-9A-F]{4,6})>\n")


class Unreadable(ValueError):
    """A PDF of another form, or more of one than is read."""


@dataclass
class _File:
    objects: Mapping[int, bytes]
    left_bytes: int = MOST_BYTES
    inflated: dict[int, bytes] = field(default_factory=dict)

    def object(self, number: int) -> bytes:
        if number not in self.objects:
            raise Unreadable("an object that is not there")
        return self.objects[number]

    def stream(self, number: int) -> bytes:
        """The content of a stream."""
        if number not in self.inflated:
            head, stored = _split(self.object(number))
            self._spend(len(stored))
            if b"/ASCII85Decode /FlateDecode" in head:
                try:
                    stored = base64.a85decode(b"<~" + stored.strip(), adobe=True)
                except ValueError as error:
                    raise Unreadable("a stream that is damaged") from error
            elif b"/Filter [ /FlateDecode ]" not in head:
                raise Unreadable("a stream of another kind")
            self.inflated[number] = self._inflate(stored)
        return self.inflated[number]

    def _inflate(self, stored: bytes) -> bytes:
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(stored, self.left_bytes + 1)
        except zlib.error as error:
            raise Unreadable("a stream that is damaged") from error
        self._spend(len(content))
        if not inflater.eof or inflater.unused_data:
            raise Unreadable("a stream that is damaged")
        return content

    def _spend(self, size_bytes: int) -> None:
        self.left_bytes -= size_bytes
        if self.left_bytes < 0:
            raise Unreadable(f"more than {MOST_BYTES:,} bytes of text")


def pages(content: bytes) -> list[list[str]]:
    """The texts of each page, block by block in their order, a line's end as a blank. Raises Unreadable."""
    objects, root = _objects(content)
    file = _File(objects)
    catalog = file.object(root)
    every = [file.object(number) for number in _listed(file.object(_reference(catalog, b"Pages")), b"Kids")]
    if not every or any(b"/Type /Page\n" not in page for page in every):
        raise Unreadable("pages within pages")
    found, length = [], 0
    for page in every:
        fonts = _fonts(file, page)
        texts = list(_texts(file.stream(_reference(page, b"Contents")), fonts))
        length += sum(map(len, texts))
        if length > MOST_TEXT:
            raise Unreadable(f"more than {MOST_TEXT:,} characters")
        found.append(texts)
    return found


def _objects(content: bytes) -> tuple[dict[int, bytes], int]:
    """The objects by their numbers, which together are the whole file, and the number of the root."""
    end = _END.search(content, max(0, len(content) - 4096))
    if end is None or not content.startswith(b"%PDF-1.") or content.count(b"startxref") != 1:
        raise Unreadable("another form of file")
    table_at = int(end[2])
    head = re.compile(rb"xref\n0 (\d{1,7})\n0000000000 65535 f \n").match(content, table_at)
    count = int(head[1]) if head else 0
    if head is None or not 1 < count <= MOST_OBJECTS or head.end() + 20 * (count - 1) != end.start():
        raise Unreadable(f"another table of objects, or more than {MOST_OBJECTS:,}")
    entries = content[head.end() : end.start()]
    places = [int(entry[1]) for entry in _ENTRY.finditer(entries)]
    ends = [*places[1:], table_at]
    if len(places) != count - 1 or not 0 < places[0] < 100 or b"obj" in content[: places[0]]:
        raise Unreadable("another table of objects")
    objects = {}
    for number, (first, behind) in enumerate(zip(places, ends, strict=True), start=1):
        begin, close = f"{number} 0 obj\n".encode(), b"endobj\n"
        whole = content[first:behind] if first < behind else b""
        if not (whole.startswith(begin) and whole.endswith(close)):
            raise Unreadable("objects that do not fill the file")
        objects[number] = whole[len(begin) : -len(close)]
        _check_form(objects[number])
    trailer = end[1]
    if b"/Prev" in trailer or b"/Encrypt" in trailer:
        raise Unreadable("an earlier version, or a lock")
    return objects, _reference(trailer, b"Root")


def _check_form(body: bytes) -> None:
    """A dictionary of known names, or one with a stream that is as long as it says."""
    head = _split(body)[0] if b"stream" in body else body
    bare = _STRINGS.sub(b"", head)
    if b"(" in bare or b")" in bare or b"endobj" in bare or not bare.startswith(b"<<"):
        raise Unreadable("an object of another form")
    for name in _NAME.findall(bare):
        if name.decode("latin-1") not in NAMES and not MADE_NAME.fullmatch(name):
            raise Unreadable(f"a name that our papers do not have: {name[:40].decode('latin-1')}")
    for key in (b"Contents", b"Kids", b"Pages", b"Font", b"ToUnicode"):
        if bare.count(b"/" + key + b" ") > 1:
            raise Unreadable("a key twice")


def _split(body: bytes) -> tuple[bytes, bytes]:
    """The dictionary of a stream, and its bytes."""
    head = _STREAM.match(body)
    length = re.search(rb"/Length (\d{1,9})\s", head[1]) if head else None
    if head is None or length is None:
        raise Unreadable("an object of another form")
    behind = head.end() + int(length[1])
    if body[behind:] not in (b"endstream\n", b"\nendstream\n"):
        raise Unreadable("a stream of another length than it says")
    return head[1], body[head.end() : behind]


def _reference(body: bytes, key: bytes) -> int:
    found = re.search(rb"/" + key + rb" (\d{1,7}) 0 R\b", body)
    if found is None:
        raise Unreadable(f"no /{key.decode()}")
    return int(found[1])


def _listed(body: bytes, key: bytes) -> list[int]:
    found = re.search(rb"/" + key + rb" \[([\sR\d]*)\]", body)
    if found is None:
        raise Unreadable(f"no /{key.decode()}")
    return [int(number) for number in re.findall(rb"(\d{1,7}) 0 R", found[1])]


def _fonts(file: _File, page: bytes) -> dict[bytes, str | Mapping[int, str]]:
    """How each font of a page writes its letters: by name, or a table from byte to letter."""
    fonts: dict[bytes, str | Mapping[int, str]] = {}
    for name, number in re.findall(rb"/(F[\d+]+) (\d{1,7}) 0 R", file.object(_reference(page, b"Font"))):
        font = file.object(int(number))
        if b"/ToUnicode " in font:
            table = _MAPPED.findall(file.stream(_reference(font, b"ToUnicode")))
            fonts[name] = {int(code, 16): chr(min(int(letter, 16), 0x10FFFF)) for code, letter in table}
        elif b"/Encoding /UniKS-UCS2-H" in font:
            fonts[name] = "utf-16-be"
        elif b"/BaseFont /Helvetica /Encoding /WinAnsiEncoding" in font:
            fonts[name] = "cp1252"
        else:
            raise Unreadable("a font without a table of its letters")
    return fonts


def _texts(stream: bytes, fonts: Mapping[bytes, str | Mapping[int, str]]) -> Iterator[str]:
    """The words between each BT and ET."""
    at, before, last, letters = 0, b"", b"", None
    text: list[str] = []
    while at < len(stream):
        token = _TOKEN.match(stream, at)
        if token is None:
            raise Unreadable("something else than text and lines on a page")
        at, part = token.end(), token[0]
        if part[:1].isspace():
            continue
        if part[:1] not in b"(/" and not re.fullmatch(rb"[-+.\d]+", part):
            operator = part.decode("latin-1")
            if operator not in OPERATORS:
                raise Unreadable(f"an operator that our papers do not have: {operator[:20]}")
            if operator == "Tf":
                letters = fonts.get(before[1:])
            elif operator == "Tj":
                text.append(_decoded(last, letters))
            elif operator == "T*":
                text.append(" ")
            elif operator == "ET":
                if words := " ".join("".join(text).split()):
                    yield words
                text = []
        before, last = last, part


def _decoded(string: bytes, letters: str | Mapping[int, str] | None) -> str:
    if letters is None or string[:1] != b"(":
        raise Unreadable("text in a font that is not there")
    raw = _ESCAPE.sub(_unescaped, string[1:-1])
    if isinstance(letters, str):
        return raw.decode(letters, "replace").replace("\x7f", "•")
    return "".join(letters.get(code, "\ufffd") for code in raw)


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8) & 255]) if code.isdigit() and code < b"8" else _LETTERS.get(code, code)
