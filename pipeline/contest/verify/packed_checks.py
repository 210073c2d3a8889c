"""Checks of what is packed around a run: the list of files, the documents, the source as the commit's tree."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pipeline.check import FORM, HUMAN, INTEGRITY, INVALID_RUN, CheckResult, Kind, decided, listed, plain
from pipeline.contest.archive import unpack
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.provenance_checks import COMMIT
from pipeline.contest.checks.submitted import Submitted
from pipeline.contest.format import IMAGE, MANIFEST, RUN, SOURCE, SUBMISSION
from pipeline.contest.source import sbom, third_party
from pipeline.contest.verify import documents as papers
from pipeline.contest.verify import paper
from pipeline.errors import PipelineError
from pipeline.process import git

DOCUMENTS = papers.REQUIRED
OF_A_RUN, OF_A_DOCUMENT = (".csv", ".json", ".jsonl", ".log"), (".md", ".pdf", ".png")
NAMED = {SUBMISSION, MANIFEST, SOURCE, IMAGE, sbom.NAME, third_party.NAME}
"""What a submission's files are called: nobody opens another."""


def listing(submitted: Submitted) -> CheckResult:
    """Check submission.json's list of files and sizes against the unpacked files."""
    claimed = submitted.submission.files
    present = {
        name: path.stat().st_size
        for path in submitted.folder.rglob("*")
        if path.is_file() and (name := path.relative_to(submitted.folder).as_posix()) not in {MANIFEST, SUBMISSION}
    }
    differing = sorted(name for name in claimed.keys() | present.keys() if claimed.get(name) != present.get(name))
    strange = sorted(name for name in present if not _is_known(name))
    actual = f"not so: {listed(differing)}" if differing else f"{len(present)} files"
    actual = f"no part of a submission: {listed(strange)}" if strange else actual
    fine = not differing and not strange
    return decided("listing", INTEGRITY, fine, actual, "the files that are there, with their sizes")


def _is_known(name: str) -> bool:
    folder, slash, rest = name.partition("/")
    if slash:
        return folder == RUN and rest.endswith(OF_A_RUN)
    return name in NAMED or name.endswith(OF_A_DOCUMENT)


def documents(submitted: Submitted, source: Mapping[str, bytes] | None) -> CheckResult:
    """Whether they are there and are what they are called, and tell of this run; some only people can read."""
    expected, faults, held = listed(DOCUMENTS), list(papers.faults(submitted, source)), paper.held(submitted, source)
    if faults or held.wrong:
        kind: Kind = FORM if faults else INVALID_RUN
        return decided("documents", kind, False, listed([*faults, *held.wrong], 3), expected)
    if held.people:
        return CheckResult("documents", HUMAN, expected, plain(listed(held.people, 3)), kind=FORM)
    return decided("documents", FORM, True, f"{len(DOCUMENTS)} documents", expected)


def source(submitted: Submitted, organiser: Organiser) -> tuple[CheckResult, dict[str, bytes] | None]:
    """Check the source, and return its files (path to content); None if it cannot be read."""
    form = "the tree of the commit, as git archive writes it"
    path = submitted.folder / SOURCE
    try:
        with path.open("rb") as file:
            stored = unpack.read_files(file, SOURCE)
    except PipelineError as error:
        actual = f"{error.code} {error.what} ({error.where})"
        return decided("source", INTEGRITY, False, actual, form), None
    tree = git_tree(stored)
    expected = _tree_of(submitted.submission.commit, organiser.checkout)
    if expected is None:
        # A team's own commit: what it holds is seen by similarity and by people, and run by --rerun.
        actual = f"tree {tree[:12]}…; the commit is not in the organiser's checkout"
        result = CheckResult("source", HUMAN, form, actual, kind=INTEGRITY)
    else:
        result = decided("source", INTEGRITY, tree == expected, f"tree {tree[:12]}…", f"{form}: {expected[:12]}…")
    return result, {path: content for path, (_, content) in stored.items()}


def _tree_of(commit: str, checkout: Path) -> str | None:
    if not COMMIT.fullmatch(commit):
        return None
    tree = git(checkout, "rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}")
    return None if tree is None else tree.decode().strip()


def git_tree(files: Mapping[str, tuple[int, bytes]]) -> str:
    """Git's tree id of a folder with these files: path to mode and content (Pro Git, 10.2, Git Objects)."""
    folders: dict[str, dict[str, tuple[int, bytes]]] = {}
    entries: list[tuple[str, str, str]] = []
    for path, (mode, content) in files.items():
        name, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(name, {})[rest] = (mode, content)
        else:
            entries.append((name, "100755" if mode & 0o100 else "100644", _git_id("blob", content)))
    entries += [(f"{name}/", "40000", git_tree(inner)) for name, inner in folders.items()]
    lines = [
        f"{mode} {name.rstrip('/')}\0".encode() + bytes.fromhex(sha1)
        for name, mode, sha1 in sorted(entries, key=_bytes)
    ]
    return _git_id("tree", b"".join(lines))


def _bytes(entry: tuple[str, str, str]) -> bytes:
    return entry[0].encode()


def _git_id(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
