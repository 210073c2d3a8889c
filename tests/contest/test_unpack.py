"""Archives that no packer of ours writes, one trick each: refused by the right check before anything lies anywhere."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.audited import Ground, verified
from support.drafts_of_submissions import Draft, retar

from pipeline import paths
from pipeline.contest.archive import unpack
from pipeline.contest.submit import pack
from pipeline.contest.verify.verify import INVALID
from pipeline.errors import UsageError

pytestmark = pytest.mark.checkout

Members = list[tuple[tarfile.TarInfo, bytes]]


def added(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: Any) -> Callable[[Members], None]:
    """One more member, in the top folder where its name does not say otherwise."""

    def change(members: Members) -> None:
        entry = tarfile.TarInfo(name if name[0] in "/." else f"{members[0][0].name.split('/')[0]}/{name}")
        entry.type, entry.size = kind, len(content)
        for key, value in more.items():
            setattr(entry, key, value)
        members.append((entry, content))

    return change


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Members], None]:
    """Another content of a member; the list is left as it was."""

    def edit(members: Members) -> None:
        at = next(at for at, (member, _) in enumerate(members) if member.name.endswith(name))
        content = change(members[at][1])
        members[at][0].size = len(content)
        members[at] = (members[at][0], content)

    return edit


def left_out(name: str) -> Callable[[Members], None]:
    return lambda members: members.remove(next(each for each in members if each[0].name.endswith(name)))


def renamed(members: Members) -> None:
    for member, _ in members:
        member.name = f"green-{member.name.partition('-')[2]}".replace("green-", "green-0", 1)


def listed_too(members: Members) -> None:
    """In the list and not there; the folder named by the list, as it should be."""
    changed("MANIFEST.sha256", lambda content: content + f"{'0' * 64}  zzz\n".encode())(members)
    digest = hashlib.sha256(next(c for m, c in members if m.name.endswith("MANIFEST.sha256"))).hexdigest()[:12]
    for member, _ in members:
        member.name = f"blue-{digest}/{member.name.split('/', 1)[1]}"


ARCHIVES: dict[str, tuple[Callable[[Members], object], str]] = {
    "a path that climbs out": (added("../evil", b"x"), "M702"),
    "a path that climbs out further down": (added("run/../../evil", b"x"), "M702"),
    "an absolute path": (added("/tmp/evil", b"x"), "M702"),
    "a control character in a name": (added("run/a\nb", b"x"), "M702"),
    "a name that reads backwards": (added("run/a\u202eb", b"x"), "M702"),
    "a name longer than any": (added(f"run/{'a' * 300}", b"x"), "M702"),
    "a symbolic link": (added("run/link", kind=tarfile.SYMTYPE, linkname="/etc/passwd"), "M701"),
    "a hard link": (added("run/link", kind=tarfile.LNKTYPE, linkname="run/manifest.json"), "M701"),
    "a device": (added("run/device", kind=tarfile.CHRTYPE), "M701"),
    "a disk": (added("run/disk", kind=tarfile.BLKTYPE), "M701"),
    "a pipe": (added("run/pipe", kind=tarfile.FIFOTYPE), "M701"),
    "a sparse file of GNU": (added("run/sparse", kind=tarfile.GNUTYPE_SPARSE), "M701"),
    "a sparse file of pax": (added("run/s", b"x", pax_headers={"GNU.sparse.realsize": str(10**15)}), "F403"),
    "a link by pax": (added("run/s", b"x", pax_headers={"linkpath": "/etc/passwd"}), "F403"),
    "a pax header without an end": (added("run/s", b"x", pax_headers={"comment": "x" * 70_000}), "F403"),
    "one name twice": (added("run/run.log", b"x"), "M703"),
    "one name in two cases": (added("run/RUN.log", b"x"), "M703"),
    "one name in two normal forms": (
        lambda members: (added("e\u0301", b"")(members), added("\u00e9", b"")(members)),
        "M703",
    ),
    "a file that is a folder too": (added("run/run.log/more", b"x"), "M703"),
    "thousands of files": (lambda members: [added(f"run/{n}")(members) for n in range(2000)], "M704"),
    "two folders": (added("../x".replace("../x", "./x"), b""), "M702"),
    "a file beside the folder": (lambda members: members.append((tarfile.TarInfo("beside"), b"")), "F404"),
    "a second folder": (lambda members: members.append((tarfile.TarInfo("green-1/a"), b"")), "F404"),
    "no list": (left_out("MANIFEST.sha256"), "F405"),
    "a list of another form": (changed("MANIFEST.sha256", lambda content: content.replace(b"  ", b" *")), "F405"),
    "a list in another order": (
        changed("MANIFEST.sha256", lambda content: b"".join(content.splitlines(keepends=True)[::-1])),
        "F405",
    ),
    "an edited list": (changed("MANIFEST.sha256", lambda content: b"0" * 64 + content[64:]), "M707"),
    "another team's name and hash": (renamed, "M707"),
    "a file more than listed": (added("run/more", b"x"), "M705"),
    "a file less than listed": (left_out("run.log"), "M705"),
    "a file listed that never was": (listed_too, "M705"),
    "an edited file": (changed("outputs.jsonl", lambda content: content.replace(b"index", b"Index", 1)), "M706"),
}
"""What is done to the good archive, and the code of the refusal."""


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_is_not_one_of_ours_is_refused(case: str, ground: Ground, tmp_path: Path) -> None:
    change, code = ARCHIVES[case]
    tar = tmp_path / "sent.tar"
    tar.write_bytes(ground.light.read_bytes())
    refused(retar(tar, change), ground, code)


def refused(tar: Path, ground: Ground, code: str) -> None:
    verdict = verified(tar, ground)
    assert (verdict.state, [each.id for each in verdict.checks]) == (INVALID, ["unpack"])
    assert verdict.checks[0].found.startswith(f"{code} ")
    assert {path.name for path in tar.parent.iterdir()} == {tar.name, "verdict"}
    assert {path.name for path in (tar.parent / "verdict").iterdir()} == {"verdict.json", "verdict.html"}


def pretend_size(content: bytes, size: int) -> bytes:
    """The first member's header with another size, and the checksum for it."""
    header = bytearray(content[:512])
    header[124:136] = f"{size:011o}\0".encode()
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + content[512:]


