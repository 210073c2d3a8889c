"""The source of one commit, as `git archive` gives it, and the documents of the newest.

A run names the commit that made it. What is packed is that commit and nothing of the working tree, so a run from a tree
with changes in it cannot be packed: nobody could say what had run.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.errors import EnvironmentProblem, IntegrityError
from pipeline.process import git
from pipeline.record import checkout as checkouts

LARGEST_BYTES = 32 << 20
"""A larger file is no source: a checkpoint or data that somebody keeps in the checkout."""
SHOWN = 3


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
            "the run was made from files that are in no commit",
            where=f"commit {code['commit'][:12]} and {_some(code.get('changed')) or 'changes'}",
            expected="every file that takes part in a run is committed; your own data may lie anywhere",
            fix="git add and git commit them (or git stash --include-untracked), run again, and submit that run",
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
    """The checkout's source as it lies there (`record.checkout.files`); what is too large to be source is left out."""
    return {
        path.relative_to(checkout).as_posix(): path.read_bytes()
        for path in checkouts.files(checkout)
        if path.stat().st_size <= LARGEST_BYTES
    }


def _refuse_changes(checkout: Path) -> None:
    changed = checkouts.changed(checkout, documents=True)
    if changed is None:
        raise EnvironmentProblem(
            "E601",
            "the source cannot be packed here: this is not a git checkout, or there is no git",
            where=paths.shown(checkout),
            fix="an image or an archive has no history: leave it, and call invoke submit --run in a clone",
        )
    if changed:
        raise IntegrityError(
            "M614",
            "the checkout has changes that are in no commit",
            where=_some(changed),
            expected="all source and documents are committed; your own data may lie anywhere",
            fix="git add and git commit them, or git stash --include-untracked: a submission is made of a commit",
        )


def _some(names: object) -> str:
    """The first few of some names; nothing for what is no list, as in a manifest that an older version wrote."""
    if not isinstance(names, list):
        return ""
    return ", ".join(map(str, names[:SHOWN])) + f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
