"""The documents of a submission as small as they can be, as the organiser wants them: nothing is drawn."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

from pipeline.contest.source import sbom, third_party
from pipeline.contest.verify import documents

TEXT = b"Documents that test_submit.py makes for real. " * 30


def picture() -> bytes:
    """One black pixel."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b"\0\0"), b"IEND": b""}
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    ]
    return documents.SIGNATURE + b"".join(parts)


def paper(outputs_sha256: str) -> bytes:
    info = f"1 0 obj << /Type /Page >> endobj 2 0 obj << /Keywords ({documents.keywords(outputs_sha256)}) >> endobj"
    return b"%PDF-1.4\n" + info.encode() + b"\n%%EOF\n"


def drawn(manifest: Mapping[str, Any]) -> dict[str, bytes]:
    outputs_sha256 = manifest["sections"][0]["outputs_sha256"]
    return {documents.TEXT: TEXT, documents.PICTURE: picture(), documents.PAPER: paper(outputs_sha256)}


def make(manifest: Mapping[str, Any], source: Mapping[str, bytes]) -> dict[str, bytes]:
    return {
        **drawn(manifest),
        sbom.NAME: sbom.make(manifest, source, 0),
        third_party.NAME: source[third_party.NAME],
    }
