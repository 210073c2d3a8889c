"""Tables stay aligned and within the terminal, whatever the cells hold; colours only where they are wanted."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import paths, table
from pipeline.errors import UsageError
from pipeline.table import Column

COLUMNS = [Column("team"), Column("s", right=True), Column("why", wrap=20)]
PRINTED = """
from pipeline import table
columns = [table.Column("state", colour={"ok": "green"}.get), table.Column("why", wrap=200)]
print(table.text(columns, [["ok", "word " * 40]]))
"""


def test_numbers_stand_right_and_text_left() -> None:
    assert table.lay_out(COLUMNS, [["a", "9.50", "fine"], ["longer", "10.25", ""]]) == [
        "  team        s  why",
        "  a        9.50  fine",
        "  longer  10.25",
    ]


def test_wide_characters_take_two_columns() -> None:
    _, korean, latin = table.lay_out(COLUMNS, [["때론메모리", "1", "x"], ["abcdefghij", "1", "x"]])
    assert korean.index("1") == latin.index("1") - 5
    assert table.display_width(korean) == table.display_width(latin)


def test_marks_over_a_character_take_no_column() -> None:
    assert table.display_width("e\u0301") == 1


def test_text_is_wrapped_at_blanks_below_its_own_column() -> None:
    _, row = table.lay_out(COLUMNS, [["a", "1", "two words and some more of them"]])
    assert row.splitlines() == ["  a     1  two words and some", " " * 11 + "more of them"]


@given(st.lists(st.text(), min_size=3, max_size=3), st.integers(44, 100))
def test_no_line_is_wider_than_the_terminal_where_text_may_give_way(cells: list[str], width: int) -> None:
    columns = [Column("a", wrap=500), Column("b", wrap=500), Column("c", wrap=30)]
    for line in "\n".join(table.lay_out(columns, [cells], width)).split("\n"):
        assert table.display_width(line) <= width


@given(st.text(), st.integers(2, 30))
def test_wrapping_loses_and_adds_nothing_but_blanks(text: str, width: int) -> None:
    lines = table.wrapped(text, width)
    assert "".join(lines).replace(" ", "") == "".join(text.split())
    assert all(table.display_width(line) <= width for line in lines)


@pytest.mark.parametrize("evil", ["\x1b[2J\x1b[31mgone", "a\nforged  0.001  VALID", "\u202eDILAV", "\x9b31m"])
def test_a_strangers_text_cannot_move_the_cursor_or_forge_a_line(evil: str) -> None:
    _, row = table.lay_out([Column("team"), Column("s")], [[evil, "1"]])
    assert "�" in row
    assert "\n" not in row
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", row)


def test_labels_are_aligned() -> None:
    assert table.labelled("head", [("time", "1 s"), ("a long label", "2")]) == (
        "\nhead\n  time          1 s\n  a long label  2"
    )


def printed(terminal: bool, **environment: str) -> str:
    """The output of a process, on a terminal of 60 columns or into a pipe."""
    command = [sys.executable, "-c", PRINTED]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(paths.ROOT), "COLUMNS": "60", "TERM": "xterm", **environment}
    if not terminal:
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:
        pass  # Linux says so when the other end is closed
    os.close(ours)
    assert process.wait() == 0
    return said.decode()


def test_a_terminal_gets_colours_and_its_own_width() -> None:
    said = printed(terminal=True)
    assert "\x1b[32mok" in said
    assert max(map(len, re.sub(r"\x1b\[\d+m", "", said).splitlines())) <= 60


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_none(environment: dict[str, str]) -> None:
    assert "\x1b" not in printed(terminal=True, **environment)


def test_a_pipe_gets_neither_colours_nor_a_width() -> None:
    said = printed(terminal=False)
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) > 150


@pytest.mark.parametrize(
    ("count", "elapsed_s", "words"),
    [
        (12345, 1.0, "12,345 a second"),
        (99, 10.0, "9.9 a second"),
        (1, 3.0, "0.33 a second"),
        (1, 40.0, "1.5 a minute"),
        (0, 1.0, ""),
        (5, None, ""),
    ],
)
def test_a_pace_is_never_rounded_to_nothing(count: int, elapsed_s: float | None, words: str) -> None:
    assert table.per_second(count, elapsed_s) == words


def test_a_table_too_wide_for_the_terminal_is_printed_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "terminal_width", lambda: 40)
    columns = [Column("set"), Column("terms", wrap=20), *(Column(f"number {i}", right=True) for i in range(4))]
    row = ["a-name-that-is-never-broken", "some terms of use", *(f"{10**6 + i:,}" for i in range(4))]
    lines = table.text(columns, [row, row]).splitlines()
    assert max(map(table.display_width, lines)) <= 40
    assert lines[0] == "  set       a-name-that-is-never-broken"
    assert "  number 3  1,000,003" in lines
    assert lines.count("") == 1


def test_messages_and_labels_are_folded_on_a_narrow_terminal_and_lose_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    long = " ".join(["several", "words", "of", "advice"] * 4)
    error = UsageError("U999", long, where=f"runs/one\n{' ' * 12}runs/two", fix=long)
    for shown, whole in (
        (table.fitted(error, sys.stderr), str(error)),
        (table.labelled("head", [("time", long)]), f"head time {long}"),
        (table.fitted(f"  short\n  {long}"), f"short {long}"),
    ):
        assert shown.split() == whole.split()
        assert max(map(len, shown.splitlines())) <= 40
    lines = table.fitted(error, sys.stderr).splitlines()
    assert "            runs/two" in lines
    assert lines[-1].startswith(" " * 12)


@pytest.mark.parametrize(
    ("line", "below"),
    [
        ("next: WORDS", 6),
        ("R301 WORDS", 5),
        ("  device    WORDS", 12),
        ("  a label   WORDS", 12),
        ("  때론메모리  WORDS", 14),
        ("  WORDS", 4),
        (" " * 12 + "WORDS", 12),
        ("  \x1b[32mok\x1b[0m    WORDS", 8),
    ],
)
@pytest.mark.parametrize(
    "words", ["words of advice " * 8, "때론 메모리가 모자라 " * 6, "때론메모리가모자라" * 8, "/a/path" * 20]
)
def test_a_line_is_folded_below_its_text_by_columns_without_loss(
    line: str, below: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "terminal_width", lambda to=None: 60)
    whole = line.replace("WORDS", words.strip())
    first, *rest = table.fitted(whole).split("\n")
    assert rest
    assert max(map(table.display_width, [first, *rest])) <= 60
    assert all(each[:below] == " " * below and each[below] != " " for each in rest)
    assert "".join([first, *rest]).replace(" ", "") == whole.replace(" ", "")


@given(st.text(st.sampled_from("ab 때\u0301"), max_size=200), st.integers(30, 90))
def test_fitting_loses_and_adds_nothing_but_blanks(text: str, width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "terminal_width", lambda to=None: width)
        shown = table.fitted(text)
    assert all(table.display_width(line) <= width for line in shown.split("\n"))
    assert shown.replace("\n", "").replace(" ", "") == text.replace(" ", "")
