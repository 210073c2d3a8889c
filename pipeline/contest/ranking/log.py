"""The leaderboard's log: which verdict was ranked when, a line each, only ever added to, each line bound to the last.

A line is JSON in one way of writing: an entry, the hash of the line before (`previous`), and the hash of all of that
(`hash`). So a byte that is altered anywhere, a line that is taken out, put in or moved breaks the chain, and the check
says where. Two things a chain alone cannot show, since whoever can write the file can also write a whole new one: lines
missing at the end, and a log made anew. Both show against a *head*, the number of entries and the last hash, that was
kept where they cannot write: printed with each leaderboard, published, or signed (`invoke leaderboard --sign KEY`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.contest.archive import strict_json
from pipeline.contest.ranking import verdict_files
from pipeline.contest.signing import envelope
from pipeline.contest.signing.envelope import Statement
from pipeline.errors import IntegrityError, UsageError
from pipeline.files import resource_trouble, sha256_of

NAME, SIGNED_HEAD = "leaderboard.log.jsonl", "leaderboard.head.dsse.json"
OF = "urn:phi3-offline-pipeline:leaderboard-head:1"
FIRST = "0" * 64
"""What the first line stands behind."""


@dataclass(frozen=True)
class Head:
    entries: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.entries}:{self.sha256}"


def head_of(text: str) -> Head:
    """A head as it was printed. Raises UsageError (U754)."""
    entries, _, sha256 = text.strip().partition(":")
    if entries.isascii() and entries.isdigit() and len(sha256) == len(FIRST) and set(sha256) <= set("0123456789abcdef"):
        return Head(int(entries), sha256)
    raise UsageError(
        "U754",
        "this is not the head of a log",
        where="--head",
        expected="the number of entries, a colon, 64 hexadecimal digits",
        actual=text[:100],
        fix="copy it whole from what invoke leaderboard printed",
    )


def read(folder: Path) -> list[dict[str, Any]]:
    """All entries. Raises IntegrityError (M754) for the first line that is not as it was written; OSError."""
    path = folder / NAME
    content = path.read_bytes() if path.exists() else b""
    entries: list[dict[str, Any]] = []
    previous = FIRST
    for number, line in enumerate(content.splitlines(keepends=True)):
        why = _wrong(number, line, previous)
        if why is not None:
            raise IntegrityError(
                "M754",
                "the leaderboard's log was altered",
                where=f"{paths.shown(path)}, line {number + 1}",
                actual=why,
                fix="restore the log from a copy, and find out who can write here; the lines above this one are intact",
            )
        entries.append(json.loads(line))
        previous = entries[-1]["hash"]
    return entries


def check(folder: Path, head: Head | None = None) -> Head:
    """The head of a log that is whole, and that goes on from `head`. Raises IntegrityError (M754, M755), OSError."""
    entries = read(folder)
    if head is None or head == Head(0, FIRST):
        return _head(entries)
    there = entries[head.entries - 1]["hash"] if 0 < head.entries <= len(entries) else None
    if there != head.sha256:
        missing = head.entries - len(entries)
        raise IntegrityError(
            "M755",
            "the leaderboard's log does not continue from this head",
            where=paths.shown(folder / NAME),
            expected=str(head),
            actual=f"{missing} entries are missing at its end" if missing > 0 else f"entry {head.entries} is {there}",
            fix="restore the log from a copy: entries were removed from its end, or it was rewritten",
        )
    return _head(entries)


def record(folder: Path, verdicts: Path) -> Head:
    """Add what is new among the verdicts: a line for each that the log does not have as it is now, and for each that
    is no longer there. Raises IntegrityError (M754), ResourceError (R101, R102)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / NAME, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # what another call adds meanwhile is read, or waits
            entries = read(folder)
            file.write(b"".join(map(_line, _added(entries, verdicts))))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise resource_trouble(error, folder / NAME) or error from error
    return _head(entries)


def _added(entries: list[dict[str, Any]], verdicts: Path) -> list[dict[str, Any]]:
    """The new entries, chained to `entries` and added to them."""
    known = {entry["folder"]: entry.get("verdict_sha256") for entry in entries}
    there = [_entry(path) for path in sorted(verdicts.glob(f"*/{verdict_files.NAME}"))]
    gone = sorted(known.keys() - {each["folder"] for each in there})
    before = len(entries)
    for each in [*there, *({"folder": name, "verdict_sha256": None} for name in gone)]:
        if each["folder"] not in known or known[each["folder"]] != each["verdict_sha256"]:
            at_utc = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            placed = {"number": len(entries), "at_utc": at_utc, "previous": _head(entries).sha256}
            entries.append(_bound({**placed, **each}))
    return entries[before:]


def sign_head(folder: Path, key: Path) -> Path:
    """Sign the head of the log as it is. Raises IntegrityError (M754) and as `envelope.sign`."""
    head = check(folder)
    said = {"entries": head.entries, "head": head.sha256}
    envelope.sign(Statement(NAME, sha256_of(folder / NAME), OF, said), key, folder / SIGNED_HEAD)
    return folder / SIGNED_HEAD


def signed_head(path: Path, public: Path) -> Head:
    """The head that the key's owner signed. Raises as `envelope.read`."""
    said = envelope.read(path, public, OF).predicate
    return Head(said["entries"], said["head"])


def expected(folder: Path, head: str, key: str) -> Head | None:
    """The head that `--head` and `--key` name: as text, or in a signed file, by default the one beside the log.

    Raises UsageError (U754) and as `envelope.read`."""
    if key:
        return signed_head(paths.given(head) if head else folder / SIGNED_HEAD, paths.given(key))
    return head_of(head) if head else None


def _head(entries: Sequence[Mapping[str, Any]]) -> Head:
    return Head(len(entries), entries[-1]["hash"] if entries else FIRST)


def _entry(path: Path) -> dict[str, Any]:
    """A verdict's line in the log: enough to see what changed, and a hash for the rest."""
    name = path.parent.name.encode("utf-8", "backslashreplace").decode()  # it need not be UTF-8
    kept: dict[str, Any] = {"folder": name, "verdict_sha256": sha256_of(path)}
    try:
        verdict = strict_json.loads(path.read_bytes())
    except ValueError:
        verdict = None
    keys = ("submission", "verdict", "rehearsal", "received_utc", "rules_version")
    return kept | {key: verdict.get(key) for key in keys} if isinstance(verdict, dict) else kept


def _wrong(number: int, line: bytes, previous: str) -> str | None:
    """Why a line is not the one that was written there; None where it is."""
    try:
        entry = strict_json.loads(line)
    except ValueError as error:
        return str(error)
    if not isinstance(entry, dict) or not isinstance(entry.get("folder"), str):
        return "it is no entry"
    if entry.get("number") != number:
        return f"it says that it is number {entry.get('number')!r}, and is number {number}"
    if entry.get("previous") != previous:
        return "it stands behind another line than when it was written"
    body = {key: value for key, value in entry.items() if key != "hash"}
    if _line(_bound(body)) != line:
        return "its hash is not that of its content"
    return None


def _bound(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "hash": hashlib.sha256(_line(entry)).hexdigest()}


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"
