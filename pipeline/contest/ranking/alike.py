"""What an organiser should see side by side: one run under two names, and names that may be taken for one another.

Time grows linearly with the number of verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.contest.look_alike import skeleton
from pipeline.contest.ranking.verdict_files import Verdict, team_key, team_name

SHORTEST = 4
"""Letters of a name in which one more, one less or another one is still taken for the same."""


def stolen(read: Sequence[Verdict]) -> tuple[tuple[Verdict, ...], ...]:
    """Submissions with the same answers and the same recording under more than one team's name."""
    by_prints: dict[tuple[str, str], list[Verdict]] = {}
    for each in read:
        if each.outputs_sha256 and each.telemetry_sha256:
            by_prints.setdefault((each.outputs_sha256, each.telemetry_sha256), []).append(each)
    groups = [tuple(sorted(group, key=_order)) for group in by_prints.values() if len(set(map(team_key, group))) > 1]
    return tuple(sorted(groups, key=lambda group: _order(group[0])))


def names(read: Sequence[Verdict]) -> tuple[tuple[str, ...], ...]:
    """Names of teams that look alike: the same but for accents, blanks and letters of other scripts, or one letter."""
    shown = {team_key(each): team_name(each) for each in sorted(read, key=_order, reverse=True) if each.team}
    by_variant: dict[str, set[str]] = {}
    for key in shown:
        for variant in _variants(skeleton(key)):
            by_variant.setdefault(variant, set()).add(key)
    groups = {tuple(sorted(keys)) for keys in by_variant.values() if len(keys) > 1}
    whole = [group for group in groups if not any(set(group) < set(other) for other in groups)]
    return tuple(tuple(shown[key] for key in group) for group in sorted(whole))


def _variants(letters: str) -> Iterator[str]:
    """The word itself and, unless it is short, each word that one letter less makes: two words share one where they
    differ by one letter that was added, left out, changed or swapped with the next."""
    yield letters
    if len(letters) >= SHORTEST:
        yield from {letters[:at] + letters[at + 1 :] for at in range(len(letters))}


def _order(verdict: Verdict) -> tuple[object, ...]:
    return (verdict.received, verdict.submission)
