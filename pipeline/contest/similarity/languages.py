"""Which files of a tree are code that can be compared, and their text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from pipeline.check import listed

MOST_FILE_CHARACTERS, MOST_TREE_CHARACTERS = 256 << 10, 6 << 20
"""What of a file, and of a tree, is compared: time and memory grow with it. Nobody writes as much by hand."""

PYTHON = (".py", ".pyw", ".pyi", ".ipynb")
LANGUAGES = (
    *PYTHON,
    ".pyx",
    ".cu",
    ".cuh",
    ".c",
    ".cc",
    ".cpp",
    ".cxx",
    ".h",
    ".hpp",
    ".js",
    ".ts",
    ".rs",
    ".go",
    ".sh",
)


def chosen(name: str, files: Mapping[str, bytes], notes: list[str]) -> Iterator[tuple[str, str, str]]:
    """Path, text, and a name that tells the language, of the files of the tree `name` that are compared: an engine's
    first, then the smaller ones, so that padding pushes nothing out. What is beyond the bounds is noted."""
    left, cut, left_out = MOST_TREE_CHARACTERS, [], []
    for path in sorted(files, key=lambda path: (not of_the_engine(path), len(files[path]), path)):
        text, language = code(path, files[path])
        if not text.strip():
            continue
        if len(text) > MOST_FILE_CHARACTERS:
            text = text[:MOST_FILE_CHARACTERS]
            cut.append(path)
        if len(text) > left:
            left_out.append(path)
            continue
        left -= len(text)
        yield path, text, language
    if cut:
        notes.append(f"{name}: only the first {MOST_FILE_CHARACTERS:,} characters of {listed(sorted(cut))}")
    if left_out:
        notes.append(f"{name}: too much code to compare, without {listed(sorted(left_out))}")


def of_the_engine(path: str) -> bool:
    """Whether the file belongs to the engine, where a copy is worth most."""
    return "engine" in PurePosixPath(path.casefold()).parts


def code(path: str, content: bytes) -> tuple[str, str]:
    """The text, empty where it is no code, and a file name that tells the language.

    Of a notebook its cells of code; all of it where it only looks like one."""
    ending = PurePosixPath(path).suffix.casefold()
    if ending not in LANGUAGES:
        return "", path
    text = content.decode("utf-8", "replace").replace("\r\n", "\n")
    if ending == ".ipynb":
        text = _cells(text)
    return text, "a.py" if ending in PYTHON else f"a{ending}"


def _cells(text: str) -> str:
    try:
        cells = [each["source"] for each in json.loads(text)["cells"] if each["cell_type"] == "code"]
        return "\n".join("".join(cell) for cell in cells)
    except (ValueError, KeyError, TypeError, RecursionError):
        return text
