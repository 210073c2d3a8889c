"""`invoke similarity`: how much of each submission's source stands in another one, and where.

Fingerprints are copydetect's: code without comments and layout, names and strings made equal, cut into overlapping
pieces of `PIECE` characters (winnowing, Schleimer and others, SIGMOD 2003; with a window of one, so that all pieces
count and the result does not depend on Python's hash seed). Before two trees are held against each other, what both
cite from the same source is left out, and every piece that stands in what all teams were given.

A high share is a reason to look, never a verdict: people decide.
"""

from __future__ import annotations

import io
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from pipeline.contest.similarity import languages, source_tree
from pipeline.contest.similarity.source_tree import Tree
from pipeline.errors import EnvironmentProblem, UsageError

PIECE = 40
"""Characters of a piece. Pieces of 25 find 4 to 10 % of invoke, Jinja2 and this engine in each other, pieces of 40 at
most 1.7 %: what unrelated Python has in common is shorter than that."""

MOST_PLACES = 16
"""Of a piece in a file, and files with it: one that stands everywhere says nothing of where it comes from."""

SHOWN_PAIRS = 100
"""Pairs of files with their passages in one page, at most: those of an engine, then those with most in common."""


@dataclass(frozen=True)
class Print:
    """A file's fingerprint."""

    path: str
    text: str
    at: Mapping[int, Sequence[int]]
    """Hash of a piece to where it stands in the filtered code."""
    removed: tuple[tuple[int, int], ...]
    """Place in the filtered code, and characters that were left out up to there."""

    def stretches(self, hashes: Set[int] | None = None) -> list[tuple[int, int]]:
        """Where pieces lie, overlapping ones as one: first place and one behind the last; given hashes, only those."""
        chosen = self.at.keys() if hashes is None else self.at.keys() & hashes
        merged: list[tuple[int, int]] = []
        for place in sorted(place for each in chosen for place in self.at[each]):
            if merged and place <= merged[-1][1]:
                merged[-1] = (merged[-1][0], place + PIECE)
            else:
                merged.append((place, place + PIECE))
        return merged

    def lines(self, start: int, end: int) -> tuple[int, int]:
        """First and last line, from 1, of a stretch of the filtered code."""
        first, last = (bisect_left(self._ends, self._in_text(place)) + 1 for place in (start, end - 1))
        return first, max(first, last)

    @cached_property
    def _ends(self) -> list[int]:
        """Where the lines end in the text."""
        return [at for at, letter in enumerate(self.text) if letter == "\n"]

    def _in_text(self, place: int) -> int:
        index = bisect_right(self.removed, (place, 1 << 60)) - 1
        return place + (self.removed[index][1] if index >= 0 else 0)


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


def compare(sources: Sequence[str], given: str = "") -> Similarity:
    """`given`: a folder or tar of what all teams were given.

    Raises UsageError: U722 fewer than two, U723 two of one name; what `source_tree.read` raises; EnvironmentProblem
    (E701) without copydetect.
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
    everyones: set[int] = set()
    notes: list[str] = []
    if given:
        for each in _prints(source_tree.read(Path(given).expanduser()), set(), notes):
            everyones |= each.at.keys()
    printed = {tree.name: _prints(tree, everyones, notes) for tree in read}
    pairs = sorted(
        (_pair(a, b, printed) for a, b in combinations(read, 2)), key=lambda pair: (-pair.highest, pair.a, pair.b)
    )
    paired = {(pair.a, file.path_a) for pair in pairs for file in pair.files}
    paired |= {(pair.b, file.path_b) for pair in pairs for file in pair.files}
    texts = {(name, each.path): each.text for name in names for each in printed[name] if (name, each.path) in paired}
    notes += [
        f"{tree.name} has no THIRD_PARTY.yaml that can be read: it cites nothing" for tree in read if not tree.cited
    ]
    notes += [
        f"nothing of {name} is left to compare: no code in a known language, or all was given"
        for name in names
        if not printed[name]
    ]
    return Similarity(tuple(names), tuple(pairs), texts, tuple(notes))


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


def _prints(tree: Tree, everyones: set[int], notes: list[str]) -> list[Print]:
    """Fingerprints of all source files that have a piece of their own, as far as the bounds allow; what they do not is
    noted."""
    try:
        from copydetect import CodeFingerprint  # noqa: PLC0415 - only this task needs it
    except ImportError as error:
        raise EnvironmentProblem(
            "E701",
            "comparing sources needs copydetect",
            expected="the packages of requirements/host.lock",
            actual=error,
            fix="pip install --require-hashes -r requirements/host.lock",
        ) from error
    prints = []
    for path, text, name in languages.chosen(tree.name, tree.files, notes):
        # copydetect looks at the name for the language; the lexer drops an empty beginning, which would move all lines.
        fingerprint = CodeFingerprint(name, PIECE, 1, fp=io.StringIO(text.lstrip("\n")))
        at = {each: places for each, places in fingerprint.hash_idx.items() if each not in everyones}
        if at:
            skipped = len(text) - len(text.lstrip("\n"))
            prints.append(Print(path, text, at, tuple(_removed(fingerprint.offsets, skipped))))
    return sorted(prints, key=lambda each: each.path)


def _removed(offsets: Any, skipped: int) -> Iterator[tuple[int, int]]:
    """copydetect's offsets, never falling: behind the name of a class it has one that is too small."""
    most = 0
    for place, removed in offsets.tolist():
        most = max(most, removed)
        yield place, most + skipped


