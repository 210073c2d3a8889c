"""Fingerprints of source files: every piece of code, with names and strings made equal, and where it stands.

Kept as arrays, eight bytes for a piece's hash and four for its place: a Python object for each would take a hundred.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contest.similarity import languages
from pipeline.contest.similarity.source_tree import Tree
from pipeline.errors import EnvironmentProblem

PIECE = 40
"""Characters of a piece. Pieces of 25 find 4 to 10 % of invoke, Jinja2 and this engine in each other, pieces of 40 at
most 1.7 %: what unrelated Python has in common is shorter than that."""

Hashes = NDArray[np.int64]
Places = NDArray[np.int32]
Stretches = tuple[Places, Places]
"""First places, and places one behind the last, of stretches of code, in order and apart."""


@dataclass(frozen=True)
class Print:
    """A file's fingerprint."""

    path: str
    text: str
    hashes: Hashes
    """[pieces], in the order of their places."""
    places: Places
    """[pieces], in the filtered code."""
    removed: tuple[Places, Places]
    """Places in the filtered code, and characters that were left out up to there."""

    @cached_property
    def own(self) -> Hashes:
        """Each hash once, sorted."""
        return np.unique(self.hashes)

    @cached_property
    def characters(self) -> int:
        """The number of characters of filtered code that the pieces cover."""
        return length(stretches(self.places))

    def shared(self, others: Hashes) -> NDArray[np.bool_]:
        """[pieces]: which of them are among the others, which are sorted."""
        return among(self.hashes, others)

    def lines(self, start: int, end: int) -> tuple[int, int]:
        """First and last line, from 1, of a stretch of the filtered code."""
        first, last = (bisect_left(self._ends, self._in_text(place)) + 1 for place in (start, end - 1))
        return first, max(first, last)

    @cached_property
    def _ends(self) -> list[int]:
        """Where the lines end in the text."""
        return [at for at, letter in enumerate(self.text) if letter == "\n"]

    def _in_text(self, place: int) -> int:
        index = bisect_right(self.removed[0], place) - 1
        return place + (int(self.removed[1][index]) if index >= 0 else 0)


def stretches(places: Places) -> Stretches:
    """Where pieces lie, overlapping and touching ones as one; the places are in order."""
    apart = np.flatnonzero(np.diff(places) > PIECE)
    firsts = np.concatenate([places[:1], places[apart + 1]])
    return firsts, np.concatenate([places[apart], places[-1:]]) + np.int32(PIECE)


def length(of: Stretches) -> int:
    return int((of[1] - of[0]).sum())


def among(hashes: Hashes, others: Hashes) -> NDArray[np.bool_]:
    """[hashes]: which of them are among the others, which are sorted, each once."""
    if not len(others):
        return np.zeros(len(hashes), dtype=bool)
    return others[np.minimum(np.searchsorted(others, hashes), len(others) - 1)] == hashes


def filtering() -> Callable[[str, str], tuple[str, Any]]:
    """copydetect's filter of code; a second to import. Raises EnvironmentProblem (E701)."""
    try:
        from copydetect.utils import filter_code  # noqa: PLC0415 - only this task needs it
    except ImportError as error:
        raise EnvironmentProblem(
            "E701",
            "comparing sources needs copydetect",
            expected="the packages of requirements/host.lock",
            actual=error,
            fix="pip install --require-hashes -r requirements/host.lock",
        ) from error
    return filter_code


def of_tree(tree: Tree, everyones: Hashes) -> tuple[list[Print], list[str]]:
    """Fingerprints of all source files that have a piece of their own, by path, as far as the bounds allow; and notes
    on what they do not. Raises EnvironmentProblem (E701) without copydetect."""
    filter_code = filtering()
    prints: list[Print] = []
    notes: list[str] = []
    for path, text, name in languages.chosen(tree.name, tree.files, notes):
        # copydetect looks at the name for the language; the lexer drops an empty beginning, which would move all lines.
        code, offsets = filter_code(text.lstrip("\n"), name)
        hashes = np.array([hash(code[at : at + PIECE]) for at in range(len(code) - PIECE + 1)], dtype=np.int64)
        places = np.flatnonzero(~among(hashes, everyones)).astype(np.int32)
        if len(places):
            removed = _removed(offsets, len(text) - len(text.lstrip("\n")))
            prints.append(Print(path, text, hashes[places], places, removed))
    return sorted(prints, key=lambda each: each.path), notes


def _removed(offsets: Any, skipped: int) -> tuple[Places, Places]:
    """copydetect's offsets, never falling: behind the name of a class it has one that is too small."""
    if not len(offsets):
        return np.zeros(1, np.int32), np.full(1, skipped, np.int32)
    return offsets[:, 0].astype(np.int32), (np.maximum.accumulate(offsets[:, 1]) + skipped).astype(np.int32)


def together(prints: Sequence[Print]) -> Hashes:
    """The hashes of all files, each once, sorted."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *(each.own for each in prints)]))
