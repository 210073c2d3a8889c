"""The top-level modules that a Python source imports; remembered by content where the source is one's own."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.contest.source import bounds
from pipeline.files import remember, remembered, sha256_of

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Errors of Python's parser for a text that is no source; the last two of one that is nested beyond reason."""


class Imports:
    """A cached parser of import statements. `memory`: a file of one's own that keeps what was parsed, by the hash of
    each content, of this
    module and the Python that parsed it; None for a stranger's source, which is parsed every time."""

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._parser = f"{sha256_of(Path(__file__))} {sys.version}" if memory else ""
        kept = remembered(memory) if memory else {}
        of_parser = kept.get(self._parser)
        self._kept: dict[str, object] = of_parser if isinstance(of_parser, dict) else {}
        self._seen: dict[str, list[str] | None] = {}

    def of(self, content: bytes) -> list[str] | None:
        """Top-level modules that this source imports; None for a file that cannot be parsed."""
        if self._memory is None:
            return _names(content)
        key = hashlib.sha256(content).hexdigest()
        if key not in self._seen:
            kept = self._kept.get(key, "not there")
            whole = kept is None or (isinstance(kept, list) and all(isinstance(name, str) for name in kept))
            self._seen[key] = kept if whole else _names(content)  # type: ignore[assignment]
        return self._seen[key]

    def keep(self) -> None:
        """Remember what was asked about since, and forget all else."""
        if self._memory is not None and self._seen != self._kept:
            remember(self._memory, {self._parser: self._seen})


def _names(content: bytes) -> list[str] | None:
    try:
        bounds.check("Python", content)
        tree = ast.parse(content)
    except UNREADABLE:
        return None
    return list(dict.fromkeys(_imported(tree, dynamic=_may_call(content))))


def _may_call(content: bytes) -> bool:
    """Whether a source may have an import that is a call: it has the function's name, or may have it in other letters
    that Python takes for these (NFKC), or in another encoding."""
    if b"import_module" in content or b"__import__" in content or b"coding" in content[: _second_line(content)]:
        return True
    letters = () if content.isascii() else set(content.decode("utf-8", "replace"))
    return any(f"a{letter}".isidentifier() for letter in letters if not letter.isascii())


def _second_line(content: bytes) -> int:
    """The end of the lines in which a source may name its encoding."""
    return max(0, content.find(b"\n", content.find(b"\n") + 1))


def _imported(tree: ast.AST, dynamic: bool) -> Iterator[str]:
    """Top-level names; with `dynamic`, those of `importlib.import_module("x")` too, which may stand anywhere."""
    for node in ast.walk(tree) if dynamic else _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and node.args and _name(node.func) in {"import_module", "__import__"}:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and not first.value.startswith("."):
                yield first.value.split(".")[0]


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements, without what stands in them: imports are statements."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, part, ())
            todo += inner if isinstance(inner, list) else ()


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
