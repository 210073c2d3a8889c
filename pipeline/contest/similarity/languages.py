"""Which files of a tree are code that can be compared, and their text."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

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
