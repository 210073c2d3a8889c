"""`THIRD_PARTY.yaml`: what a source tree has from others, and whether it says so of everything.

The contest disqualifies code of others that is not cited. Four things can be seen by a program: what is imported, what
the locks install, files that carry somebody's licence header, and papers that the code itself names. Each of them must
stand in the file. A copied idea without a word about it no program sees.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Annotated

import yaml
from packaging.utils import canonicalize_name
from pydantic import Field, ValidationError

from pipeline import requirements_lock, schemas, settings
from pipeline.contest.source import bounds
from pipeline.schemas import Strict

NAME = "THIRD_PARTY.yaml"
Text = Annotated[str, Field(min_length=1)]


class Package(Strict):
    name: Text
    """As on the package index."""
    licence: Text
    source: Text
    use: Text
    imports: tuple[str, ...] = ()
    """Top-level modules, where our code imports it."""


class Idea(Strict):
    title: Text
    source: Text
    where: Text
    use: Text


class Work(Strict):
    """A model or a data set."""

    name: Text
    licence: Text
    source: Text
    use: Text
    configs: tuple[str, ...]
    """Names, perhaps with `*`, of the files that describe it."""


class Copied(Strict):
    path: Text
    licence: Text
    source: Text


class ThirdParty(Strict):
    code: tuple[Copied, ...]
    ideas: tuple[Idea, ...]
    models: tuple[Work, ...]
    data: tuple[Work, ...]
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Uncited:
    """One thing that is used and does not stand in the file."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.what} ({self.where})"


UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Errors of Python's parser for a text that is no source; the last two of one that is nested beyond reason."""


def parse(content: bytes) -> ThirdParty:
    """Raises ValueError for a file that is not one.

    Without aliases: by those a few lines become as large as one likes ("billion laughs").
    """
    bounds.check("YAML", content)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in settings.yaml_events(content)):
            raise ValueError("it uses aliases")
        return ThirdParty.model_validate(settings.read_yaml(content))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(schemas.words(error) if isinstance(error, ValidationError) else str(error)) from error


def uncited(source: Mapping[str, bytes], cited: ThirdParty) -> list[Uncited]:
    """Works of others that the source tree uses without citing them; empty where all is well."""
    return [
        *_imports(source, {name for package in cited.packages for name in package.imports}),
        *_locked(source, {canonicalize_name(package.name) for package in cited.packages}),
        *_headers(source, {each.path for each in cited.code}),
        *_papers(source, {number for idea in cited.ideas for number in _PAPER.findall(idea.source)}),
        *_configs(source, "configs/models", cited.models),
        *_configs(source, "configs/datasets", cited.data),
    ]


def matches(name: str, work: Work) -> bool:
    """Whether a file of this name under `configs/` is part of that work."""
    return any(fnmatch(name, pattern) for pattern in work.configs)


_PAPER = re.compile(r"arXiv[:\s#*/]*(\d{4}\.\d{4,5})", re.IGNORECASE)
_HEADER = re.compile(
    rb"SPDX-License-Identifier:\s*\S|\bCopyright\s+(?:\(c\)\s*)?\d{4}|All rights reserved", re.IGNORECASE
)
_HEAD_BYTES = 2000
"""A licence stands at a file's head; further down it is text about licences."""
_CODE = {".py", ".cu", ".cuh", ".c", ".cc", ".cpp", ".h", ".hpp", ".sh", ".js", ".ts", ".rs", ".go"}


def _imports(source: Mapping[str, bytes], known: set[str]) -> Iterator[Uncited]:
    paths = [PurePosixPath(path) for path in source if path.endswith(".py")]
    ours = {part for path in paths for part in (path.stem, *path.parts[:-1])}
    seen: set[str] = set()
    for path in sorted(map(str, paths)):
        try:
            bounds.check("Python", source[path])
            tree = ast.parse(source[path])
        except UNREADABLE:
            yield Uncited("a Python file that cannot be read", path)
            continue
        for name in _imported(tree, dynamic=_may_call(source[path])):
            if name not in seen | ours | known | sys.stdlib_module_names:
                seen.add(name)
                yield Uncited(f"import {name}", path)


def _may_call(content: bytes) -> bool:
    """Whether a source may have an import that is a call: it has the function's name, or may have it in other letters
    that Python takes for these (NFKC), or in another encoding."""
    if b"import_module" in content or b"__import__" in content or b"coding" in content[: _second_line(content)]:
        return True
    letters = () if content.isascii() else set(content.decode("utf-8", "replace"))
    return any(f"a{letter}".isidentifier() for letter in letters if not letter.isascii())


def _second_line(content: bytes) -> int:
    """Where the lines end in which a source may name its encoding."""
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


def _locked(source: Mapping[str, bytes], known: set[str]) -> Iterator[Uncited]:
    for path in sorted(source):
        if re.fullmatch(r"requirements/[^/]+\.(?:lock|txt)", path):
            try:
                bounds.check("a lock", source[path])
            except ValueError as error:
                yield Uncited(f"a lock that is not read: {error}", path)
                continue
            names = requirements_lock.names(source[path].decode("utf-8", "replace"))
            yield from (Uncited(f"package {name}", path) for name in sorted(names - known))


def _headers(source: Mapping[str, bytes], known: set[str]) -> Iterator[Uncited]:
    for path in sorted(source):
        foreign = PurePosixPath(path).suffix in _CODE and _HEADER.search(source[path][:_HEAD_BYTES])
        if foreign and path not in known:
            yield Uncited("a file with somebody's licence header", path)
    yield from (Uncited("a cited file that is not there", path) for path in sorted(known - source.keys()))


def _papers(source: Mapping[str, bytes], known: set[str]) -> Iterator[Uncited]:
    seen: set[str] = set()
    for path in sorted(source):
        if PurePosixPath(path).suffix in _CODE:
            for number in _PAPER.findall(source[path].decode("utf-8", "replace")):
                if number not in seen | known:
                    seen.add(number)
                    yield Uncited(f"arXiv {number}", path)


def _configs(source: Mapping[str, bytes], folder: str, works: tuple[Work, ...]) -> Iterator[Uncited]:
    for path in sorted(source):
        name = PurePosixPath(path)
        ours = str(name.parent) == folder and name.suffix == ".yaml"
        if ours and not any(matches(name.stem, work) for work in works):
            yield Uncited(name.stem, path)
