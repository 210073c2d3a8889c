"""`invoke similarity`: how much of each submission's source stands in another one, and where.

Fingerprints are copydetect's: code without comments and layout, names and strings made equal, cut into overlapping
pieces of `prints.PIECE` characters (winnowing, Schleimer and others, SIGMOD 2003; with a window of one, so that all
pieces count and the result does not depend on Python's hash seed). Before two trees are held against each other, what
both cite from the same source is left out, and every piece that stands in what all teams were given.

A high share is a reason to look, never a verdict: people decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.check import plain
from pipeline.contest import apart
from pipeline.contest.apart import Call, Stopped
from pipeline.contest.similarity import languages, prints, source_tree
from pipeline.contest.similarity.prints import Hashes, Print
from pipeline.contest.similarity.source_tree import Tree
from pipeline.errors import CannotTell, UsageError

MOST_PLACES = 16
"""Of a piece in a file, and files with it: one that stands everywhere says nothing of where it comes from."""

SHOWN_PAIRS, SHOWN_BESIDE = 100, 4
"""Pairs of files with their passages in one page, at most, and of those with one and the same file: those of an engine,
then those with most in common. So the work grows with the trees and not with their product."""


@dataclass(frozen=True)
class Passage:
    """Lines of A that stand in B, first and last, from 1."""

    lines_a: tuple[int, int]
    lines_b: tuple[int, int]


@dataclass(frozen=True)
class FilePair:
    path_a: str
    path_b: str
    share_a: float
    share_b: float
    passages: tuple[Passage, ...]
    common: int
    """Characters of A's filtered code."""


@dataclass(frozen=True)
class Pair:
    a: str
    b: str
    share_a: float | None
    """Share of A's own code that also stands in B; None where nothing of its own is left."""
    share_b: float | None
    files: tuple[FilePair, ...]
    left_out: tuple[str, ...]
    """Sources that both cite."""

    @property
    def highest(self) -> float:
        return max(self.share_a or 0.0, self.share_b or 0.0)


@dataclass(frozen=True)
class Similarity:
    names: tuple[str, ...]
    pairs: tuple[Pair, ...]
    """The most alike first."""
    texts: Mapping[tuple[str, str], str]
    """Submission and path to a file's text, of files with passages."""
    notes: tuple[str, ...]
    stopped: Mapping[str, str]
    """Submissions that could not be compared, and why."""


def compare(sources: Sequence[str], given: str = "") -> Similarity:
    """`given`: a folder or tar of what all teams were given.

    Raises UsageError: U722 fewer than two, U723 two of one name; what `source_tree.read` raises; EnvironmentProblem
    (E701) without copydetect; CannotTell (C102) where what all were given is beyond the limits.
    """
    if len(sources) < 2:
        raise UsageError(
            "U722",
            "one submission alone cannot be compared",
            expected="two or more",
            actual=len(sources),
            fix="name another one",
        )
    read = [source_tree.read(Path(source).expanduser()) for source in sources]
    names = [tree.name for tree in read]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise UsageError(
            "U723",
            "two submissions have the same name",
            actual=", ".join(twice),
            fix="name each once; rename a folder if need be",
        )
    notes: list[str] = []
    everyones = np.zeros(0, np.int64)
    if given:
        of_all = _apart(source_tree.read(Path(given).expanduser()), everyones)
        if isinstance(of_all, Stopped):
            raise _cannot_tell("what all teams were given could not be read within its limits", given, of_all.why)
        everyones, notes = prints.together(of_all[0]), of_all[1]
    printed: dict[str, list[Print]] = {}
    stopped: dict[str, str] = {}
    for tree in read:
        made = _apart(tree, everyones)
        if isinstance(made, Stopped):
            stopped[tree.name] = made.why
        else:
            printed[tree.name] = made[0]
            notes += made[1]
    read = [tree for tree in read if tree.name in printed]
    pairs = sorted(
        (_pair(a, b, printed) for a, b in combinations(read, 2)), key=lambda pair: (-pair.highest, pair.a, pair.b)
    )
    paired = {(pair.a, file.path_a) for pair in pairs for file in pair.files}
    paired |= {(pair.b, file.path_b) for pair in pairs for file in pair.files}
    texts = {(name, each.path): each.text for name in printed for each in printed[name] if (name, each.path) in paired}
    notes += [
        f"{tree.name} has no THIRD_PARTY.yaml that can be read: it cites nothing" for tree in read if not tree.cited
    ]
    notes += [
        f"nothing of {name} is left to compare: no code in a known language, or all was given"
        for name in printed
        if not printed[name]
    ]
    notes += [f"CANNOT TELL what {name} shares: {why}" for name, why in stopped.items()]
    return Similarity(tuple(names), tuple(pairs), texts, tuple(notes), stopped)


def conclude(similarity: Similarity) -> None:
    """Raise CannotTell (C102) where a submission could not be compared."""
    if similarity.stopped:
        why = "; ".join(f"{plain(name)}: {why}" for name, why in similarity.stopped.items())
        raise _cannot_tell("the source of a submission could not be read within its limits", "", why)


def _cannot_tell(what: str, where: str, why: str) -> CannotTell:
    return CannotTell(
        "C102",
        what,
        where=plain(where),
        expected="a result within the limits of a check",
        actual=why,
        fix="look at that source by eye: code that people write is read in seconds",
    )


def as_json(similarity: Similarity) -> dict[str, Any]:
    """For programs."""
    return {
        "schema": 1,
        "pairs": [
            {
                "a": pair.a,
                "b": pair.b,
                "share_a": pair.share_a,
                "share_b": pair.share_b,
                "left_out": list(pair.left_out),
                "files": [
                    {
                        "a": file.path_a,
                        "b": file.path_b,
                        "share_a": file.share_a,
                        "share_b": file.share_b,
                        "passages": [{"a": each.lines_a, "b": each.lines_b} for each in file.passages],
                    }
                    for file in pair.files
                ],
            }
            for pair in similarity.pairs
        ],
        "notes": list(similarity.notes),
    }


