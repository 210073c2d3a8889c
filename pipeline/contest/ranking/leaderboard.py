"""`invoke leaderboard`: teams ranked by time, as verified; the rules of who is ranked and who is only listed.

* A team's latest submission counts, also when an earlier one was faster or the latest is invalid.
* Only a VALID one has a rank. The accuracy rule is one of the checks behind that word.
* Times of different data sets, or of different models, stand in tables of their own.
* Equal times share a rank, and the next one is left out.

The same verdicts give the same ranking, in whatever order they were read.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.contest.ranking import verdict_files
from pipeline.contest.ranking.verdict_files import INVALID, VALID, Accuracy, Unread, Verdict

SHARED = "two teams without a common member have this name; let one of them take another"


@dataclass(frozen=True)
class Ranked:
    """A verdict that has all that a rank needs."""

    verdict: Verdict
    team: str
    model: str
    dataset: str
    prompts: int
    time_s: float
    s_per_prompt: float
    accuracy: Accuracy


@dataclass(frozen=True)
class Entry:
    rank: int
    ranked: Ranked
    history: tuple[Verdict, ...]
    """All of the team's submissions of this table, oldest first; the last one is the ranked one."""

    @property
    def verdict(self) -> Verdict:
        return self.ranked.verdict


@dataclass(frozen=True)
class Table:
    """Entries that can be compared: one model on one data set."""

    dataset: str
    dataset_sha256: str | None
    prompts: int
    model: str
    entries: tuple[Entry, ...]

    @property
    def devices(self) -> list[str]:
        return sorted({entry.verdict.device or "unknown" for entry in self.entries})


@dataclass(frozen=True)
class Unranked:
    """A team's latest submission without a rank."""

    verdict: Verdict
    why: tuple[str, ...]
    earlier: int
    """Submissions of the same team that came before."""


@dataclass(frozen=True)
class Board:
    tables: tuple[Table, ...]
    unranked: tuple[Unranked, ...]
    unread: tuple[Unread, ...]
    notes: tuple[str, ...]
    """For an organiser to look at: somebody in two teams."""


def make(folder: Path) -> Board:
    """Raises UsageError (U711) where there are no verdicts."""
    read, unread = verdict_files.read_all(folder)
    return rank(read, unread)


def rank(read: Sequence[Verdict], unread: Sequence[Unread] = ()) -> Board:
    read, disputed = _each_once(read)
    by_team: dict[tuple[str, ...], list[Verdict]] = {}
    for each in sorted(read, key=lambda verdict: (verdict.submitted, verdict.submission)):
        # One team hands in for different sets, and is ranked in each.
        by_team.setdefault((team_key(each), *_table_key(each)), []).append(each)
    shared = _shared_names(read)
    unranked = list(disputed)
    candidates: dict[tuple[str, ...], list[tuple[Ranked, tuple[Verdict, ...]]]] = {}
    for (team, *table), history in by_team.items():
        latest = history[-1]
        if team in shared:
            unranked += [Unranked(each, (SHARED,), 0) for each in history]
        elif isinstance(judged := _judge(latest), Ranked):
            candidates.setdefault(tuple(table), []).append((judged, tuple(history)))
        else:
            unranked.append(Unranked(latest, judged, len(history) - 1))
    return Board(
        tables=tuple(_table(candidates[key]) for key in sorted(candidates)),
        unranked=tuple(sorted(unranked, key=lambda each: (_team_name(each.verdict), each.verdict.submission))),
        unread=tuple(sorted(unread, key=lambda each: each.folder)),
        notes=_in_two_teams(read),
    )


def team_key(verdict: Verdict) -> str:
    """A team's name as people tell names apart: not by capitals, blanks or the way an accent is stored."""
    return " ".join(unicodedata.normalize("NFKC", _team_name(verdict)).casefold().split())


def _table(candidates: Sequence[tuple[Ranked, tuple[Verdict, ...]]]) -> Table:
    ordered = sorted(candidates, key=lambda each: (each[0].time_s, team_key(each[0].verdict)))
    times = [ranked.time_s for ranked, _ in ordered]
    first, _ = ordered[0]
    entries = tuple(Entry(times.index(ranked.time_s) + 1, ranked, history) for ranked, history in ordered)
    return Table(first.dataset, first.verdict.dataset_sha256, first.prompts, first.model, entries)


def _table_key(verdict: Verdict) -> tuple[str, ...]:
    """The data set by its content where that is known: two files may have one name."""
    return (verdict.dataset or "", verdict.dataset_sha256 or "", f"{verdict.prompts or 0:012}", verdict.model or "")


def _judge(verdict: Verdict) -> Ranked | tuple[str, ...]:
    """The verdict for a rank, or the reasons why it has none."""
    if verdict.verdict != VALID:
        return verdict.reasons or (f"the verdict is {verdict.verdict} and names no reason",)
    why = []
    if verdict.rehearsal:
        why.append("a rehearsal: packed with the example's team")
    if verdict.missing:
        why.append(f"the verdict does not say {', '.join(verdict.missing)}")
    team, model, dataset, prompts = verdict.team, verdict.model, verdict.dataset, verdict.prompts
    time_s, s_per_prompt, accuracy = verdict.time_s, verdict.s_per_prompt, verdict.accuracy
    if why or team is None or model is None or dataset is None or prompts is None:
        return tuple(why)
    if time_s is None or s_per_prompt is None or accuracy is None:
        return tuple(why)
    return Ranked(verdict, team.name, model, dataset, prompts, time_s, s_per_prompt, accuracy)


def _each_once(read: Sequence[Verdict]) -> tuple[list[Verdict], list[Unranked]]:
    """A submission that was verified twice counts once; one with two different verdicts does not count."""
    by_name: dict[str, list[Verdict]] = {}
    for each in read:
        by_name.setdefault(each.submission, []).append(each)
    kept, disputed = [], []
    for name in sorted(by_name):
        verdicts = by_name[name]
        states = sorted({each.verdict for each in verdicts})
        if len(states) == 1:
            kept.append(verdicts[0])
        else:
            worst = next((each for each in verdicts if each.verdict == INVALID), verdicts[0])
            why = f"verified {len(verdicts)} times, with different verdicts: {', '.join(states)}"
            disputed.append(Unranked(worst, (why, *worst.reasons), 0))
    return kept, disputed


def _shared_names(read: Sequence[Verdict]) -> set[str]:
    """Names under which two submissions have members, and none in common."""
    members: dict[str, list[set[str]]] = {}
    for each in read:
        if each.team and each.team.members:
            members.setdefault(team_key(each), []).append({_person(name) for name in each.team.members})
    return {team for team, groups in members.items() if any(not one & other for one in groups for other in groups)}


def _in_two_teams(read: Sequence[Verdict]) -> tuple[str, ...]:
    """The contest's rule: nobody in two teams. Names of people may be equal, so this is a note."""
    teams: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    for each in sorted(read, key=lambda verdict: (verdict.submitted, verdict.submission)):
        for name in each.team.members if each.team else ():
            names[_person(name)] = name
            teams.setdefault(_person(name), {})[team_key(each)] = _team_name(each)
    return tuple(
        f"{names[person]} is in {' and in '.join(theirs[key] for key in sorted(theirs))}"
        for person, theirs in sorted(teams.items())
        if len(theirs) > 1
    )


def _person(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _team_name(verdict: Verdict) -> str:
    """Without a team that could be read, the submission stands for itself."""
    return verdict.team.name if verdict.team else verdict.submission