def _pair(a: Tree, b: Tree, printed: Mapping[str, Sequence[Print]]) -> Pair:
    both = a.cited_sources & b.cited_sources
    of_a, of_b = ([each for each in printed[tree.name] if each.path not in tree.cited_paths(both)] for tree in (a, b))
    holders: dict[int, list[int]] = {}
    for number, other in enumerate(of_b):
        for each in other.at:
            known = holders.setdefault(each, [])
            if len(known) < MOST_PLACES:
                known.append(number)
    alike = Counter(
        (first, second) for first, one in enumerate(of_a) for each in one.at for second in holders.get(each, ())
    )
    engine = [languages.of_the_engine(each.path) for each in of_a]
    most = sorted(alike, key=lambda pair: (not engine[pair[0]], -alike[pair], pair))[:SHOWN_PAIRS]
    files = sorted(
        (_files(of_a[first], of_b[second]) for first, second in most),
        key=lambda file: (not languages.of_the_engine(file.path_a), -file.common, file.path_a, file.path_b),
    )
    all_a = {each for one in of_a for each in one.at}
    return Pair(a.name, b.name, _share(of_a, holders.keys()), _share(of_b, all_a), tuple(files), tuple(sorted(both)))


def _share(prints: Sequence[Print], others: Set[int]) -> float | None:
    whole = sum(_length(each.stretches()) for each in prints)
    return sum(_length(each.stretches(others)) for each in prints) / whole if whole else None


def _files(one: Print, other: Print) -> FilePair:
    common = one.at.keys() & other.at.keys()
    in_one, in_other = one.stretches(common), other.stretches(common)
    starts_one, starts_other = [start for start, _ in in_one], [start for start, _ in in_other]
    # Each stretch stands beside that one of the other file which holds most of its pieces.
    votes: dict[int, Counter[int]] = {index: Counter() for index in range(len(in_one))}
    for each in common:
        theirs = {bisect_right(starts_other, place) - 1 for place in other.at[each][:MOST_PLACES]}
        for mine in {bisect_right(starts_one, place) - 1 for place in one.at[each][:MOST_PLACES]}:
            votes[mine].update(theirs)
    passages = []
    for index, counted in votes.items():
        if not counted:
            continue  # of pieces that stand in more places than are looked at
        best = min(counted, key=lambda number: (-counted[number], number))
        passages.append(Passage(one.lines(*in_one[index]), other.lines(*in_other[best])))
    return FilePair(
        path_a=one.path,
        path_b=other.path,
        share_a=_length(in_one) / _length(one.stretches()),
        share_b=_length(in_other) / _length(other.stretches()),
        passages=tuple(dict.fromkeys(passages)),
        common=_length(in_one),
    )


def _length(stretches: Sequence[tuple[int, int]]) -> int:
    return sum(end - start for start, end in stretches)
