"""The documents of a submission as small as they can be, as the organiser wants them: nothing is drawn."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.contest.source import sbom, third_party
from pipeline.contest.team import TeamWords
from pipeline.contest.verify import documents, run_figures
from pipeline.contest.verify import paper as paper_check
from pipeline.contest.verify.run_figures import About

TEXT = b"# Blue: documents that test_submit.py makes for real\n\n" + b"Words. " * 200


def picture() -> bytes:
    """One black pixel."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b"\0\0"), b"IEND": b""}
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    ]
    return documents.SIGNATURE + b"".join(parts)


def paper(lines: Sequence[str], title: str, outputs_sha256: str) -> bytes:
    """A page of these lines in the form of `submit`'s own papers, with a font whose letters nobody drew."""
    codes = {letter: code for code, letter in enumerate(sorted(set("".join((title, "1", *lines)))))}

    def text(line: str) -> bytes:
        octal = "".join(f"\\{codes[letter]:03o}" for letter in line)
        return f"BT 1 0 0 1 0 0 Tm /F2+0 9 Tf 9 TL ({octal}) Tj T* ET\n".encode()

    table = "".join(f"<{code:02X}> <{ord(letter):04X}>\n" for letter, code in codes.items())
    return assembled(
        [
            b"<<\n/F2+0 2 0 R\n>>\n",
            b"<<\n/BaseFont /AAAAAA+DejaVuSans /Subtype /TrueType /ToUnicode 3 0 R /Type /Font\n>>\n",
            stream(table.encode()),
            b"<<\n/Contents 5 0 R /Parent 7 0 R /Resources <<\n/Font 1 0 R\n>> \n  /Type /Page\n>>\n",
            stream(b"".join(map(text, ("1", title, *lines)))),
            b"<<\n/Pages 7 0 R /Type /Catalog\n>>\n",
            b"<<\n/Count 1 /Kids [ 4 0 R ] /Type /Pages\n>>\n",
            f"<<\n/Keywords ({documents.keywords(outputs_sha256)})\n>>\n".encode(),
        ],
        root=6,
    )


def stream(content: bytes) -> bytes:
    stored = zlib.compress(content)
    head = f"<<\n/Filter [ /FlateDecode ] /Length {len(stored)}\n>>\nstream\n".encode()
    return head + stored + b"endstream\n"


def assembled(objects: Sequence[bytes], root: int) -> bytes:
    """The file of these objects, which are numbered from 1."""
    made, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(made))
        made += f"{number} 0 obj\n".encode() + body + b"endobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    trailer = f"trailer\n<<\n/Root {root} 0 R\n/Size {len(objects) + 1}\n>>\nstartxref\n{len(made)}\n%%EOF\n"
    return made + (head + trailer).encode()


def changed(content: bytes, number: int, body: bytes, times: int = 1) -> bytes:
    """A paper of `paper` with another object in the place of one, or objects behind the last."""
    objects = re.findall(rb"\d+ 0 obj\n(.*?)endobj\n", content, re.DOTALL)
    objects[number - 1 : number] = [body] * times
    return assembled(objects, root=6)


def told(manifest: Mapping[str, Any], source: Mapping[str, bytes], about: About) -> list[str]:
    """The lines of a paper that tells what it should."""
    known = run_figures.figures(manifest, source, about)
    named = {name: form.format(**known) for name, form in paper_check.HEADLINES.items()}
    return [
        f"{about.team.name}: how {named['prompts']} are answered in {named['time_s']}",
        f"Model {named['model']}, commit {named['commit']}",
        f"{named['right']}, {known['share']}",
        named["peak_memory"],
    ]


def paper_of(manifest: Mapping[str, Any], source: Mapping[str, bytes], about: About) -> bytes:
    return paper(told(manifest, source, about), about.title, manifest["sections"][0]["outputs_sha256"])


def about(submission: Mapping[str, Any]) -> About:
    team, image = submission["team"], submission["image"]["reference"]
    words = TeamWords(team["name"], tuple(team["members"]), {}, image)
    return About(words, submission["run"], submission["commit"], 0, submission["rehearsal"], None, image)


def drawn(manifest: Mapping[str, Any], source: Mapping[str, bytes], about: About) -> dict[str, bytes]:
    return {
        documents.TEXT: TEXT,
        documents.PICTURE: picture(),
        documents.PAPER: paper_of(manifest, source, about),
    }


def make(manifest: Mapping[str, Any], source: Mapping[str, bytes], about: About) -> dict[str, bytes]:
    return {
        **drawn(manifest, source, about),
        sbom.NAME: sbom.make(manifest, source, 0),
        third_party.NAME: source[third_party.NAME],
    }