def _apart(tree: Tree, everyones: Hashes) -> tuple[list[Print], list[str]] | Stopped:
    """The fingerprints of a tree and notes on them, made in a process apart, within limits."""
    prints.filtering()  # imported here once, and not in the process of each tree
    ((_, made),) = apart.each([Call(tree.name, partial(prints.of_tree, tree, everyones))])
    return made


def _pair(a: Tree, b: Tree, printed: Mapping[str, Sequence[Print]]) -> Pair:
    both = a.cited_sources & b.cited_sources
    of_a, of_b = ([each for each in printed[tree.name] if each.path not in tree.cited_paths(both)] for tree in (a, b))
    files = sorted(
        (_files(of_a[first], of_b[second]) for first, second in _shown(of_a, of_b)),
        key=lambda file: (not languages.of_the_engine(file.path_a), -file.common, file.path_a, file.path_b),
    )
    share_a, share_b = _share(of_a, prints.together(of_b)), _share(of_b, prints.together(of_a))
    return Pair(a.name, b.name, share_a, share_b, tuple(files), tuple(sorted(both)))


def _shown(of_a: Sequence[Print], of_b: Sequence[Print]) -> Iterator[tuple[int, int]]:
    """The pairs of files whose passages are shown."""
    engine, alike = [languages.of_the_engine(each.path) for each in of_a], _alike(of_a, of_b)
    with_a, with_b = Counter[int](), Counter[int]()
    for pair in sorted(alike, key=lambda pair: (not engine[pair[0]], -alike[pair], pair)):
        if with_a[pair[0]] < SHOWN_BESIDE and with_b[pair[1]] < SHOWN_BESIDE:
            with_a[pair[0]] += 1
            with_b[pair[1]] += 1
            yield pair
            if with_a.total() == SHOWN_PAIRS:
                return


def _alike(of_a: Sequence[Print], of_b: Sequence[Print]) -> dict[tuple[int, int], int]:
    """How many different pieces two files have in common, those with any."""
    if not of_b:
        return {}
    hashes = np.concatenate([each.own for each in of_b])
    numbers = np.repeat(np.arange(len(of_b)), [len(each.own) for each in of_b])
    order = np.argsort(hashes, kind="stable")  # by hash, then by file
    order = order[_rank(hashes[order]) < MOST_PLACES]
    hashes, numbers = hashes[order], numbers[order]
    alike: dict[tuple[int, int], int] = {}
    for first, one in enumerate(of_a):
        _, at = _joined(one.own, hashes)
        counted = np.bincount(numbers[at])
        alike |= {(first, int(second)): int(counted[second]) for second in np.flatnonzero(counted)}
    return alike


def _share(of: Sequence[Print], others: Hashes) -> float | None:
    whole = sum(each.characters for each in of)
    return (
        sum(prints.length(prints.stretches(each.places[each.shared(others)])) for each in of) / whole if whole else None
    )


def _files(one: Print, other: Print) -> FilePair:
    common = np.intersect1d(one.own, other.own, assume_unique=True)
    in_one, in_other = (prints.stretches(each.places[each.shared(common)]) for each in (one, other))
    # Each stretch stands beside that one of the other file which holds most of its pieces.
    (hashes_one, mine), (hashes_other, theirs) = (
        _standing(one, common, in_one[0]),
        _standing(other, common, in_other[0]),
    )
    left, right = _joined(hashes_one, hashes_other)
    many = len(in_other[0])
    votes, counts = np.unique(mine[left] * many + theirs[right], return_counts=True)
    best = votes[np.lexsort((votes, -counts, votes // many))]
    best = best[np.flatnonzero(np.diff(best // many, prepend=-1))]
    passages = [
        Passage(
            one.lines(int(in_one[0][index]), int(in_one[1][index])),
            other.lines(int(in_other[0][number]), int(in_other[1][number])),
        )
        for index, number in zip(best // many, best % many, strict=True)
    ]
    return FilePair(
        path_a=one.path,
        path_b=other.path,
        share_a=prints.length(in_one) / one.characters,
        share_b=prints.length(in_other) / other.characters,
        passages=tuple(dict.fromkeys(passages)),
        common=prints.length(in_one),
    )


def _standing(file: Print, common: Hashes, starts: NDArray[np.int32]) -> tuple[Hashes, NDArray[np.int64]]:
    """Each common hash with the numbers of the stretches in which it stands, its first places only; by hash."""
    shared = file.shared(common)
    hashes, places = file.hashes[shared], file.places[shared]
    order = np.argsort(hashes, kind="stable")  # by hash, then by place
    order = order[_rank(hashes[order]) < MOST_PLACES]
    numbers = np.searchsorted(starts, places[order], side="right") - 1
    hashes = hashes[order]
    once = np.ones(len(hashes), dtype=bool)
    once[1:] = (np.diff(hashes) != 0) | (np.diff(numbers) != 0)
    return hashes[once], numbers[once]


def _rank(values: Hashes) -> NDArray[np.int64]:
    """For each of the sorted values, how many equal ones stand before it."""
    at = np.arange(len(values))
    return at - np.searchsorted(values, values)


def _joined(left: Hashes, right: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of all pairs of equal values; the right ones are sorted."""
    low, high = np.searchsorted(right, left), np.searchsorted(right, left, side="right")
    many = high - low
    behind = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    return np.repeat(np.arange(len(left)), many), np.repeat(low, many) + behind
