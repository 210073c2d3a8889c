"""Checks of what ran: the model and its weights in memory, the precision, the commit."""

from __future__ import annotations

import re
from pathlib import PurePath

from pipeline.check import INTEGRITY, INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest import numbers
from pipeline.contest.checks.facts import Check, Facts
from pipeline.engine import memory

COMMIT = re.compile(r"[0-9a-f]{40}")


def _model(facts: Facts) -> CheckResult:
    submitted, model = facts.submitted, facts.model
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


def _weights(facts: Facts) -> CheckResult:
    """Check the weights in memory, looked at after the timed section, against the organiser's files: their hashes, and
    where these are not known here, at least their number and size."""
    claimed, model = facts.manifest.weights, facts.model
    files = None if model is None else model.weight_files
    wrong = sorted(
        name for name in {*claimed.files, *(files or ())} if files and claimed.files.get(name) != files.get(name)
    )
    faults = [f"{name} in memory is not the file" for name in wrong]
    faults += ["another lock"] * (claimed.lock_sha256 != facts.manifest.model.lock_sha256)
    tensors, size_bytes = (None, None) if model is None else (model.tensors, model.size_bytes)
    faults += [f"{claimed.tensors} tensors"] * (tensors is not None and claimed.tensors != tensors)
    faults += [f"{claimed.size_bytes:,} bytes"] * (size_bytes is not None and claimed.size_bytes != size_bytes)
    expected = f"{len(files or ())} files, {tensors or 'all'} tensors, {size_bytes or 'all'} bytes"
    if files is None and not faults:
        return unknown("weights", INTEGRITY, "the organiser's weights are not known here", "their hashes")
    return decided("weights", INTEGRITY, not faults, listed(faults) or expected, expected)


def _dtype(facts: Facts) -> CheckResult:
    """Check that the run's dtype is that of the stored weights, without rounding."""
    manifest, model = facts.manifest, facts.model
    if model is None or model.dtype is None:
        return unknown("dtype", INVALID_RUN, f"how {manifest.model.name} is stored is not known here", "as stored")
    lying = manifest.engine.weights
    strange = lying not in {None, "resident", memory.STREAMED}
    fine = manifest.dtype == model.dtype and not manifest.weights.rounded and not strange
    found = f"{manifest.dtype}{', rounded' * manifest.weights.rounded}{f', {lying} in memory' * strange}"
    return decided("dtype", INVALID_RUN, fine, found, model.dtype)


def _commit(facts: Facts) -> CheckResult:
    submitted = facts.submitted
    code, claimed = submitted.manifest.code, submitted.submission.commit
    fine = code.commit == claimed and code.dirty is False and bool(COMMIT.fullmatch(claimed))
    actual = f"{code.commit}{', with changes' if code.dirty else ', perhaps with changes' * (code.dirty is None)}"
    return decided("commit", INTEGRITY, fine, actual, f"{claimed}, nothing changed")


CHECKS: dict[str, Check] = {"model": _model, "weights": _weights, "dtype": _dtype, "commit": _commit}
