"""`invoke leaderboard`: teams ranked by time, as measured; the rules of who is ranked and who is only listed.

* A rank is for a VALID submission to the contest whose time the organiser measured (`invoke verify --rerun`). A time
  that only the team tells is listed apart.
* A team's latest such submission counts, also when an earlier one was faster: latest by the organiser's time of
  receipt. One that is INVALID or undecided, a rehearsal, or another team's of the same name takes nobody's rank away.
* Times of different data, or of different weights, stand in tables of their own: by their hashes, whatever their names.
* Equal times share a rank, and the next one is left out.

The same verdicts give the same ranking, in whatever order they were read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.contest.ranking import alike, verdict_files
from pipeline.contest.ranking.verdict_files import (
    INVALID,
    VALID,
    Accuracy,
    Unread,
    Verdict,
    folded,
    team_key,
    team_name,
)

UNNAMED = "(without a name)"


@dataclass(frozen=True)
class Ranked:
    """A verdict that has all that a place in a table needs."""

    verdict: Verdict
    team: str
    model: str
    model_sha256: str
    dataset: str
    dataset_sha256: str
    prompts: int
    time_s: float
    measured: bool
    """By the organiser; else as the team tells it."""
    accuracy: Accuracy | None

    @property
    def s_per_prompt(self) -> float:
        return self.time_s / self.prompts

    @property
    def table(self) -> tuple[str, str]:
        return self.dataset_sha256, self.model_sha256


@dataclass(frozen=True)
class Entry:
    rank: int | None
    """None: the time is the team's word."""
    ranked: Ranked
    history: tuple[Verdict, ...]
    """The team's submissions that could have this place, oldest first; the last one has it."""

    @property
    def verdict(self) -> Verdict:
        return self.ranked.verdict


@dataclass(frozen=True)
class Table:
    """Entries that can be compared: the same weights on the same data."""

    dataset: str
    dataset_sha256: str
    prompts: int
    model: str
    model_sha256: str
    entries: tuple[Entry, ...]
    """Measured by the organiser."""
    claimed: tuple[Entry, ...]
    """Told by the team."""

    @property
    def devices(self) -> list[str]:
        return sorted({entry.verdict.taken_on for entry in self.entries})


@dataclass(frozen=True)
class Unranked:
    """A submission that has no place in a table."""

    verdict: Verdict
    why: tuple[str, ...]
    earlier: int
    """Submissions of the same team that came before."""


@dataclass(frozen=True)
class Board:
    tables: tuple[Table, ...]
    rehearsals: tuple[Verdict, ...]
    unranked: tuple[Unranked, ...]
    unread: tuple[Unread, ...]
    stolen: tuple[tuple[Verdict, ...], ...]
    """The same answers and recording under several names."""
    names: tuple[tuple[str, ...], ...]
    """Names of teams that look alike."""
    notes: tuple[str, ...]
    """For an organiser to look at: two teams of one name, somebody in two teams."""


def make(folder: Path) -> Board:
    """Rank the verdicts below a folder. Raises UsageError (U711) where there are no verdicts."""
    read, unread = verdict_files.read_all(folder)
    return rank(read, unread)


def rank(read: Sequence[Verdict], unread: Sequence[Unread] = ()) -> Board:
    kept, disputed = _each_once(sorted(read, key=_order))
    unranked, rehearsals, teams = list(disputed), [], _teams(kept)
    places: dict[tuple[str, str], dict[tuple[bool, int], list[Ranked]]] = {}
    seen: Counter[int] = Counter()
    for each, team in zip(kept, teams, strict=True):
        if each.rehearsal and each.verdict != INVALID:
            rehearsals.append(each)
        elif isinstance(judged := _judge(each), Ranked):
            places.setdefault(judged.table, {}).setdefault((judged.measured, team), []).append(judged)
        else:
            unranked.append(Unranked(each, judged, seen[team]))
        seen[team] += 1
    return Board(
        tables=tuple(_table(places[key]) for key in sorted(places)),
        rehearsals=tuple(rehearsals),
        unranked=tuple(sorted(unranked, key=lambda each: (team_name(each.verdict), each.verdict.submission))),
        unread=tuple(sorted(unread, key=lambda each: each.folder)),
        stolen=alike.stolen(kept),
        names=alike.names(kept),
        notes=(*_shared_names(kept, teams), *_in_two_teams(kept), *_at_once(places)),
    )


def _order(verdict: Verdict) -> tuple[object, ...]:
    """In the order of receipt; the rest only so that the order of reading says nothing."""
    return (verdict.received, verdict.submission, verdict.model_dump_json())


def _table(place: Mapping[tuple[bool, int], Sequence[Ranked]]) -> Table:
    latest = {key: (ranked[-1], tuple(each.verdict for each in ranked)) for key, ranked in place.items()}
    entries = []
    for whose in (True, False):
        ordered = sorted(
            (each for (measured, _), each in latest.items() if measured is whose),
            key=lambda each: (each[0].time_s, team_key(each[0].verdict), _order(each[0].verdict)),
        )
        times = [ranked.time_s for ranked, _ in ordered]
        entries.append(tuple(Entry(times.index(r.time_s) + 1 if whose else None, r, history) for r, history in ordered))
    # Names are the first one's that was measured, or else told; the hashes are what counts.
    every = [each for ranked in place.values() for each in ranked]
    named = min(every, key=lambda each: (not each.measured, _order(each.verdict)))
    return Table(named.dataset, named.dataset_sha256, named.prompts, named.model, named.model_sha256, *entries)


