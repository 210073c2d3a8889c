"""Archives that no packer of ours writes: refused with nothing left over, or read as what they are."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.audited import Ground, verified
from support.drafts_of_submissions import Draft, retar

from pipeline.contest.submit import pack
from pipeline.contest.verify.verify import INVALID, VALID

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread")]

Members = list[tuple[tarfile.TarInfo, bytes]]


def added(name: str, content: bytes = b"1", **how: Any) -> Callable[[Members], None]:
    """One member more; `{}` is the top folder."""

    def change(members: Members) -> None:
        member = tarfile.TarInfo(name.format(members[0][0].name.split("/")[0]))
        member.size = 0 if how else len(content)
        for key, value in how.items():
            setattr(member, key, value)
        members.append((member, b"" if how else content))

    return change


def header(key: str, value: str) -> Callable[[Members], None]:
    return lambda members: members[0][0].pax_headers.update({key: value})


def many(*changes: Callable[[Members], None]) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        for each in changes:
            each(members)

    return change


FOLDER = {"type": tarfile.DIRTYPE}
MEMBERS: dict[str, Callable[[Members], None]] = {
    "a link to a file of the organiser": added("{}/run/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": added("{}/run/x", type=tarfile.LNKTYPE, linkname="source.tar"),
    "a pipe": added("{}/run/x", type=tarfile.FIFOTYPE),
    "a device": added("{}/run/x", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a path up": added("{}/../evil"),
    "a path from the root": added("/outside/evil"),
    "a file twice": lambda members: members.append(members[0]),
    "a file twice but for capitals": added("{}/SUBMISSION.json"),
    "one name composed and not": many(added("{}/run/\u00e9"), added("{}/run/e\u0301")),
    "a name of wide letters": added("{}/\uff53ubmission.json"),
    "a file that is a folder": many(added("{}/a"), added("{}/a/b")),
    "a folder that is a file": many(added("{}/a/b"), added("{}/a")),
    "an empty folder that is a file": many(added("{}/a", **FOLDER), added("{}/a")),
    "a name that ends in a blank": added("{}/run/x. "),
    "a stream of Windows": added("{}/run/x:stream"),
    "a name too long": added("{}/" + "x" * 256),
    "a name of too many bytes": added("{}/" + "\U0001f600" * 70),
    "a hundred folders in each other": added("{}/" + "a/" * 100 + "b"),
    "three thousand folders": many(*(added(f"{{}}/f{i}", **FOLDER) for i in range(3000))),
    "a size that is not true": header("size", "999999999999"),
    "a sparse file": many(header("GNU.sparse.major", "1"), header("GNU.sparse.minor", "0")),
    "a name that reads backwards": added("{}/run/\u202egnp.exe"),
    "a name with a terminal's escape": added("{}/run/\x1b[31m"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_do_not_belong_are_refused(name: str, ground: Ground, tmp_path: Path) -> None:
    tar = tmp_path / "sent.tar"
    tar.write_bytes(ground.light.read_bytes())
    refused(retar(tar, MEMBERS[name]), ground)


def refused(tar: Path, ground: Ground) -> None:
    verdict = verified(tar, ground)
    assert verdict.state == INVALID
    assert {path.name for path in (tar.parent / "verdict").iterdir()} == {"verdict.json", "verdict.html"}
    assert {path.name for path in tar.parent.iterdir()} == {tar.name, "verdict"}


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("evil.html", "<script>")
    return content + file.getvalue()


def sized(field: bytes) -> Callable[[bytes], bytes]:
    """The first header with another size, and the checksum for it."""

    def change(content: bytes) -> bytes:
        made = bytearray(content[:512])
        made[124:136] = field
        made[148:156] = b" " * 8
        made[148:156] = b"%06o\0 " % sum(made)
        return bytes(made) + content[512:]

    return change


def many_headers(content: bytes) -> bytes:
    """Twenty thousand pax headers, each for the one behind it, before the first member."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("x" * 101))
    return file.getvalue()[:1024] * 20_000 + content


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "a zip behind it": zipped,
    "two megabytes of zeros behind it": lambda content: content + bytes(2 << 20),
    "nothing but zeros": lambda content: bytes(1024),
    "a size in GNU's base 256": sized(b"\x80" + bytes(10) + b"\x01"),
    "a size below nothing": sized(b"-0000000001\0"),
    "headers without end": many_headers,
    "half a letter in its name": lambda content: content.replace(b"blue-", b"blu\xff-"),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_archive_of_ours_are_refused(name: str, ground: Ground, tmp_path: Path) -> None:
    tar = tmp_path / "sent.tar"
    tar.write_bytes(BYTES[name](ground.light.read_bytes()))
    refused(tar, ground)


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def rewritten(form: int, **how: Any) -> Callable[[bytes], bytes]:
    """The same members by another writer."""

    def change(content: bytes) -> bytes:
        file = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(content)) as old,
            tarfile.open(fileobj=file, mode="w", format=form, **how) as new,
        ):
            for member in old:
                new.addfile(member, old.extractfile(member))
            long = tarfile.TarInfo(f"{member.name.split('/')[0]}/run/" + "x" * 150)
            new.addfile(long)
        return file.getvalue()

    return change


WRITERS = {
    "long names as GNU has them": rewritten(tarfile.GNU_FORMAT),
    "one name for all by a global header": rewritten(tarfile.PAX_FORMAT, pax_headers={"path": "x"}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_archives_of_other_writers_are_refused(name: str, ground: Ground, tmp_path: Path) -> None:
    tar = tmp_path / "sent.tar"
    tar.write_bytes(WRITERS[name](ground.light.read_bytes()))
    refused(tar, ground)


@pytest.mark.parametrize("team", ["<img src=x onerror=alert(1)>", "a" * 200])
def test_a_folders_name_does_no_harm(team: str, ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.light)
    contents = draft.contents()
    draft.submission["files"] = {name: len(content) for name, content in sorted(contents.items())}
    contents["submission.json"] = json.dumps(draft.submission).encode()
    tar = pack.write(contents, team, 0, tmp_path)
    verdict = verified(tar, ground)
    assert verdict.state in {VALID, INVALID}
    assert "<img src=x" not in (tmp_path / "verdict" / "verdict.html").read_text()


def linked(source: bytes) -> bytes:
    member = tarfile.TarInfo("tasks.py")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return packed((member, b""))


SOURCES: dict[str, Callable[[bytes], bytes]] = {
    "a source within a source": lambda source: packed((tarfile.TarInfo("source.tar"), source)),
    "a source of a link": linked,
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_that_is_not_one_is_refused(name: str, ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.light)
    draft.files["source.tar"] = SOURCES[name](draft.files["source.tar"])
    verdict = verified(draft.pack(tmp_path), ground)
    assert verdict.state == INVALID
    assert any(reason.startswith("source: ") for reason in verdict.reasons)
