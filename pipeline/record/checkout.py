"""The project's files around the package: which are its source, and which of those differ from the commit.

What is the source is decided here, once, with git and without it. A folder is a checkout of git only where git tracks
the project in it: an archive that somebody unpacked below a repository of their own is not.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from pipeline.process import git

MADE_HERE = (
    *("/.venv*/", "/models/", "/runs/", "/screenshots/", "/dist/", "/team.yaml", "/data/sets/", "/data/downloads/"),
    "/data/devices/",
    *("/.carry/", "/pipeline/engine/kernels/built/", "__pycache__/", "*.pyc", ".pytest_cache/", ".hypothesis/"),
    *(".ruff_cache/", "*.egg-info/", "/build/", ".mypy_cache/"),
)
"""The lines of .gitignore, which decide where there is no git."""

FOLDERS = ("pipeline", "configs", "data/standin", "requirements")
"""Everything in them may take part in a run."""
FILES = ("Makefile", "Dockerfile.l4t", "pyproject.toml", "setup.py", "invoke.json", "invoke.yaml", "invoke.yml")
"""So do these; the last three are settings of invoke."""
CODE = (".py", ".pth", ".so")
"""And what Python would import from the checkout, wherever it lies but in APART."""
APART = ("tests", "benchmarks", "tools", "docs", ".ci", ".github")


def is_tracked(checkout: Path) -> bool:
    """Whether git tracks this folder: it is the top of a repository, or its project file is one of a repository's."""
    if git(checkout, "rev-parse", "--show-prefix") == b"\n":
        return True
    return git(checkout, "ls-files", "--error-unmatch", "pyproject.toml") is not None


def commit(checkout: Path) -> str | None:
    """The commit that is checked out; None where git does not track the folder."""
    head = git(checkout, "rev-parse", "HEAD") if is_tracked(checkout) else None
    return None if head is None else head.decode().strip()


def changed(checkout: Path, *, documents: bool = False) -> list[str] | None:
    """Files that may take part in a run and that are not as the commit has them; None where git does not say.

    With `documents` any other file too that git tracks: a submission's documents come from the commit. A file that is
    none of git's and takes no part, as somebody's own prompts, never counts.
    """
    if not is_tracked(checkout):
        return None
    listed = git(checkout, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", ".")
    prefix = git(checkout, "rev-parse", "--show-prefix")
    if listed is None or prefix is None:
        return None
    below = os.fsdecode(prefix).rstrip("\n")
    entries = [os.fsdecode(each) for each in listed.split(b"\0") if each]
    found = [(entry[:2], entry[3:].removeprefix(below)) for entry in entries]
    return [name for state, name in found if takes_part(name) or (documents and state != "??")]


def takes_part(name: str) -> bool:
    """Whether a file of the checkout, by its path in it, may have a part in what a run does."""
    path = PurePosixPath(name)
    if name in FILES or any(path.is_relative_to(folder) for folder in FOLDERS):
        return True
    return path.suffix in CODE and path.parts[0] not in APART


def files(checkout: Path) -> list[Path]:
    """The source: what git would commit; without git everything but what set-up and runs make. Links are left out."""
    listed = None
    if is_tracked(checkout):
        listed = git(checkout, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    if listed is None:
        found = _walk(checkout)
    else:
        found = [checkout / os.fsdecode(name) for name in listed.split(b"\0") if name]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _walk(checkout: Path) -> list[Path]:
    found = []
    for place, folders, names in os.walk(checkout):
        here = Path(place).relative_to(checkout).as_posix()
        folders[:] = [name for name in folders if name != ".git" and not _is_made(f"{here}/{name}", folder=True)]
        found += [Path(place, name) for name in names if not _is_made(f"{here}/{name}", folder=False)]
    return found


def _is_made(name: str, *, folder: bool) -> bool:
    """Whether MADE_HERE names it; its lines mean what they do in .gitignore."""
    relative = name.removeprefix("./")
    for line in MADE_HERE:
        compared = relative if line.startswith("/") else relative.rsplit("/", 1)[-1]
        if (folder or not line.endswith("/")) and fnmatchcase(compared, line.strip("/")):
            return True
    return False
