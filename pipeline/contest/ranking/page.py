"""A leaderboard for people and programs: `index.html`, `leaderboard.json`, and a table for the terminal.

The same verdicts give the same bytes: nothing of it depends on when or where it was made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import table
from pipeline.contest.ranking.leaderboard import Board, Entry, Table, Unranked
from pipeline.contest.ranking.verdict_files import Verdict
from pipeline.files import write_json
from pipeline.html import page
from pipeline.table import Column

SCHEMA = 1
PAGE, JSON = "index.html", "leaderboard.json"

COLUMNS = (
    Column("rank", right=True),
    Column("team", wrap=40),
    Column("s a prompt", right=True),
    Column("total s", right=True),
    Column("accuracy", right=True),
    Column("95 % interval", right=True),
    Column("device", wrap=28),
    Column("submitted"),
    Column("tries", right=True),
)
COLOURS = {"INVALID": "red", "CANNOT TELL": "yellow"}


def write(board: Board, folder: Path) -> None:
    """Raises ResourceError (R101, R102)."""
    page.write(folder / PAGE, html(board))
    write_json(folder / JSON, as_json(board))


def html(board: Board) -> str:
    return page.render("leaderboard.html", board=board, heading=heading, day=day, slowest=_slowest)


def as_json(board: Board) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "tables": [
            {
                "dataset": each.dataset,
                "dataset_sha256": each.dataset_sha256,
                "prompts": each.prompts,
                "model": each.model,
                "entries": [_entry_json(entry) for entry in each.entries],
            }
            for each in board.tables
        ],
        "unranked": [
            {**_verdict_json(each.verdict), "reasons": list(each.why), "earlier": each.earlier}
            for each in board.unranked
        ],
        "unread": [{"folder": each.folder, "why": each.why} for each in board.unread],
        "notes": list(board.notes),
    }


def text(board: Board) -> str:
    """For the terminal."""
    parts = []
    for each in board.tables:
        parts += ["", heading(each), "", table.text(COLUMNS, [_row(entry) for entry in each.entries])]
        if len(each.devices) > 1:
            parts.append("  These times were taken on different devices.")
    if not board.tables:
        parts += ["", "No submission has a rank."]
    if board.unranked:
        columns = (Column("team", wrap=30), Column("verdict", colour=COLOURS.get), Column("why", wrap=90))
        parts += ["", "without a rank", "", table.text(columns, [_unranked(each) for each in board.unranked])]
    if board.unread:
        rows = [(each.folder, each.why) for each in board.unread]
        parts += ["", "not read", "", table.text((Column("folder", wrap=50), Column("why", wrap=90)), rows)]
    parts += [f"\n  note: {note}" for note in board.notes]
    return "\n".join(parts)


def heading(each: Table) -> str:
    content = f", sha256 {each.dataset_sha256[:12]}…" if each.dataset_sha256 else ""
    return f"{each.dataset} · {each.model} · {each.prompts:,} prompts{content}"


def day(verdict: Verdict) -> str:
    return verdict.submitted.strftime("%Y-%m-%d %H:%M") if verdict.submitted_utc else "unknown"


def _row(entry: Entry) -> tuple[str, ...]:
    ranked = entry.ranked
    low, high = ranked.accuracy.interval_95
    return (
        str(entry.rank),
        ranked.team,
        f"{ranked.s_per_prompt:.4f}",
        f"{ranked.time_s:.2f}",
        f"{ranked.accuracy.share:.1%}",
        f"{low:.1%} to {high:.1%}",
        entry.verdict.device or "unknown",
        day(entry.verdict),
        str(len(entry.history)),
    )


def _unranked(each: Unranked) -> tuple[str, str, str]:
    return (
        each.verdict.team.name if each.verdict.team else each.verdict.submission,
        each.verdict.verdict,
        "; ".join(each.why),
    )


def _slowest(each: Table) -> float:
    return max(entry.ranked.time_s for entry in each.entries)


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "rank": entry.rank,
        **_verdict_json(entry.verdict),
        "history": [_verdict_json(each) for each in entry.history],
    }


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "submission": verdict.submission,
        "team": verdict.team.name if verdict.team else None,
        "verdict": verdict.verdict,
        "time_s": verdict.time_s,
        "s_per_prompt": verdict.s_per_prompt,
        "accuracy": verdict.accuracy.model_dump(mode="json") if verdict.accuracy else None,
        "device": verdict.device,
        "submitted_utc": verdict.submitted.isoformat() if verdict.submitted_utc else None,
    }
