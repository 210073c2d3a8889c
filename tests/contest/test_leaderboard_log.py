"""The leaderboard's log: every altered, removed, added or moved line is found; a head kept elsewhere finds the rest."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from support.verdict_folders import folder_of, told

from pipeline.contest.ranking import log
from pipeline.contest.ranking.log import Head
from pipeline.errors import IntegrityError, UsageError


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder whose log has four lines: three verdicts, one of which was given anew."""
    folder = folder_of(tmp_path, told("a", "A", 1), told("b", "B", 2), told("c", "C", 3))
    log.record(folder, folder)
    verdict = next(folder.glob("*-b.verdict/verdict.json"))
    verdict.write_text(json.dumps(told("b", "B", 9)), encoding="utf-8")
    log.record(folder, folder)
    return folder


def lines(folder: Path) -> list[bytes]:
    return (folder / log.NAME).read_bytes().splitlines(keepends=True)


def refused(folder: Path, content: bytes, head: Head | None = None) -> str:
    (folder / log.NAME).write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        log.check(folder, head)
    return caught.value.code


def test_it_grows_by_what_is_new_and_by_what_is_gone(kept: Path) -> None:
    entries = log.read(kept)
    assert [each["submission"] for each in entries] == ["a", "b", "c", "b"]
    before = lines(kept)
    head = log.record(kept, kept)
    assert lines(kept) == before
    assert head == log.check(kept) == Head(4, entries[-1]["hash"])
    next(kept.glob("*-a.verdict/verdict.json")).unlink()
    assert log.record(kept, kept).entries == 5
    assert lines(kept)[:4] == before
    assert log.read(kept)[-1]["verdict_sha256"] is None
    assert log.check(kept, head).entries == 5


@pytest.mark.slow
def test_every_altered_byte_is_found(kept: Path) -> None:
    content = (kept / log.NAME).read_bytes()
    for at, byte in enumerate(content):
        for other in {byte ^ 1, byte ^ 0x20, ord("0"), ord(" "), ord("\n")} - {byte}:
            assert refused(kept, content[:at] + bytes([other]) + content[at + 1 :]) == "M754", (at, other)


@pytest.mark.slow
def test_every_byte_left_out_or_put_in_is_found(kept: Path) -> None:
    content = (kept / log.NAME).read_bytes()
    for at in range(len(content)):
        assert refused(kept, content[:at] + content[at + 1 :]) == "M754", at
        assert refused(kept, content[:at] + b" " + content[at:]) == "M754", at


def test_every_order_and_every_subset_of_lines_is_found(kept: Path) -> None:
    """But for those that the log once was: its beginnings, which only a head tells from the whole."""
    every = lines(kept)
    head = log.check(kept)
    chosen = [each for size in range(1, 5) for each in itertools.permutations(range(4), size)]
    for order in (*chosen, (0, 0), (0, 1, 1), (0, 1, 2, 3, 3), (0, 1, 2, 3, 0)):
        content = b"".join(every[number] for number in order)
        if order != tuple(range(len(order))):
            assert refused(kept, content) == "M754", order
        elif len(order) < 4:
            (kept / log.NAME).write_bytes(content)
            assert log.check(kept).entries == len(order)
            assert refused(kept, content, head) == "M755"
    assert refused(kept, b"", head) == "M755"


def test_a_log_that_was_made_anew_is_told_by_its_head(kept: Path, tmp_path: Path) -> None:
    head = log.check(kept)
    again = tmp_path / "again"
    folder_of(again, told("a", "A", 1), told("b", "B", 2), told("c", "C", 3), told("d", "D", 4))
    log.record(again, again)
    assert log.check(again).entries == head.entries
    assert refused(kept, (again / log.NAME).read_bytes(), head) == "M755"


def test_nothing_is_added_to_a_log_that_was_altered(kept: Path) -> None:
    altered = b"".join(lines(kept)[1:])
    (kept / log.NAME).write_bytes(altered)
    with pytest.raises(IntegrityError):
        log.record(kept, kept)
    assert (kept / log.NAME).read_bytes() == altered


def test_a_head_is_read_as_it_was_printed(kept: Path) -> None:
    head = log.check(kept)
    assert log.head_of(str(head)) == head
    for wrong in (
        "",
        "4",
        f"4:{head.sha256[:-1]}",
        f"-4:{head.sha256}",
        f"4:{head.sha256.upper()}",
        f"²:{head.sha256}",
    ):
        with pytest.raises(UsageError, match="head"):
            log.head_of(wrong)


def test_as_it_is_called(kept: Path, invoke) -> None:  # type: ignore[no-untyped-def]
    done = invoke("leaderboard", kept)
    head = str(log.check(kept))
    assert head in done.stdout
    assert head in invoke("leaderboard", kept, "--check", "--head", head).stdout
    (kept / log.NAME).write_bytes(b"".join(lines(kept)[:-1]))
    refused_one = invoke("leaderboard", kept, "--check", "--head", head)
    assert (refused_one.returncode, "1 entries are missing" in refused_one.stderr) == (4, True)
