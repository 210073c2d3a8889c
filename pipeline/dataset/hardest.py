"""The rows of a data set that are hardest on memory and on the scheduler, answered before the whole set is.

The contest's private board ended with 14 teams out of memory on one long item. So the longest prompts, the prompts that
list the most choices (the widest tries of drafts) and the rows with the longest answers come first, as a file and a run
of their own. A private set may be like none of the public ones: chats of many turns and texts in other scripts, which
are several tokens a character, have kinds of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.dataset import fetch, records
from pipeline.dataset.records import Record
from pipeline.files import write_atomically
from pipeline.table import Say
from pipeline.text import candidates as choices

EACH = 10
"""Rows of each kind."""

KINDS: dict[str, Callable[[Record], int]] = {
    "longest prompt": lambda row: sum(len(message["content"].encode()) for message in row.messages),
    "most turns": lambda row: len(row.messages),
    "least ASCII": lambda row: sum(character > "\x7f" for message in row.messages for character in message["content"]),
    "widest branching": lambda row: len(choices.listed(row.messages[-1]["content"])),
    "longest answer": lambda row: len((row.answer or "").encode()),
}
"""By bytes of UTF-8, which follow a tokenizer's tokens better than characters do: the order is what counts, and it
needs no tokenizer."""


@dataclass(frozen=True)
class Hardest:
    path: Path
    """The chosen rows, as a data file."""
    chosen: dict[int, tuple[str, ...]]
    """Row of the set to why it was chosen, in the order of the file: the longest prompt first."""


def prepare(dataset: str, say: Say = print) -> Hardest:
    """Choose rows and write them to `data()/sets/NAME.stress.jsonl`. Raises what finding and reading the set raises,
    and ResourceError (R101, R102)."""
    source = fetch.resolve(dataset, say)
    rows = records.read(source)
    chosen = choose(rows)
    path = paths.data() / "sets" / f"{source.stem}.stress.jsonl"
    with write_atomically(path) as file:
        for index in chosen:
            file.write(records.write_line(rows[index].messages, rows[index].answer).encode())
    return Hardest(path, chosen)


def choose(rows: Sequence[Record], each: int = EACH) -> dict[int, tuple[str, ...]]:
    """The `each` most extreme rows of every kind; where a kind is the same for all rows, or nothing, none of it."""
    reasons: dict[int, list[str]] = {}
    for kind, size in KINDS.items():
        sizes = [size(row) for row in rows]
        if min(sizes) == max(sizes):
            continue
        for index in sorted(range(len(rows)), key=lambda index: -sizes[index])[:each]:
            reasons.setdefault(index, []).append(kind)
    if not reasons:
        reasons = {index: ["as long as all"] for index in range(min(each, len(rows)))}
    length = KINDS["longest prompt"]
    return {index: tuple(reasons[index]) for index in sorted(reasons, key=lambda index: -length(rows[index]))}


def text(hardest: Hardest) -> str:
    """For the terminal: how many rows of each kind, and which come first."""
    kinds = [kind for reasons in hardest.chosen.values() for kind in reasons]
    lines = [f"{len(hardest.chosen)} rows, in {paths.shown(hardest.path)}"]
    for kind in dict.fromkeys(kinds):
        rows = [str(index) for index, reasons in hardest.chosen.items() if kind in reasons]
        lines.append(f"  {kind:<18}rows {', '.join(rows)}")
    return "\n".join(lines)
