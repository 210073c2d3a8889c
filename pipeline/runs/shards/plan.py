"""What each shard answers, decided once: `shards.json`, and never changed. Whoever goes on finds it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files, paths
from pipeline.dataset import records
from pipeline.errors import UsageError, in_words
from pipeline.model import config
from pipeline.queues import attempts
from pipeline.queues.job import NODE
from pipeline.queues.states import MOST_STARTED
from pipeline.runs.request import Request, arguments_of, by_transformers, lines_of
from pipeline.runs.shards import cut as cutting
from pipeline.text.chat_template import Chats, prompts_of
from pipeline.text.quick_prompts import Doubt, QuickPrompts

SCHEMA = 1
NAME, FOLDER = "shards.json", "shards"
CHARACTERS_A_TOKEN = 4
"""Of an expected answer, about."""
UNKNOWN_ANSWER = 32
"""Tokens expected of an answer where the file has none: for all rows the same."""

ALLOWED = {NODE: MOST_STARTED}
"""How often a kind of outcome may be seen before it is the shard's; once unless it is named here."""


@dataclass(frozen=True)
class Part:
    """One file, cut."""

    name: str
    request: Request
    data: str
    """Its path, the same on every board."""
    sha256: str
    rows: int
    pieces: tuple[tuple[int, ...], ...]
    """Indices of the rows of each shard."""
    repeated: float
    longest: float


@dataclass(frozen=True)
class Plan:
    """All files that are answered with one load of an engine."""

    engine: str
    model: str
    """Its folder, the same on every board."""
    lock_sha256: str
    count: int
    parts: tuple[Part, ...]


def check(count: int, rows: int) -> None:
    """Check the number of shards. Raises UsageError (U345) for a number of shards that cannot be."""
    if not 1 <= count <= rows:
        raise UsageError(
            "U345", "this number of shards is not possible", where="--shards",
            expected=f"1 to {rows}, the rows that there are", actual=count,
            fix="give as many as there are GPUs or boards",
        )  # fmt: skip


def part(name: str, request: Request, data: Path, model: Path, count: int) -> Part:
    """Cut one file; one of fewer rows than shards gives the last ones nothing."""
    content = records.read_bytes(data)
    rows = records.parse(data, content)[: request.limit]
    answers = [_expected(row.answer, request) for row in rows]
    made = cutting.cut(_prompts(model, data, rows), answers, count)
    sha256 = hashlib.sha256(content).hexdigest()
    return Part(
        name, request, str(data.resolve()), sha256, len(rows), made.pieces, made.repeated, made.longest
    )  # fmt: skip


def _expected(answer: str | None, request: Request) -> int:
    most: int = arguments_of(request)["max_new_tokens"]
    return min(most, UNKNOWN_ANSWER if answer is None else 1 + len(answer) // CHARACTERS_A_TOKEN)


def _prompts(model: Path, data: Path, rows: Sequence[records.Record]) -> list[list[int]]:
    chats: Chats = [row.messages for row in rows]
    vocabulary, place = config.read_shape(model).vocab, lines_of(data, rows)
    try:
        return prompts_of(QuickPrompts(model), chats, vocabulary, place)
    except Doubt:
        return prompts_of(by_transformers(model), chats, vocabulary, place)


def write(plan: Plan, place: Path) -> Plan:
    """Write the plan where there is none; the one that is there, if another was first."""
    place.mkdir(parents=True, exist_ok=True)
    attempts.once(place / NAME, files.json_bytes({"schema": SCHEMA, **dataclasses.asdict(plan)}))
    made = read(place)
    assert made is not None
    return made


def read(place: Path) -> Plan | None:
    """The plan of a folder; None where there is none. Raises UsageError (U346) for one that cannot be read."""
    try:
        told: dict[str, Any] = json.loads((place / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(place, error) from error
    try:
        if told.pop("schema") != SCHEMA:
            raise ValueError("another schema")  # noqa: TRY301
        parts = tuple(_part(each) for each in told.pop("parts"))
        return Plan(parts=parts, **told)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(place, error) from error


def _part(told: dict[str, Any]) -> Part:
    pieces = tuple(tuple(map(int, piece)) for piece in told.pop("pieces"))
    return Part(request=Request(**told.pop("request")), pieces=pieces, **told)


def _unreadable(place: Path, error: Exception) -> UsageError:
    return UsageError(
        "U346", "the plan of these shards cannot be read: it is of another version, or damaged",
        where=paths.shown(place / NAME), expected=f"schema {SCHEMA}", actual=in_words(error),
        fix="go on with the version that made it, or start a new run",
    )  # fmt: skip
