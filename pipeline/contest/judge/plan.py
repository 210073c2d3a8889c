"""What is to be run, decided once: `plan.json`, and never changed. Whoever goes on finds it, or is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files, paths
from pipeline.contest.judge import ordering
from pipeline.errors import IntegrityError, UsageError
from pipeline.queues import attempts
from pipeline.record import provenance

SCHEMA = 1
NAME, FOLDER = "plan.json", "judge"
UNPACKED = "unpacked"
LIMIT_FACTOR, LIMIT_MORE_S, MOST_LIMIT_S = 2.0, 300.0, 86_400.0
"""Limit of a run: twice the claimed load and warm-up, and section grown to the data, and five minutes."""
CHARACTERS_A_TOKEN = 2.0
"""Fewer than any tokenizer of ours needs for English, so that a limit errs to the long side."""
NET_S = 300.0
"""By how much later the queue itself ends a job. Slurm counts in minutes."""
BESIDE_S = 45.0
"""Of each run, beside what it claims: cooling down, loading the image. A guess, for the time left alone."""


@dataclass(frozen=True)
class Size:
    """The size of a run's data: how much longer it may take than on the data that a submission claims."""

    sha256: str
    rows: int
    characters: int

    def growth(self, sha256: str, rows: int, prompt_tokens: int | None) -> float:
        """At least 1; 1 on the data of the claim, whose hash, rows and tokens (None: unknown) are given."""
        if sha256 == self.sha256:
            return 1.0
        by_tokens = self.characters / CHARACTERS_A_TOKEN / prompt_tokens if prompt_tokens and prompt_tokens > 0 else 1.0
        return max(1.0, self.rows / max(1, rows), by_tokens)


@dataclass(frozen=True)
class Entry:
    """A submission that is to be run."""

    id: str
    """The first twelve digits of its tar file's sha256."""
    sha256: str
    file: str
    expected_s: float
    limit_s: float


@dataclass(frozen=True)
class Plan:
    seed: int
    commit: str | None
    data: str
    data_sha256: str
    model: str
    """Where every board has it."""
    repeat: int
    entries: tuple[Entry, ...]
    """Those that are to be run; a submission whose claims fail already is not."""
    yardstick: Entry | None
    """The organiser's own, for reference runs."""
    order: tuple[str, ...]
    """Keys of all runs but the reference's."""
    archives: dict[str, str]
    """Every tar file of the folder to its sha256."""

    @property
    def prefix(self) -> str:
        """The beginning of the names of its jobs."""
        return f"j-{hashlib.sha256(files.json_bytes(as_json(self))).hexdigest()[:8]}"

    def entry(self, key: str) -> Entry:
        """The entry that a run's key names."""
        if key.startswith("ref-") and self.yardstick is not None:
            return self.yardstick
        return next(each for each in self.entries if key.startswith(f"{each.id}-r"))


def make(
    data: Path, data_sha256: str, model: Path, repeat: int, entries: tuple[Entry, ...], yardstick: Entry | None,
    archives: dict[str, str],
) -> Plan:  # fmt: skip
    seed = secrets.randbelow(1 << 31)
    order = ordering.rounds({each.id: each.expected_s for each in entries}, repeat, seed)
    commit = provenance.commit()["commit"]
    return Plan(seed, commit, str(data.resolve()), data_sha256, str(model.resolve()), repeat, entries, yardstick,
                tuple(order), archives)  # fmt: skip


def submission_folder(place: Path, sha256: str) -> Path:
    return place / "submissions" / sha256[:12]


def unpacked_folder(place: Path, entry: Entry) -> Path:
    """Where every board finds what was unpacked."""
    return submission_folder(place, entry.sha256) / UNPACKED


def limit_s(claimed_s: float) -> float:
    return min(LIMIT_FACTOR * claimed_s + LIMIT_MORE_S, MOST_LIMIT_S)


def as_json(plan: Plan) -> dict[str, Any]:
    return {"schema": SCHEMA, **json.loads(json.dumps(dataclasses.asdict(plan)))}


def write(plan: Plan, place: Path) -> Plan:
    """Write the plan where there is none; the one that is there, if another was first."""
    attempts.once(place / NAME, files.json_bytes(as_json(plan)))
    made = read(place)
    assert made is not None
    return made


def read(place: Path) -> Plan | None:
    """The plan of a folder; None where there is none. Raises UsageError (U733) for one of another version."""
    told = attempts.read(place / NAME)
    if told is None and not (place / NAME).exists():
        return None
    try:
        assert told is not None
        assert told.pop("schema") == SCHEMA
        entries = tuple(Entry(**each) for each in told.pop("entries"))
        yardstick, order = told.pop("yardstick"), tuple(told.pop("order"))
        return Plan(entries=entries, yardstick=Entry(**yardstick) if yardstick else None, order=order, **told)
    except (AssertionError, ValueError, TypeError, KeyError):
        raise UsageError(
            "U733",
            "this is not a plan, or another version of the program wrote it",
            where=paths.shown(place / NAME),
            expected=f"schema {SCHEMA}",
            fix="go on with the version that made it, or judge the archives in a new folder",
        ) from None


def check_is_the_same(
    plan: Plan, place: Path, data_sha256: str, repeat: int, archives: dict[str, str], yardstick: str | None
) -> None:
    """Raise if the plan is of other data (M731), or of other archives or repeats (U734)."""
    if plan.data_sha256 != data_sha256:
        raise IntegrityError(
            "M731",
            "the plan was made for other data",
            where=paths.shown(place / NAME),
            expected=plan.data_sha256,
            actual=data_sha256,
            fix="give the same file, or judge the archives in a new folder",
        )
    own = plan.yardstick and plan.yardstick.sha256
    if (plan.archives, plan.repeat, own) != (archives, repeat, yardstick):
        other = sorted(name for name in plan.archives.keys() | archives.keys()
                       if plan.archives.get(name) != archives.get(name))  # fmt: skip
        raise UsageError(
            "U734",
            "the plan in this folder was made for other archives, another --repeat or another yardstick",
            where=paths.shown(place / NAME),
            expected=f"{len(plan.archives)} archives, --repeat {plan.repeat}",
            actual=f"{len(archives)} archives, --repeat {repeat}; differing: {', '.join(other) or 'none'}",
            fix="judge the new archives in a folder of their own: verdicts of several folders can be ranked together",
        )
