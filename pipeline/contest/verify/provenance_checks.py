"""Checks of what ran: the model and its weights in memory, the precision, the commit, the source and what it cites."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePath

from pipeline.check import FORM, HUMAN, INTEGRITY, INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.archive import unpack
from pipeline.contest.format import MANIFEST, SOURCE, SUBMISSION
from pipeline.contest.rules import rules
from pipeline.contest.source import sbom, third_party
from pipeline.contest.verify.organiser import Model, Organiser
from pipeline.contest.verify.submitted import Claims
from pipeline.errors import PipelineError
from pipeline.process import git

DOCUMENTS = ("method.md", "method.pdf", "leaderboard.png", sbom.NAME, third_party.NAME)
"""Documents that a submission must have: those the contest requires, and the lists of third-party work."""

COMMIT = re.compile(r"[0-9a-f]{40}")


def checks(claims: Claims, organiser: Organiser) -> tuple[list[CheckResult], dict[str, bytes] | None]:
    """All checks of provenance, and the source's files (path to content); None if it cannot be read."""
    judged, source = _source(claims, organiser)
    model = organiser.model(claims.manifest.model.name)
    found = [
        _listing(claims),
        _documents(claims),
        _model(claims, model),
        _weights(claims, model),
        _dtype(claims, model),
        _commit(claims),
        judged,
    ]
    return found, source


def _listing(claims: Claims) -> CheckResult:
    """Check submission.json's list of files and sizes against the unpacked files."""
    told = claims.submission.files
    present = {
        name: path.stat().st_size
        for path in claims.folder.rglob("*")
        if path.is_file() and (name := path.relative_to(claims.folder).as_posix()) not in {MANIFEST, SUBMISSION}
    }
    differing = sorted(name for name in told.keys() | present.keys() if told.get(name) != present.get(name))
    found = f"not so: {listed(differing)}" if differing else f"{len(present)} files"
    return decided("listing", INTEGRITY, not differing, found, "the files that are there, with their sizes")


def _documents(claims: Claims) -> CheckResult:
    missing = [name for name in DOCUMENTS if not claims.submission.files.get(name)]
    found = f"missing: {listed(missing)}" if missing else f"{len(DOCUMENTS)} documents"
    return decided("documents", FORM, not missing, found, listed(DOCUMENTS))


def _model(claims: Claims, model: Model | None) -> CheckResult:
    told = claims.manifest.model
    if claims.submission.model.lock_sha256 != told.lock_sha256:
        return decided("model", INTEGRITY, False, "submission.json and the manifest name two", "one model")
    contest = rules.load().contest.model
    if not claims.submission.rehearsal and PurePath(told.name).name != contest:
        return decided("model", INTEGRITY, False, told.name, f"{contest}; another only in a rehearsal")
    found = f"{told.name}, lock {told.lock_sha256[:12]}…"
    if model is None or model.lock_sha256 is None:
        why = f"{found}; what it hashes to is not known here (invoke setup --model {contest}, or --model)"
        return unknown("model", INTEGRITY, why, "the organiser's lock")
    return decided(
        "model",
        INTEGRITY,
        told.lock_sha256 == model.lock_sha256,
        found,
        f"{model.name}, lock {model.lock_sha256[:12]}…",
    )


def _weights(claims: Claims, model: Model | None) -> CheckResult:
    """Check the hashes of the weights in memory, taken after the timed section, against the organiser's files."""
    told = claims.manifest.weights
    if model is None or model.weight_files is None:
        return unknown("weights", INTEGRITY, "the organiser's weights are not known here", "their hashes")
    wrong = [
        name
        for name in sorted(told.files.keys() | model.weight_files.keys())
        if told.files.get(name) != model.weight_files.get(name)
    ]
    said = [f"{name} in memory is not the file" for name in wrong]
    said += ["another lock"] * (told.lock_sha256 != claims.manifest.model.lock_sha256)
    if model.tensors is not None:
        said += [f"{told.tensors} tensors"] * (told.tensors != model.tensors)
        said += [f"{told.size_bytes:,} bytes"] * (told.size_bytes != model.size_bytes)
    wanted = f"{len(model.weight_files)} files, {model.tensors or 'all'} tensors, {model.size_bytes or 'all'} bytes"
    return decided("weights", INTEGRITY, not said, listed(said) or wanted, wanted)


def _dtype(claims: Claims, model: Model | None) -> CheckResult:
    """Check that the run's dtype is that of the stored weights, without rounding."""
    told = claims.manifest
    if model is None or model.dtype is None:
        return unknown("dtype", INVALID_RUN, f"how {told.model.name} is stored is not known here", "as stored")
    fine = told.dtype == model.dtype and not told.weights.rounded
    return decided("dtype", INVALID_RUN, fine, f"{told.dtype}{', rounded' * told.weights.rounded}", model.dtype)


def _commit(claims: Claims) -> CheckResult:
    code, told = claims.manifest.code, claims.submission.commit
    fine = code.commit == told and code.dirty is False and bool(COMMIT.fullmatch(told))
    found = f"{code.commit}{', with changes' if code.dirty else ', perhaps with changes' * (code.dirty is None)}"
    return decided("commit", INTEGRITY, fine, found, f"{told}, nothing changed")


def _source(claims: Claims, organiser: Organiser) -> tuple[CheckResult, dict[str, bytes] | None]:
    wanted = "the tree of the commit, as git archive writes it"
    path = claims.folder / SOURCE
    try:
        with path.open("rb") as file:
            stored = unpack.read_files(file, SOURCE)
    except PipelineError as error:
        found = f"{error.code} {error.what} ({error.where})"
        return decided("source", INTEGRITY, False, found, wanted), None
    tree = git_tree(stored)
    expected = _tree_of(claims.submission.commit, organiser.checkout)
    if expected is None:
        # A team's own commit: what it holds is seen by similarity and by people, and run by --rerun.
        found = f"tree {tree[:12]}…; the commit is not in the organiser's checkout"
        judged = CheckResult("source", HUMAN, wanted, found, kind=INTEGRITY)
    else:
        judged = decided("source", INTEGRITY, tree == expected, f"tree {tree[:12]}…", f"{wanted}: {expected[:12]}…")
    return judged, {path: content for path, (_, content) in stored.items()}


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
