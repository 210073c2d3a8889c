"""Checks of what ran: the model and its weights in memory, the precision, the commit, the source and what it cites."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePath

from pipeline.check import FORM, HUMAN, INTEGRITY, INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest import numbers
from pipeline.contest.archive import unpack
from pipeline.contest.checks.organiser import Model, Organiser
from pipeline.contest.checks.submitted import Submitted
from pipeline.contest.format import MANIFEST, SOURCE, SUBMISSION
from pipeline.contest.source import sbom, third_party
from pipeline.errors import PipelineError
from pipeline.process import git

DOCUMENTS = ("method.md", "method.pdf", "leaderboard.png", sbom.NAME, third_party.NAME)
"""Documents that a submission must have: those the contest requires, and the lists of third-party work."""

COMMIT = re.compile(r"[0-9a-f]{40}")


def checks(submitted: Submitted, organiser: Organiser) -> tuple[list[CheckResult], dict[str, bytes] | None]:
    """All checks of provenance, and the source's files (path to content); None if it cannot be read."""
    judged, source = _source(submitted, organiser)
    model = organiser.model(submitted.manifest.model.name)
    results = [
        _listing(submitted),
        _documents(submitted),
        _model(submitted, model),
        _weights(submitted, model),
        _dtype(submitted, model),
        _commit(submitted),
        judged,
    ]
    return results, source


def checks_of_run(submitted: Submitted, organiser: Organiser) -> list[CheckResult]:
    """Those of them that a run's own record decides, without the submission around it."""
    model = organiser.model(submitted.manifest.model.name)
    return [_model(submitted, model), _weights(submitted, model), _dtype(submitted, model), _commit(submitted)]


def _listing(submitted: Submitted) -> CheckResult:
    """Check submission.json's list of files and sizes against the unpacked files."""
    claimed = submitted.submission.files
    present = {
        name: path.stat().st_size
        for path in submitted.folder.rglob("*")
        if path.is_file() and (name := path.relative_to(submitted.folder).as_posix()) not in {MANIFEST, SUBMISSION}
    }
    differing = sorted(name for name in claimed.keys() | present.keys() if claimed.get(name) != present.get(name))
    actual = f"not so: {listed(differing)}" if differing else f"{len(present)} files"
    return decided("listing", INTEGRITY, not differing, actual, "the files that are there, with their sizes")


def _documents(submitted: Submitted) -> CheckResult:
    missing = [name for name in DOCUMENTS if not submitted.submission.files.get(name)]
    actual = f"missing: {listed(missing)}" if missing else f"{len(DOCUMENTS)} documents"
    return decided("documents", FORM, not missing, actual, listed(DOCUMENTS))


def _model(submitted: Submitted, model: Model | None) -> CheckResult:
    claimed = submitted.manifest.model
    if submitted.submission.model.lock_sha256 != claimed.lock_sha256:
        return decided("model", INTEGRITY, False, "submission.json and the manifest name two", "one model")
    contest = numbers.load().model
    if not submitted.submission.rehearsal and PurePath(claimed.name).name != contest:
        return decided("model", INTEGRITY, False, claimed.name, f"{contest}; another only in a rehearsal")
    actual = f"{claimed.name}, lock {claimed.lock_sha256[:12]}…"
    if model is None or model.lock_sha256 is None:
        why = f"{actual}; what it hashes to is not known here (invoke setup --model {contest}, or --model)"
        return unknown("model", INTEGRITY, why, "the organiser's lock")
    return decided(
        "model",
        INTEGRITY,
        claimed.lock_sha256 == model.lock_sha256,
        actual,
        f"{model.name}, lock {model.lock_sha256[:12]}…",
    )


def _weights(submitted: Submitted, model: Model | None) -> CheckResult:
    """Check the hashes of the weights in memory, taken after the timed section, against the organiser's files."""
    claimed = submitted.manifest.weights
    if model is None or model.weight_files is None:
        return unknown("weights", INTEGRITY, "the organiser's weights are not known here", "their hashes")
    wrong = [
        name
        for name in sorted(claimed.files.keys() | model.weight_files.keys())
        if claimed.files.get(name) != model.weight_files.get(name)
    ]
    faults = [f"{name} in memory is not the file" for name in wrong]
    faults += ["another lock"] * (claimed.lock_sha256 != submitted.manifest.model.lock_sha256)
    if model.tensors is not None:
        faults += [f"{claimed.tensors} tensors"] * (claimed.tensors != model.tensors)
        faults += [f"{claimed.size_bytes:,} bytes"] * (claimed.size_bytes != model.size_bytes)
    expected = f"{len(model.weight_files)} files, {model.tensors or 'all'} tensors, {model.size_bytes or 'all'} bytes"
    return decided("weights", INTEGRITY, not faults, listed(faults) or expected, expected)


def _dtype(submitted: Submitted, model: Model | None) -> CheckResult:
    """Check that the run's dtype is that of the stored weights, without rounding."""
    manifest = submitted.manifest
    if model is None or model.dtype is None:
        return unknown("dtype", INVALID_RUN, f"how {manifest.model.name} is stored is not known here", "as stored")
    fine = manifest.dtype == model.dtype and not manifest.weights.rounded
    return decided("dtype", INVALID_RUN, fine, f"{manifest.dtype}{', rounded' * manifest.weights.rounded}", model.dtype)


def _commit(submitted: Submitted) -> CheckResult:
    code, claimed = submitted.manifest.code, submitted.submission.commit
    fine = code.commit == claimed and code.dirty is False and bool(COMMIT.fullmatch(claimed))
    actual = f"{code.commit}{', with changes' if code.dirty else ', perhaps with changes' * (code.dirty is None)}"
    return decided("commit", INTEGRITY, fine, actual, f"{claimed}, nothing changed")


def _source(submitted: Submitted, organiser: Organiser) -> tuple[CheckResult, dict[str, bytes] | None]:
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
