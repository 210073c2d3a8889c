"""`outputs.jsonl` read again: its whole rows, the form of one prompt's output, and one hash for all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import files

NAME = "outputs.jsonl"
ANSWERS = "answers.jsonl"


def read_outputs(folder: Path) -> list[dict[str, Any]]:
    """The whole rows of a run's outputs (index, output, token_ids), in file order of the data set. Raises OSError."""
    rows, _ = whole_rows(folder / NAME)
    return [rows[index] for index in sorted(rows)]


def whole_rows(path: Path) -> tuple[dict[int, dict[str, Any]], int]:
    """Rows by index up to the first line that is not whole, and how many bytes those lines are. Raises OSError."""
    rows: dict[int, dict[str, Any]] = {}
    whole_bytes = 0
    # Bytes, and not splitlines(): U+2028 and its like are ordinary characters inside a JSON string.
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            row = json.loads(line)
            rows[row["index"]] = {key: row[key] for key in ("index", "output", "token_ids")}
        except (ValueError, KeyError, TypeError):
            break  # after a power cut a file may hold zeros
        whole_bytes += len(line) + 1
    return rows, whole_bytes


def write_answers(folder: Path) -> None:
    """`answers.jsonl` of a finished run: its outputs in file order as pipe() returned them, one a line, nothing else,
    for whoever scores them. Raises ResourceError (R101, R102)."""
    lines = "".join(json.dumps(row["output"], ensure_ascii=False) + "\n" for row in read_outputs(folder))
    with files.write_atomically(folder / ANSWERS, durable=False) as file:
        file.write(lines.encode())


def is_output(value: object) -> bool:
    """Whether this is one prompt's output as pipe() returns it with return_full_text=False."""
    return (
        isinstance(value, list)
        and len(value) == 1
        and isinstance(value[0], dict)
        and isinstance(value[0].get("generated_text"), str)
    )


def outputs_digest(outputs: Sequence[Any]) -> str:
    """The sha256 of a section's outputs in file order, in hexadecimal: equal for sections that agree."""
    return hashlib.sha256(json.dumps(outputs, ensure_ascii=False).encode()).hexdigest()
