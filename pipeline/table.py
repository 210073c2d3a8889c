"""Lines for the terminal: tables and labelled lines, aligned also with wide characters, and no wider than it.

Cells may come from strangers (a team's name, a file's path): control characters, with which text could move the cursor
or forge lines, are shown as �. Colours appear only on a terminal that shows them, and never with NO_COLOR
(no-color.org).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TextIO

Say = Callable[[str], object]
"""Takes one line about what happens; `print` is one."""

GAP = "  "
NARROWEST = 12
"""Columns of text that a wrapped column keeps on a narrow terminal."""

LABELLED = re.compile(r"\s*(?:\w[\w-]*: +|\S(?:.*?\S)? {2,}|[A-Z]\d{3} )?")
"""The label that a line begins with: a word with a colon, whatever stands before two blanks, or an error's code."""

BELOW_A_LABEL = 9
"""A line that is indented by so many columns stands below a label's text already, and stays in its column."""

PAINT = "\033\\[\\d+m"
COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "faint": 2}


@dataclass(frozen=True)
class Column:
    title: str = ""
    right: bool = False
    """Aligned to the right, as numbers are."""
    wrap: int | None = None
    """The width at which text is wrapped, sooner on a narrow terminal; None: one line, whatever its length."""
    colour: Callable[[str], str | None] = lambda cell: None
    """The colour of a cell, by its text."""


def lay_out(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None, colours: bool = False
) -> list[str]:
    """The head's line and then a text a row, of several lines where a cell is wrapped; all indented.

    `width` is the terminal's: where the table is wider, columns that may be wrapped give way, the widest first.
    """
    cells = [[_harmless(cell) for cell in row] for row in rows]
    widths = _widths(columns, cells, width)
    head = _row(columns, widths, [column.title for column in columns], colours=False)
    return [head, *(_row(columns, widths, row, colours) for row in cells)]


