"""A folder of verdicts, as `invoke verify` wrote them: read, and sorted into what can be used and what cannot.

Only `DIR/*/verdict.json` counts, and never one inside of an unpacked submission: a team could have put it there.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import paths, schemas
from pipeline.contest.archive import strict_json
from pipeline.contest.format import MANIFEST, SUBMISSION
from pipeline.errors import UsageError

NAME = "verdict.json"
SCHEMA = 1
VALID, INVALID, CANNOT_TELL = "VALID", "INVALID", "CANNOT TELL"

Text = Annotated[str, Field(min_length=1, max_length=4000)]
Name = Annotated[str, Field(max_length=4000)]
"""A stranger may leave it empty."""
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Further keys are left alone: they are for others."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Team(Part):
    name: Text
    members: tuple[Text, ...] = ()


class Accuracy(Part):
    right: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(gt=0)]
    share: Share
    interval_95: tuple[Share, Share]


class Rerun(Part):
    """Times by the organiser's own clock."""

    clock: str | None = None
    """Whose clock it was; None in a verdict of an older program, where it was the team's."""
    data: str | None = None
    data_sha256: Text | None = None
    prompts: Annotated[int, Field(ge=0)] | None = None
    times: Annotated[int, Field(ge=0)]
    median_s: Annotated[float, Field(gt=0)] | None
    spread: Annotated[float, Field(ge=0)] | None = None
    devices: tuple[Text, ...] = ()
    """On which it ran; none in a verdict of an older program."""
    accuracy: Accuracy | None = None


class Verdict(Part):
    """The part of a verdict that the leaderboard needs. A value that could not be read of a submission is null."""

    verdict: Literal["VALID", "INVALID", "CANNOT TELL"]
    submission: Text
    team: Team | None
    rehearsal: bool | None = None
    """Packed with the example's team."""
    model: Name | None
    dataset: Name | None
    dataset_sha256: Text | None = None
    model_sha256: Text | None = None
    outputs_sha256: Text | None = None
    telemetry_sha256: Text | None = None
    prompts: Annotated[int, Field(gt=0)] | None
    time_s: Annotated[float, Field(gt=0)] | None
    s_per_prompt: Annotated[float, Field(gt=0)] | None
    accuracy: Accuracy | None
    device: str | None
    submitted_utc: datetime | None
    """The end of the run, as it says itself."""
    received_utc: datetime | None = None
    """When the organiser had it: what counts."""
    rerun: Rerun | None = None
    audit: dict[str, Any] | None = None
    reasons: tuple[str, ...] = ()

    @property
    def received(self) -> datetime:
        """To sort by; one that does not say when comes before all others."""
        return _in_utc(self.received_utc)

    @property
    def measured(self) -> Rerun | None:
        """The organiser's own measurement, if there is one with a time."""
        rerun = self.rerun
        return None if rerun is None or rerun.median_s is None or rerun.clock is None else rerun

    @property
    def taken_on(self) -> str:
        """The device of the time: where the organiser measured, else what the submission says."""
        measured = self.measured.devices if self.measured is not None else ()
        return ", ".join(measured) or self.device or "unknown"

    @property
    def missing(self) -> list[str]:
        """Names of values that a place in a table needs and this verdict lacks."""
        needed = ("team", "rehearsal", "model_sha256", "dataset_sha256", "prompts", "time_s", "received_utc")
        measured = ("data_sha256", "prompts") if self.measured is not None else ()
        lacking = [name for name in needed if getattr(self, name) is None]
        return lacking + [f"rerun.{name}" for name in measured if not getattr(self.measured, name)]


def team_name(verdict: Verdict) -> str:
    """The team's name; without a team that could be read, the submission stands for itself."""
    return verdict.team.name if verdict.team else verdict.submission


def team_key(verdict: Verdict) -> str:
    """A team's name as people tell names apart: not by capitals, blanks or the way an accent is stored."""
    return folded(team_name(verdict))


def folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _in_utc(time: datetime | None) -> datetime:
    time = time or datetime.min
    if time.tzinfo is None:
        return time.replace(tzinfo=timezone.utc)
    try:
        return time.astimezone(timezone.utc)
    except OverflowError:  # a day that is before the year 1, or behind the year 9999, in UTC
        return time.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Unread:
    folder: str
    why: str


def read_all(folder: Path) -> tuple[list[Verdict], list[Unread]]:
    """Every verdict of the folder, by name, and those that cannot be used, with the reason.

    Raises UsageError (U711) where there is no folder, or not one verdict in it.
    """
    verdict_paths = sorted(folder.glob(f"*/{NAME}")) if folder.is_dir() else []
    if not verdict_paths:
        raise UsageError(
            "U711",
            "there are no verdicts in this folder" if folder.is_dir() else "there is no such folder",
            where=paths.shown(folder),
            expected=f"folders that invoke verify wrote, each with its {NAME}",
            fix="verify submissions into it: invoke verify FILE.tar writes FILE.verdict beside the tar",
        )
    read: list[Verdict] = []
    unread: list[Unread] = []
    for path in verdict_paths:
        try:
            if any((path.parent / name).exists() for name in (MANIFEST, SUBMISSION)):
                raise ValueError("it lies in an unpacked submission, so the team wrote it")  # noqa: TRY301
            read.append(_verdict(strict_json.loads(path.read_bytes())))
        except (OSError, ValueError) as error:
            unread.append(Unread(path.parent.name, _words(error)))
    return read, unread


def _verdict(content: Any) -> Verdict:
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError("it is not a verdict: no schema")
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema {content['schema']!r}; this program reads schema {SCHEMA}")
    return Verdict.model_validate(content)


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    if isinstance(error, ValidationError):
        return schemas.words(error)
    return str(error)
