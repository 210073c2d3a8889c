"""The source of one commit, as `git archive` gives it, and the documents of the newest.

A run names the commit that made it. What is packed is that commit and nothing of the working tree, so a run from a tree
with changes in it cannot be packed: nobody could say what had run.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.errors import EnvironmentProblem, IntegrityError
from pipeline.process import git


@dataclass(frozen=True)
class Source:
    commit: str
    committed_s: int
    """When, in seconds since 1970: the time of everything in a submission."""
    tar: bytes


def of_run(manifest: Mapping[str, Any], checkout: Path) -> Source:
    """The source that made a run. Raises EnvironmentProblem: E601 no git or no checkout; IntegrityError: M611 the run
    does not name its commit, M612 it was made from a changed tree, M613 the commit is not here, M614 the checkout has
    changes of its own."""
    code = manifest.get("code") or {}
    if not code.get("commit"):
        raise IntegrityError(
            "M611",
            "the run does not say which commit made it",
            expected="a run from a git checkout, or from an image that was built from one",
            fix="run it again in a clone of the repository; invoke image builds an image that knows its commit",
        )
    if code.get("dirty") is not False:
        raise IntegrityError(
            "M612",
            "the run was made from files that no commit holds",
            where=f"commit {code['commit'][:12]} and changes",
            expected="a tree without changes: git status says nothing",
            fix="commit your changes (or git stash them), run again, and submit that run",
        )
    _refuse_changes(checkout)
    commit = code["commit"]
    if git(checkout, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise IntegrityError(
            "M613",
            "the commit that made the run is not in this checkout",
            where=paths.shown(checkout),
            expected=commit,
            fix="git fetch it, or submit from the checkout in which the run was made",
        )
    # The umask of the archive's members is a setting of each user; here it is always the same.
    tar = git(checkout, "-c", "tar.umask=0022", "archive", "--format=tar", commit)
    committed_s = int(git(checkout, "show", "-s", "--format=%ct", commit) or 0)
    return Source(commit, committed_s, tar or b"")


def read(source: Source) -> dict[str, bytes]:
    """Its regular files by their paths."""
    with tarfile.open(fileobj=io.BytesIO(source.tar)) as archive:
        opened = {member.name: archive.extractfile(member) for member in archive if member.isreg()}
        return {name: content.read() for name, content in opened.items() if content is not None}


def tree(checkout: Path) -> dict[str, bytes]:
    """The checkout as it lies there: what git would commit, or all of it where there is no git, as in an image."""
    listed = git(checkout, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    if listed is None:
        found = [path for path in checkout.rglob("*") if not {".git", "__pycache__"} & set(path.parts)]
    else:
        found = [checkout / os.fsdecode(name) for name in listed.split(b"\0") if name]
    return {
        path.relative_to(checkout).as_posix(): path.read_bytes()
        for path in sorted(found)
        if path.is_file() and not path.is_symlink()
    }


def _refuse_changes(checkout: Path) -> None:
    changed = git(checkout, "status", "--porcelain")
    if changed is None:
        raise EnvironmentProblem(
            "E601",
            "the source cannot be packed here: this is not a git checkout, or there is no git",
            where=paths.shown(checkout),
            fix="an image has no history: leave it, and call invoke submit --run in the clone that it was built from",
        )
    if changed:
        names = changed.decode(errors="replace").splitlines()
        raise IntegrityError(
            "M614",
            "the checkout has changes that are in no commit",
            where=f"{', '.join(name[3:] for name in names[:3])}{' …' * (len(names) > 3)}",
            expected="git status says nothing",
            fix="commit them, or git stash them: the documents of a submission come from the newest commit",
        )