def text(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """The table as it is printed here and now; where the terminal is too narrow for it, a few labelled lines a row."""
    width, colours = terminal_width(), has_colours()
    cells = [[_harmless(cell) for cell in row] for row in rows]
    if width is not None and sum(_widths(columns, cells, width)) + len(GAP) * len(columns) > width:
        return "\n\n".join(_stacked(columns, row, width, colours) for row in cells)
    return "\n".join(lay_out(columns, rows, width, colours))


def per_second(count: int, elapsed_s: float | None) -> str:
    """A pace in words, never rounded to nothing; empty where there is none."""
    if not count or not elapsed_s:
        return ""
    pace = count / elapsed_s
    return (
        f"{pace:,.0f} a second"
        if pace >= 10
        else f"{pace:.2g} a second"
        if pace >= 0.1
        else f"{pace * 60:.2g} a minute"
    )


def labelled(head: str, lines: Sequence[tuple[str, str]]) -> str:
    """A heading, and below it aligned labels with what they stand for, folded on a terminal that is narrower."""
    longest = max([7, *(display_width(label) for label, _ in lines)])
    width = terminal_width()
    shown = ["", *folded(head, width, hang=len(GAP))]
    for label, value in lines:
        shown += folded(value, width, f"{GAP}{_padded(label, longest)}{GAP}")
    return "\n".join(shown)


def terminal_width(stream: TextIO | None = None) -> int | None:
    """None where stdout, or another stream, goes to a file or a program: then nothing is wrapped for want of room."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: str | None) -> str:
    """In a colour where the output shows them, for words outside of a table."""
    return _painted(text, colour) if has_colours() else text


def display_width(text: str) -> int:
    """Columns of a terminal: two for wide characters, none for marks that are drawn over others, nor for a colour."""
    return sum(_character_width(character) for character in re.sub(PAINT, "", text))


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at blanks, or inside of a word that is longer than that."""
    return _wrapped(text, width, width)


def _wrapped(text: str, first: int, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        beside = f"{lines[-1]} {word}" if lines[-1] else word
        if display_width(beside) <= (width if lines[1:] else first):
            lines[-1] = beside
            continue
        if lines[-1]:
            lines.append("")
        rest = word
        while display_width(rest) > (room := width if lines[1:] else first):
            lines[-1:] = [_start(rest, room), ""]
            rest = rest[len(lines[-2]) :]
        lines[-1] = rest
    return lines


def fitted(text: object, to: TextIO | None = None) -> str:
    """Text for stdout, or another stream: on a terminal, lines that are too long are folded below what their label
    stands before, or two columns deeper than they begin."""
    width = terminal_width(to)
    if width is None:
        return str(text)
    return "\n".join(part for line in str(text).split("\n") for part in _fitted(line, width))


def _fitted(line: str, width: int) -> list[str]:
    if display_width(line) <= width:
        return [line]
    head = next(LABELLED.finditer(line)).group()
    if head.strip() and display_width(head) <= width // 2:
        return folded(line[len(head) :], width, head)
    indent = line[: len(line) - len(line.lstrip())]
    below = len(indent) if len(indent) >= BELOW_A_LABEL else len(indent) + len(GAP)
    return folded(line, width, indent, hang=below)


def folded(text: str, width: int | None, head: str = "", hang: int | None = None) -> list[str]:
    """Lines of at most `width` columns: the head as it is, then the text's words, broken at blanks, in further lines
    below their beginning or indented by `hang`; one line where there is no width."""
    if width is None:
        return [head + text]
    hang = display_width(head) if hang is None else hang
    room = (max(NARROWEST, width - display_width(head)), max(NARROWEST, width - hang))
    first, *rest = _wrapped(text, *room)
    return [head + first, *(" " * hang + each for each in rest)]


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    natural = []
    for index, column in enumerate(columns):
        longest = max((display_width(row[index]) for row in rows), default=0)
        longest = longest if column.wrap is None else min(longest, column.wrap)
        natural.append(max(longest, display_width(column.title)))
    soft = [index for index, column in enumerate(columns) if column.wrap is not None]
    while width is not None and soft and sum(natural) + len(GAP) * len(columns) > width:
        widest = max(soft, key=lambda index: natural[index])
        if natural[widest] <= max(NARROWEST, display_width(columns[widest].title)):
            break
        natural[widest] -= 1
    return natural


def _row(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str], colours: bool) -> str:
    parts = [
        [cell] if column.wrap is None else wrapped(cell, width)
        for column, width, cell in zip(columns, widths, cells, strict=True)
    ]
    shades = [column.colour(cell) if colours else None for column, cell in zip(columns, cells, strict=True)]
    lines = []
    for line in zip_longest(*parts, fillvalue=""):
        padded = [_padded(part, width, column.right) for part, width, column in zip(line, widths, columns, strict=True)]
        last = max((index for index, part in enumerate(line) if part), default=0)
        padded[last] = padded[last].rstrip()
        shown = padded[: last + 1]
        lines.append(GAP + GAP.join(_painted(part, shade) for part, shade in zip(shown, shades, strict=False)))
    return "\n".join(lines)


def _stacked(columns: Sequence[Column], cells: Sequence[str], width: int, colours: bool) -> str:
    """A row as lines: each cell that holds something behind its column's title."""
    longest = max(display_width(column.title) for column in columns)
    lines = []
    for column, cell in zip(columns, cells, strict=True):
        parts = wrapped(cell, max(NARROWEST, width - longest - 2 * len(GAP))) if cell else []
        shade = column.colour(cell) if colours else None
        for title, part in zip_longest([column.title][: len(parts)], parts, fillvalue=""):
            lines.append(f"{GAP}{_padded(title, longest)}{GAP}{_painted(part, shade)}")
    return "\n".join(lines)


def _padded(text: str, width: int, right: bool = False) -> str:
    blanks = " " * (width - display_width(text))
    return blanks + text if right else text + blanks


def _painted(text: str, colour: str | None) -> str:
    return text if colour is None else f"\033[{COLOURS[colour]}m{text}\033[0m"


def _harmless(text: str) -> str:
    return "".join("�" if unicodedata.category(character) in {"Cc", "Cf", "Cs"} else character for character in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _start(text: str, width: int) -> str:
    """The longest beginning of a text that fits, one character at least."""
    end = taken = 0
    for each in re.finditer(f"{PAINT}|.", text, re.DOTALL):
        taken += display_width(each.group())
        if end and taken > width:
            break
        end = each.end()
    return text[:end]