def hidden(content: bytes) -> bytes:
    """Something in the room that a first member leaves of its last block."""
    size = int(content[124:135], 8)
    at = 512 + size
    return content[:at] + b"x" + content[at + 1 :]


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "compressed": (gzip.compress, "F401"),
    "empty": (lambda content: b"", "F402"),
    "text": (lambda content: b"hello" * 1000, "F401"),
    "cut in a header": (lambda content: content[:700], "F402"),
    "cut in a file": (lambda content: content[: len(content) // 2 // 512 * 512 + 100], "F402"),
    "cut before its end": (lambda content: content.rstrip(b"\0") + b"\0" * 100, "F402"),
    "a secret between two files": (hidden, "F402"),
    "followed by another": (lambda content: content + content, "F402"),
    "a size beyond the file": (lambda content: pretend_size(content, 8**11 - 1), "F402"),
    "a checksum that is wrong": (lambda content: b"X" + content[1:], "F401"),
    "in GNU's form": (lambda content: content.replace(b"ustar\x0000", b"ustar  \x00"), "F401"),
}


@pytest.mark.parametrize("case", BYTES)
def test_bytes_that_are_no_tar_are_refused(case: str, ground: Ground, tmp_path: Path) -> None:
    change, code = BYTES[case]
    tar = tmp_path / "sent.tar"
    tar.write_bytes(change(ground.light.read_bytes()))
    refused(tar, ground, code)


def test_a_file_that_is_too_large_is_refused_before_it_is_written(ground: Ground, tmp_path: Path) -> None:
    tar = tmp_path / "sent.tar"
    size = (1 << 30) + 1
    with tar.open("wb") as file:  # with a hole: it takes no room here, and would where it was unpacked
        file.write(pretend_size(ground.light.read_bytes()[:512], size))
        file.truncate(512 + size + 5000)
    refused(tar, ground, "M704")


@pytest.mark.parametrize("name", ["submission.json", "run/manifest.json", "run/outputs.jsonl", "source.tar"])
def test_a_file_of_every_submission_is_missed(name: str, ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.light)
    contents = {**draft.contents(), "submission.json": json.dumps(draft.submission).encode()}
    del contents[name]
    refused(pack.write(contents, "blue", 0, tmp_path), ground, "F406")


def test_every_code_of_a_refusal_is_met() -> None:
    """But for U601: no file is no submission."""
    source = "".join(
        (paths.ROOT / "pipeline/contest/archive" / name).read_text() for name in ("unpack.py", "tarball.py")
    )
    codes = set(re.findall(r'"([FM]\d{3})"', source))
    assert codes == {code for _, code in [*ARCHIVES.values(), *BYTES.values()]} | {"F406"}


def test_a_file_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    for name in ("nowhere.tar", "."):
        with pytest.raises(UsageError) as caught:
            unpack.unpack(tmp_path / name, tmp_path)
        assert caught.value.code == "U601"


def test_what_is_unpacked_is_what_was_packed(ground: Ground, tmp_path: Path) -> None:
    done = unpack.unpack(ground.tar, tmp_path)
    with tarfile.open(ground.tar) as archive:
        packed = {member.name.split("/", 1)[1]: archive.extractfile(member).read() for member in archive}
    found = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == packed
    assert done.name == ground.tar.stem
    assert done.hashes.keys() == packed.keys() - {"MANIFEST.sha256"}


def test_long_names_and_those_of_other_scripts_are_read(tmp_path: Path) -> None:
    long = f"run/{'d' * 90}/{'f' * 90}"
    contents = {
        "submission.json": b"{}",
        "run/manifest.json": b"",
        "run/outputs.jsonl": b"",
        "source.tar": b"",
        long: b"x",
    }
    tar = pack.write(contents, "하지만-빨랐죠", 0, tmp_path)
    assert set(unpack.unpack(tar, tmp_path / "into").hashes) == set(contents)