def _judge(verdict: Verdict) -> Ranked | tuple[str, ...]:
    """The verdict for a place in a table, or the reasons why it has none."""
    if verdict.verdict != VALID:
        return verdict.reasons or (f"the verdict is {verdict.verdict} and names no reason",)
    if verdict.missing:
        return (f"the verdict does not say {', '.join(verdict.missing)}: verify it again",)
    team, model, model_sha256 = verdict.team, verdict.model, verdict.model_sha256
    measured = verdict.measured
    name, sha256, prompts, time_s = verdict.dataset, verdict.dataset_sha256, verdict.prompts, verdict.time_s
    accuracy = verdict.accuracy
    if measured is not None:
        # On the submission's own data its answers are the same, or the verdict were another.
        accuracy = measured.accuracy or (accuracy if measured.data_sha256 == sha256 else None)
        name, sha256, prompts, time_s = measured.data, measured.data_sha256, measured.prompts, measured.median_s
    if not (team and model_sha256 and sha256 and prompts and time_s):
        raise AssertionError("Verdict.missing named none of them")
    return Ranked(
        verdict,
        team.name,
        model or UNNAMED,
        model_sha256,
        name or UNNAMED,
        sha256,
        prompts,
        time_s,
        measured is not None,
        accuracy,
    )


def _each_once(read: Sequence[Verdict]) -> tuple[list[Verdict], list[Unranked]]:
    """A submission that was verified several times counts once: by its measured verdict, from its first receipt. One
    that was found both VALID and INVALID does not count."""
    by_file: dict[tuple[str, str], list[Verdict]] = {}
    for each in read:
        # A file that could not be read may bear any name, another's too.
        by_file.setdefault((each.submission, team_key(each) if each.team else each.model_dump_json()), []).append(each)
    kept, disputed = [], []
    for verdicts in by_file.values():
        states = sorted({each.verdict for each in verdicts})
        if {VALID, INVALID} <= set(states):
            worst = next(each for each in verdicts if each.verdict == INVALID)
            why = f"verified {len(verdicts)} times, with different verdicts: {', '.join(states)}"
            disputed.append(Unranked(worst, (why, *worst.reasons), 0))
            continue
        best = max(verdicts, key=lambda each: (_standing(each), -verdicts.index(each)))
        kept.append(best.model_copy(update={"received_utc": verdicts[0].received_utc}))
    return sorted(kept, key=_order), disputed


def _standing(verdict: Verdict) -> tuple[bool, bool, int, float]:
    """How much a verdict says, and of equals the slower time."""
    measured = verdict.measured
    decided, times = verdict.verdict != verdict_files.CANNOT_TELL, 0 if measured is None else measured.times
    return decided, measured is not None, times, 0.0 if measured is None else measured.median_s or 0.0


def _teams(read: Sequence[Verdict]) -> list[int]:
    """A number for each one's team: of one name, those who share a member, or whose members were not read."""
    numbers: list[int] = []
    known: dict[str, list[tuple[int, set[str]]]] = {}
    for each in read:
        members = {folded(name) for name in each.team.members} if each.team else set()
        same_name = known.setdefault(team_key(each), [])
        one = next((one for one in same_name if not members or one[1] & members), None)
        if one is None:
            one = (len(numbers), set())
            same_name.append(one)
        one[1].update(members)
        numbers.append(one[0])
    return numbers


def _shared_names(read: Sequence[Verdict], teams: Sequence[int]) -> list[str]:
    by_name: dict[str, dict[int, Verdict]] = {}
    for each, team in zip(read, teams, strict=True):
        if each.team and each.team.members:
            by_name.setdefault(team_key(each), {}).setdefault(team, each)
    return [
        f"{len(group)} teams without a common member have the name {team_name(next(iter(group.values())))}: "
        + "; ".join(", ".join(each.team.members) for each in group.values() if each.team)
        for _, group in sorted(by_name.items())
        if len(group) > 1
    ]


def _at_once(places: Mapping[tuple[str, str], Mapping[tuple[bool, int], Sequence[Ranked]]]) -> list[str]:
    """Submissions of one team received at the same moment: nobody can say which is the latest."""
    last = [ranked[-2:] for _, place in sorted(places.items()) for ranked in place.values() if len(ranked) > 1]
    return [
        f"{newer.team}: {older.verdict.submission} and {newer.verdict.submission} were received at the same moment"
        for older, newer in last
        if older.verdict.received == newer.verdict.received
    ]


def _in_two_teams(read: Sequence[Verdict]) -> list[str]:
    """The contest's rule: nobody in two teams. Names of people may be equal, so this is a note."""
    teams: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    for each in read:
        for name in each.team.members if each.team else ():
            names[folded(name)] = name
            teams.setdefault(folded(name), {})[team_key(each)] = team_name(each)
    return [
        f"{names[person]} is in {' and in '.join(theirs[key] for key in sorted(theirs))}"
        for person, theirs in sorted(teams.items())
        if len(theirs) > 1
    ]
