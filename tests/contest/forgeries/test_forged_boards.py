"""What somebody can do to a leaderboard, and to another team on it, by what he hands in."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.known import cases
from support.verdict_folders import folder_of, told

from pipeline.contest.ranking import leaderboard
from pipeline.contest.ranking import page as leaderboard_page

LATER = "2099-01-01T00:00:00+00:00"
VICTIM = told("victim-1", "Victim", 100.0, team={"name": "Victim", "members": ["Ada"]})


def by(name: str, member: str, **other: Any) -> dict[str, Any]:
    return told("other-1", name, other.pop("taken_s", 100.0), team={"name": name, "members": [member]}, **other)


nothing = dict.fromkeys(("team", "model", "dataset", "dataset_sha256", "prompts", "time_s", "s_per_prompt", "accuracy"))
UNREAD = {**VICTIM, **nothing, "verdict": "INVALID", "reasons": ["unpack: M706"], "submitted_utc": None, "rerun": None}

SABOTAGE: dict[str, dict[str, Any]] = {
    "the name taken by an invalid one": by("victim ", "Eve", verdict="INVALID", reasons=["floor"]),
    "the name taken by a rehearsal": by("VICTIM", "Eve", rehearsal=True, model="standin"),
    "name and member taken by an invalid one": by(
        "Victim", "Ada", verdict="INVALID", reasons=["floor"], received_utc=LATER
    ),
    "name and member taken by a slow one": by("Victim", "Ada", taken_s=9999.0, received_utc=LATER),
    "a damaged file of the same name": UNREAD,
}
"""What Eve hands in so that Victim loses the rank."""


@pytest.mark.parametrize(
    "name",
    cases(
        SABOTAGE.keys(),
        {
            "name and member taken by a slow one": "who sent a file only the organiser knows, and the latest counts",
        },
    ),
)
def test_nobody_takes_anothers_rank_away(name: str, tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, VICTIM, SABOTAGE[name]))
    ranked = [entry.verdict for table in board.tables for entry in table.entries]
    assert ("Victim", 100.0) in [(each.team and each.team.name, each.measured.median_s) for each in ranked]


def test_a_rehearsal_of_ones_own_takes_no_rank_away(tmp_path: Path) -> None:
    own = {**VICTIM, "submission": "victim-2", "rehearsal": True, "model": "standin", "received_utc": LATER}
    board = leaderboard.make(folder_of(tmp_path, VICTIM, own))
    assert [entry.verdict.submission for table in board.tables for entry in table.entries] == ["victim-1"]


def test_nor_does_one_on_the_contests_set(tmp_path: Path) -> None:
    own = {**VICTIM, "submission": "victim-2", "rehearsal": True, "received_utc": LATER}
    assert leaderboard.make(folder_of(tmp_path, VICTIM, own)).tables


PRINTS = {name: VICTIM[name] for name in ("outputs_sha256", "telemetry_sha256")}
NOTED: dict[str, tuple[dict[str, Any], ...]] = {
    "a name in look-alike letters": (VICTIM, by("V\u0456ctim", "Eve", taken_s=99.0)),
    "one run handed in by two teams": (VICTIM, by("Thief", "Eve", **PRINTS)),
    "two in one second": (
        {**VICTIM, "submission": "victim-a", "time_s": 50.0},
        {**VICTIM, "submission": "victim-b"},
    ),
}


@pytest.mark.parametrize("name", NOTED)
def test_an_organiser_is_told(name: str, tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, *NOTED[name]))
    assert board.notes or board.names or board.stolen


DATA = {"dataset_sha256": VICTIM["dataset_sha256"]}


def test_one_set_is_one_table_whatever_it_is_called(tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, VICTIM, by("Slow", "Eve", taken_s=900.0, dataset="obqa ", **DATA)))
    assert len(board.tables) == 1


def test_one_verdict_ends_no_leaderboard(tmp_path: Path) -> None:
    early = by("Eve", "Eve", submitted_utc="0001-01-01T00:00:00+14:00", received_utc="0001-01-01T00:00:00+14:00")
    board = leaderboard.make(folder_of(tmp_path, VICTIM, early))
    leaderboard_page.html(board)
    assert board.tables


def many_teams() -> list[dict[str, Any]]:
    return [{**by(f"T{i}", f"m{i}", taken_s=100.0 + i), "submission": f"t{i}"} for i in range(200)]


def many_of_one() -> list[dict[str, Any]]:
    moment = "2024-10-01T{:02}:{:02}:{:02}+00:00"
    times = [moment.format(i // 3600, i // 60 % 60, i % 60) for i in range(500)]
    return [{**by("T", "m"), "submission": f"t{i}", "received_utc": at} for i, at in enumerate(times)]


@pytest.mark.parametrize("make", [many_teams, many_of_one])
def test_hundreds_are_ranked_in_seconds(make: Callable[[], list[dict[str, Any]]], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *make())
    start = time.process_time()
    board = leaderboard.make(folder)
    leaderboard_page.write(board, tmp_path / "out")
    leaderboard_page.text(board)
    assert time.process_time() - start < 10
