"""`THIRD_PARTY.yaml`: what a source tree has from others, and whether it says so of everything.

The contest disqualifies code of others that is not cited. Four things can be seen by a program: what is imported, what
the locks install, files that carry somebody's licence header, and papers that the code itself names. Each of them must
stand in the file. A copied idea without a word about it no program sees.
"""

from __future__ import annotations

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
from pipeline.contest.source.imports import Imports
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


def parse(content: bytes) -> ThirdParty:
    """The packages and sources that a team cites.

    Raises ValueError for a file that is not one.

    Without aliases: by those a few lines become as large as one likes ("billion laughs").
    """
    bounds.check("YAML", content)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in settings.yaml_events(content)):
            raise ValueError("it uses aliases")
        return ThirdParty.model_validate(settings.read_yaml(content))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(schemas.words(error) if isinstance(error, ValidationError) else str(error)) from error


def uncited(source: Mapping[str, bytes], cited: ThirdParty, imports: Imports | None = None) -> list[Uncited]:
    """Works of others that the source tree uses without citing them; empty where all is well. `imports` may remember
    what a source of one's own imports."""
    return [
        *_imports(source, {name for package in cited.packages for name in package.imports}, imports or Imports()),
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


def _imports(source: Mapping[str, bytes], known: set[str], imports: Imports) -> Iterator[Uncited]:
    paths = [PurePosixPath(path) for path in source if path.endswith(".py")]
    ours = {part for path in paths for part in (path.stem, *path.parts[:-1])}
    seen: set[str] = set()
    for path in sorted(map(str, paths)):
        names = imports.of(source[path])
        if names is None:
            yield Uncited("a Python file that cannot be read", path)
        for name in names or ():
            if name not in seen | ours | known | sys.stdlib_module_names:
                seen.add(name)
                yield Uncited(f"import {name}", path)


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
