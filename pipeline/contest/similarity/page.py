"""The similarity of submissions for people: a table for the terminal, a page with matching passages side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import table
from pipeline.check import plain
from pipeline.contest.similarity.fingerprints import FilePair, Pair, Passage, Similarity
from pipeline.html import page
from pipeline.table import Column

NAME = "similarity.html"
COLUMNS = (
    Column("A", wrap=40),
    Column("B", wrap=40),
    Column("of A in B", right=True),
    Column("of B in A", right=True),
    Column("most alike files", wrap=60),
)


@dataclass(frozen=True)
class Beside:
    """Two passages as they stand in their files."""

    head_a: str
    text_a: str
    head_b: str
    text_b: str


def write(similarity: Similarity, path: Path) -> None:
    """Write the page of shared source to `path`. Raises ResourceError (R101, R102)."""
    page.write(path, html(similarity))


def html(similarity: Similarity) -> str:
    return page.render(
        "similarity.html",
        similarity=similarity,
        passages=lambda pair, files: _beside(similarity.texts, pair, files),
    )


def text(similarity: Similarity) -> str:
    """For the terminal: a row a pair, the most alike first."""
    lines = ["", table.text(COLUMNS, [_row(pair) for pair in similarity.pairs])]
    for pair in similarity.pairs:
        if pair.left_out:
            lines.append(
                f"  {plain(pair.a)}, {plain(pair.b)}: left out what both cite from {plain(', '.join(pair.left_out))}"
            )
    lines += [f"  note: {plain(note)}" for note in similarity.notes]
    return "\n".join([*lines, "  A high share is a reason to look, not a verdict."])


def _row(pair: Pair) -> tuple[str, ...]:
    shares = ["nothing left" if share is None else f"{share:.1%}" for share in (pair.share_a, pair.share_b)]
    files = f"{pair.files[0].path_a} and {pair.files[0].path_b}" if pair.files else ""
    return (pair.a, pair.b, *shares, files)


def _beside(texts: Mapping[tuple[str, str], str], pair: Pair, files: FilePair) -> list[Beside]:
    """Every passage once, in A's order."""
    a, b = texts[pair.a, files.path_a].split("\n"), texts[pair.b, files.path_b].split("\n")

    def one(passage: Passage) -> Beside:
        (first_a, last_a), (first_b, last_b) = passage.lines_a, passage.lines_b
        return Beside(
            f"{files.path_a}, lines {first_a} to {last_a}",
            "\n".join(a[first_a - 1 : last_a]),
            f"{files.path_b}, lines {first_b} to {last_b}",
            "\n".join(b[first_b - 1 : last_b]),
        )

    return [one(passage) for passage in files.passages]
