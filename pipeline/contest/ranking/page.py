"""A leaderboard for people and programs: `index.html`, `leaderboard.json`, and a table for the terminal.

The same verdicts give the same bytes: nothing of it depends on when or where it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import table
from pipeline.check import plain
from pipeline.contest.ranking.leaderboard import Board, Entry, Table, Unranked
from pipeline.contest.ranking.verdict_files import Verdict, team_name
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
    Column("spread", right=True),
    Column("accuracy", right=True),
    Column("95 % interval", right=True),
    Column("device", wrap=28),
    Column("audit"),
    Column("received"),
    Column("tries", right=True),
)
MEASURED, CLAIMED = "measured by the organiser", "claimed by the team: no rank"
REHEARSED = (Column("team", wrap=40), Column("verdict"), Column("time"), Column("accuracy", right=True),
             Column("data", wrap=30), Column("received"))  # fmt: skip
SIDE_BY_SIDE = (Column("team", wrap=40), Column("submission", wrap=60), Column("received"))
COLOURS = {"INVALID": "red", "CANNOT TELL": "yellow"}


def write(board: Board, folder: Path) -> None:
    """Write the board as a page and as JSON into `folder`. Raises ResourceError (R101, R102)."""
    page.write(folder / PAGE, html(board))
    write_json(folder / JSON, as_json(board))


def html(board: Board) -> str:
    return page.render(
        "leaderboard.html", board=board, heading=heading, day=day, slowest=_slowest, time_of=_time, spread=spread
    )


def as_json(board: Board) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "tables": [
            {
                "dataset": each.dataset,
                "dataset_sha256": each.dataset_sha256,
                "prompts": each.prompts,
                "model": each.model,
                "model_sha256": each.model_sha256,
                "entries": [_entry_json(entry) for entry in each.entries],
                "claimed": [_entry_json(entry) for entry in each.claimed],
            }
            for each in board.tables
        ],
        "rehearsals": [_verdict_json(each) for each in board.rehearsals],
        "unranked": [
            {**_verdict_json(each.verdict), "reasons": list(each.why), "earlier": each.earlier}
            for each in board.unranked
        ],
        "unread": [{"folder": each.folder, "why": each.why} for each in board.unread],
        "stolen": [[_verdict_json(each) for each in group] for group in board.stolen],
        "names": [list(group) for group in board.names],
        "notes": list(board.notes),
    }


def text(board: Board) -> str:
    """For the terminal."""
    parts = []
    for each in board.tables:
        parts += ["", plain(heading(each))]
        for whose, entries in ((MEASURED, each.entries), (CLAIMED, each.claimed)):
            if entries:
                parts += ["", f"  {whose}", "", table.text(COLUMNS, [_row(entry) for entry in entries])]
        if len(each.devices) > 1:
            parts.append("  These times were taken on different devices.")
    if not any(each.entries for each in board.tables):
        parts += ["", "No submission has a rank."]
    if board.rehearsals:
        parts += ["", "rehearsals", "", table.text(REHEARSED, [_rehearsed(each) for each in board.rehearsals])]
    if board.unranked:
        columns = (Column("team", wrap=30), Column("verdict", colour=COLOURS.get), Column("why", wrap=90))
        parts += ["", "without a rank", "", table.text(columns, [_unranked(each) for each in board.unranked])]
    if board.unread:
        rows = [(each.folder, each.why) for each in board.unread]
        parts += ["", "not read", "", table.text((Column("folder", wrap=50), Column("why", wrap=90)), rows)]
    for group in board.stolen:
        parts += ["", "the same answers and the same recording under several names", ""]
        parts.append(table.text(SIDE_BY_SIDE, [(team_name(each), each.submission, day(each)) for each in group]))
    notes = [*(f"these names look alike: {', '.join(group)}" for group in board.names), *board.notes]
    parts += [f"\n  note: {plain(note)}" for note in notes]
    return "\n".join(parts)


def heading(each: Table) -> str:
    hashes = f"data {each.dataset_sha256[:12]}…, weights {each.model_sha256[:12]}…"
    return f"{each.dataset} · {each.model} · {each.prompts:,} prompts ({hashes})"


def day(verdict: Verdict) -> str:
    """When the organiser received it, in UTC; strftime pads no year on some systems."""
    return verdict.received.isoformat(" ", "minutes")[:16] if verdict.received_utc else "unknown"


def spread(verdict: Verdict) -> str:
    """The spread of the organiser's runs, as a share of their median."""
    measured = verdict.measured
    return f"{measured.spread:.1%}" if measured is not None and measured.spread is not None else "–"


def _row(entry: Entry) -> tuple[str, ...]:
    ranked = entry.ranked
    accuracy = ranked.accuracy
    return (
        "–" if entry.rank is None else str(entry.rank),
        ranked.team,
        f"{ranked.s_per_prompt:.4f}",
        f"{ranked.time_s:.2f}",
        spread(entry.verdict),
        f"{accuracy.share:.1%}" if accuracy else "unknown",
        f"{accuracy.interval_95[0]:.1%} to {accuracy.interval_95[1]:.1%}" if accuracy else "",
        entry.verdict.taken_on,
        "made" if entry.verdict.audit else "not made",
        day(entry.verdict),
        str(len(entry.history)),
    )


def _unranked(each: Unranked) -> tuple[str, str, str]:
    return (
        each.verdict.team.name if each.verdict.team else each.verdict.submission,
        each.verdict.verdict,
        "; ".join(each.why),
    )


def _rehearsed(each: Verdict) -> tuple[str, ...]:
    share = f"{each.accuracy.share:.1%}" if each.accuracy else "unknown"
    return team_name(each), each.verdict, _time(each), share, each.dataset or "unknown", day(each)


def _time(each: Verdict) -> str:
    """A time and whose word it is."""
    if each.measured is not None and each.measured.median_s is not None:
        return f"{each.measured.median_s:.2f} s, measured"
    return "unknown" if each.time_s is None else f"{each.time_s:.2f} s, claimed"


def _slowest(entries: Sequence[Entry]) -> float:
    return max(entry.ranked.time_s for entry in entries)


def _entry_json(entry: Entry) -> dict[str, Any]:
    ranked = entry.ranked
    return {
        "rank": entry.rank,
        **_verdict_json(entry.verdict),
        "time_s": ranked.time_s,
        "s_per_prompt": ranked.s_per_prompt,
        "time_by": "organiser" if ranked.measured else "team",
        "accuracy": ranked.accuracy.model_dump(mode="json") if ranked.accuracy else None,
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
        "measured_on": list(verdict.measured.devices) if verdict.measured else None,
        "measured_s": verdict.measured.median_s if verdict.measured else None,
        "spread": verdict.measured.spread if verdict.measured else None,
        "audited": verdict.audit is not None,
        "submitted_utc": verdict.submitted_utc.isoformat() if verdict.submitted_utc else None,
        "received_utc": verdict.received.isoformat() if verdict.received_utc else None,
    }
