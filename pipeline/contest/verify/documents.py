"""What is looked at in a submission's documents: a picture is one, the paper is of this run, the bill is of its lock.

Nothing is drawn or run. Pictures are walked through by their chunks (PNG, third edition), of a PDF head, end and the
keyword that names the answers, of an image's archive the names.
"""

from __future__ import annotations

import re
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.contest.archive import strict_json
from pipeline.contest.checks.submitted import Submitted
from pipeline.contest.format import IMAGE
from pipeline.contest.source import sbom, third_party

PAPER, PICTURE, TEXT = "method.pdf", "leaderboard.png", "method.md"
REQUIRED = (TEXT, PAPER, PICTURE, sbom.NAME, third_party.NAME)
"""Documents that a submission must have: those the contest requires, and the lists of third-party work."""

MOST_BYTES = 32 << 20
"""Of a document."""
MOST_PIXELS = 20_000
"""Of a picture's side."""
MOST_IMAGE_FILES = 5_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = re.compile(rb"/Keywords \(outputs ([0-9a-f]{64})\)")
IMAGE_LISTS = {"manifest.json", "index.json"}
"""What an archive of docker save or podman save holds; the second is the OCI layout's."""


def keywords(outputs_sha256: str) -> str:
    """The texts by which a paper is known as that of a run."""
    return f"outputs {outputs_sha256}"


def faults(submitted: Submitted, source: Mapping[str, bytes] | None) -> Iterator[str]:
    """The faults of the documents, in words."""
    listed = submitted.submission.files
    missing = [name for name in REQUIRED if not listed.get(name)]
    yield from (f"missing: {name}" for name in missing)
    for name in sorted(listed):
        path = submitted.folder / name
        if "/" in name or name in missing or not path.is_file() or name == IMAGE:
            continue
        if name.endswith((".png", ".pdf", ".json", ".md")) and path.stat().st_size > MOST_BYTES:
            yield f"{name}: more than {MOST_BYTES:,} bytes"
        elif name.endswith(".png"):
            yield from (f"{name}: {why}" for why in _picture(path.read_bytes()))
        elif name == PAPER:
            yield from (f"{name}: {why}" for why in _paper(path.read_bytes(), submitted))
        elif name == sbom.NAME and source is not None:
            yield from (f"{name}: {why}" for why in _bill(path.read_bytes(), submitted, source))
    if (submitted.folder / IMAGE).is_file():
        yield from (f"{IMAGE}: {why}" for why in _image(submitted.folder / IMAGE))


def _picture(content: bytes) -> Iterator[str]:
    if not content.startswith(SIGNATURE):
        yield "no PNG"
        return
    at, kinds = len(SIGNATURE), []
    while at + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        body, end = content[at + 4 : at + 8 + length], at + 12 + length
        if end > len(content) or zlib.crc32(body) != struct.unpack(">I", content[end - 4 : end])[0]:
            yield "a PNG that is damaged"
            return
        kinds.append(kind)
        at = end
        if kind == b"IEND":
            break
    if kinds[:1] != [b"IHDR"] or b"IDAT" not in kinds or kinds[-1] != b"IEND" or at != len(content):
        yield "a PNG that is not whole, or goes on behind its end"
        return
    width, height = struct.unpack(">II", content[16:24])
    if not (0 < width <= MOST_PIXELS and 0 < height <= MOST_PIXELS):
        yield f"{width:,} by {height:,} pixels"


def _paper(content: bytes, submitted: Submitted) -> Iterator[str]:
    if not re.match(rb"%PDF-[12]\.\d", content) or b"%%EOF" not in content[-1024:] or b"/Page" not in content:
        yield "no PDF"
        return
    named = {each.decode() for each in KEYWORD.findall(content)}
    if named != {submitted.manifest.sections[0].outputs_sha256}:
        yield "not of this run: its keyword names " + ("other answers" if named else "no answers")


def _bill(content: bytes, submitted: Submitted, source: Mapping[str, bytes]) -> Iterator[str]:
    try:
        third_party.parse(source[third_party.NAME])
    except (KeyError, ValueError):
        return  # nothing to hold it against, as its own rule says
    try:
        claimed = _components(strict_json.loads(content))
        manifest = strict_json.loads((submitted.run / "manifest.json").read_bytes())
        expected = _components(strict_json.loads(sbom.make(manifest, source, 0)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"cannot be read, or held against the lock: {type(error).__name__}"
        return
    for each in sorted(claimed ^ expected)[:3]:
        yield f"{' '.join(each)} is {'not of the lock' if each in claimed else 'missing'}"


def _components(bill: Any) -> set[tuple[str, str, str]]:
    """Kind, name with version, and hash of each component, and the program's own."""
    parts = [bill["metadata"]["component"], *bill["components"]]
    return {
        (
            str(each["type"]),
            f"{each['name']} {each['version']}",
            str((each.get("hashes") or [{}])[0].get("content", "")),
        )
        for each in parts
    }


def _image(path: Path) -> Iterator[str]:
    try:
        with tarfile.open(path, "r:") as archive:
            for number, member in enumerate(archive):
                if member.name.removeprefix("./") in IMAGE_LISTS and member.isreg():
                    return
                if number >= MOST_IMAGE_FILES:
                    break
    except (tarfile.TarError, OSError, ValueError) as error:
        yield f"no archive of an image: {str(error)[:80]}"
        return
    yield f"an archive without {' or '.join(sorted(IMAGE_LISTS))}"
