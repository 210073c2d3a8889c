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
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

Say = Callable[[str], object]
"""Takes one line about what happens; `print` is one."""

GAP = "  "
NARROWEST = 12
"""Columns of text that a wrapped column keeps on a narrow terminal."""

LABEL = 12
"""Columns of a message's label, as PipelineError writes it."""

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
    start, width = longest + 2 * len(GAP), terminal_width()
    shown = ["", head]
    for label, value in lines:
        parts = wrapped(value, max(NARROWEST, width - start)) if width else [value]
        shown.append(f"{GAP}{_padded(label, longest)}{GAP}" + f"\n{' ' * start}".join(parts))
    return "\n".join(shown)


def terminal_width() -> int | None:
    """None where the output goes to a file or another program: then nothing is wrapped for want of room."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: str | None) -> str:
    """In a colour where the output shows them, for words outside of a table."""
    return _painted(text, colour) if has_colours() else text


def display_width(text: str) -> int:
    """Columns of a terminal: two for wide characters, none for marks that are drawn over others."""
    return sum(_character_width(character) for character in text)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at blanks, or inside of a word that is longer than that."""
    lines = [""]
    for word in text.split():
        beside = f"{lines[-1]} {word}" if lines[-1] else word
        if display_width(beside) <= width:
            lines[-1] = beside
            continue
        if lines[-1]:
            lines.append("")
        rest = word
        while display_width(rest) > width:
            lines[-1:] = [_start(rest, width), ""]
            rest = rest[len(lines[-2]) :]
        lines[-1] = rest
    return lines


def fitted(text: str) -> str:
    """Text for stdout: on a terminal, lines that are too long are broken at blanks, further lines indented below."""
    width = terminal_width()
    return text if width is None else "\n".join(_fitted(line, width) for line in text.split("\n"))


def _fitted(line: str, width: int) -> str:
    if "\033" in line or display_width(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line, width, subsequent_indent=f"{indent}{GAP}", break_on_hyphens=False, replace_whitespace=False
    )


def folded(message: object) -> str:
    """A message of several lines for stderr: on a terminal broken at blanks, each line below its text."""
    if not sys.stderr.isatty():
        return str(message)
    width = shutil.get_terminal_size().columns
    lines = []
    for line in str(message).splitlines():
        label = line[:LABEL] if re.match(r"  \w+: +\S| {12}\S", line) else ""
        first, *rest = wrapped(line[len(label) :], max(NARROWEST, width - len(label)))
        lines += [label + first, *(" " * len(label) + each for each in rest)]
    return "\n".join(lines)


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
    end = 1
    while end < len(text) and display_width(text[: end + 1]) <= width:
        end += 1
    return text[:end]
