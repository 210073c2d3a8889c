"""Around `invoke judge`: its data and status, and what it prints in the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import paths, table
from pipeline.contest.judge import entries
from pipeline.contest.judge import plan as planning
from pipeline.contest.judge import status as showing
from pipeline.contest.judge.plan import FOLDER
from pipeline.contest.judge.status import Status
from pipeline.contest.verify.verify import Verdict
from pipeline.errors import UsageError
from pipeline.table import Column


def data(name: str) -> Path:
    """The data file that `--data` names. Raises UsageError (U742) where none is named."""
    if not name:
        raise UsageError(
            "U742", "--data is missing: all submissions are run on one data file of yours", where="--data",
            fix="name it: --data FILE.jsonl, best one that no team has seen",
        )  # fmt: skip
    return paths.given(name)


def status(folder: Path) -> Status:
    """How far the judging of this folder is. Raises UsageError (U743) where nothing was planned yet."""
    place = folder / FOLDER
    plan = planning.read(place)
    if plan is None:
        raise UsageError(
            "U743", "nothing is planned here yet", where=paths.shown(place),
            fix="a plan is made when every archive is verified: start invoke judge, or wait",
        )  # fmt: skip
    return showing.look(plan, place)


def as_json(verdicts: Sequence[Verdict], folder: Path) -> list[dict[str, Any]]:
    """Every archive's verdict, also of those that were not run since their claims fail already."""
    return [*(each.as_json() for each in verdicts), *entries.refused(folder)]


def text(verdicts: Sequence[dict[str, Any]]) -> str:
    rows = [(each["submission"], each["verdict"], "; ".join(each["reasons"][:2])) for each in verdicts]
    columns = (Column("submission", wrap=50), Column("verdict"), Column("why", wrap=80))
    return "\n".join(["", table.text(columns, rows), "", "next: invoke leaderboard, on the same folder"])
