"""The rules that a run's own files answer: machine, model, data, answers, clock.

Each check takes the evidence and the contest's numbers and returns what it found. A value that is missing is unknown,
one that is wrong fails; nothing passes for being absent.
"""

from __future__ import annotations

import statistics
from typing import Any

from pipeline.accuracy.stats import DROP_RULE
from pipeline.check import CheckResult
from pipeline.contest.numbers import Contest
from pipeline.contest.rules.evidence import Evidence, decide, fail, unknown
from pipeline.device import board, verdict
from pipeline.record.outputs import is_output

UNSEEN = "cannot be seen"
CLOSE_S = 1e-6
"""Tolerance between two computations of the same median."""


def device(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = f"{board.MODULES[board.TARGET_MODULE]} ({board.TARGET_MODULE})"
    if evidence.at("board.before.board.is_jetson") is False:
        return fail(f"not a Jetson: {evidence.at('environment.gpu') or evidence.at('environment.processor')}", expected)
    module = evidence.at("board.before.board.module")
    if not isinstance(module, str):
        return unknown(f"the module {UNSEEN}", expected)
    return decide(module == board.TARGET_MODULE, f"{board.MODULES.get(module, 'another module')} ({module})", expected)


def jetpack(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = f"JetPack {board.TARGET_JETPACK}"
    if evidence.at("board.before.board.is_jetson") is False:
        return fail("none: not a Jetson", expected)
    l4t = evidence.at("board.before.board.l4t")
    if not isinstance(l4t, str):
        return unknown(f"the release {UNSEEN}", expected)
    release = board.jetpack_of(l4t) or "unknown"
    return decide(release == board.TARGET_JETPACK, f"JetPack {release} (L4T {l4t})", expected)


def power_mode(evidence: Evidence, _contest: Contest) -> CheckResult:
    before, after = (evidence.at(f"board.{moment}.mode.name") for moment in ("before", "after"))
    if not isinstance(before, str) or not isinstance(after, str):
        return unknown(f"the power mode {UNSEEN}", "one mode, before and after")
    return decide(
        before == after, before if before == after else f"{before}, then {after}", "one mode, before and after"
    )


def framework(evidence: Evidence, contest: Contest) -> CheckResult:
    expected = f"torch {contest.torch_major}.x"
    version = evidence.at("environment.packages.torch")
    if not isinstance(version, str):
        return unknown("torch's version is not recorded", expected)
    return decide(version.split(".")[0] == str(contest.torch_major), f"torch {version}", expected)


def model(evidence: Evidence, contest: Contest) -> CheckResult:
    name, root = evidence.at("model.name"), evidence.at("model.lock_sha256")
    pinned = evidence.pins.models.get(contest.model)
    expected = f"{contest.model}, lock {_short(pinned)}"
    if not isinstance(root, str):
        return unknown("the run does not say which model it used", expected)
    if pinned is not None:
        return decide(root == pinned, f"{name}, lock {_short(root)}", expected)
    if name != contest.model:
        return fail(f"{name}, lock {_short(root)}", expected)
    return unknown(f"{name}, lock {_short(root)}; there is no lock here to hold it against", expected)


def weights(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = "memory compared with the lock of the run's model"
    root, attested = evidence.at("model.lock_sha256"), evidence.at("weights.lock_sha256")
    tensors = evidence.at("weights.tensors")
    if not isinstance(attested, str) or not _is_count(tensors):
        return unknown("the run did not compare its weights", expected)
    same = attested == root and tensors > 0
    return decide(same, f"{tensors} tensors as in lock {_short(attested)}", expected)


def precision(evidence: Evidence, contest: Contest) -> CheckResult:
    expected = f"{contest.tensors} tensors, {contest.weights_bytes:,} bytes, {contest.dtype}, not rounded"
    dtype, rounded = evidence.at("dtype"), evidence.at("weights.rounded")
    tensors, size_bytes = evidence.at("weights.tensors"), evidence.at("weights.size_bytes")
    if not _is_count(tensors) or not _is_count(size_bytes) or not isinstance(rounded, bool) or dtype is None:
        return unknown("the run does not say how its weights lay in memory", expected)
    same = (tensors, size_bytes, dtype, rounded) == (contest.tensors, contest.weights_bytes, contest.dtype, False)
    return decide(same, f"{tensors} tensors, {size_bytes:,} bytes, {dtype}{', rounded' * rounded}", expected)


def dataset(evidence: Evidence, _contest: Contest) -> CheckResult:
    name, sha256 = evidence.at("dataset.name"), evidence.at("dataset.sha256")
    pinned = evidence.pins.datasets.get(name) if isinstance(name, str) else None
    if not isinstance(sha256, str):
        return unknown("the run does not say which data it answered", "a set with a known sha256")
    if pinned is None:
        return unknown(f"{name}, sha256 {_short(sha256)}: not a set that is pinned here", "a set with a known sha256")
    return decide(sha256 == pinned[0], f"{name}, sha256 {_short(sha256)}", f"{name}, sha256 {_short(pinned[0])}")


def whole_set(evidence: Evidence, _contest: Contest) -> CheckResult:
    name, limit = evidence.at("dataset.name"), evidence.at("request.limit")
    pinned = evidence.pins.datasets.get(name) if isinstance(name, str) else None
    answered = [row.get("index") for row in evidence.rows]
    if pinned is not None:
        return decide(answered == list(range(pinned[1])), _rows_shown(answered), f"rows 0 to {pinned[1] - 1}")
    if limit is not None:
        return fail(f"the first {limit} rows", "all rows")
    return unknown(f"{_rows_shown(answered)}; how many the set has is not known here", "all rows")


def memory(evidence: Evidence, _contest: Contest) -> CheckResult:
    rows, peak_bytes = evidence.at("dataset.rows"), evidence.at("peak_memory.host_bytes")
    failed = evidence.at("engine.stats.failed_allocations")
    expected = f"{rows} rows answered"
    if not _is_count(rows) or not _is_count(peak_bytes):
        return unknown("the run does not say what it needed", expected)
    redone = f", {failed} passes made again smaller" if failed else ""
    return decide(
        len(evidence.rows) == rows,
        f"{len(evidence.rows)} answered, at most {peak_bytes / 1e9:.1f} GB{redone}",
        expected,
    )


def output_form(evidence: Evidence, _contest: Contest) -> CheckResult:
    rows, expected = evidence.rows, "each row once: [{'generated_text': str}] and its token ids"
    indices = [row.get("index") for row in rows]
    if not rows or indices != list(range(len(rows))) or len(rows) != evidence.at("dataset.rows"):
        return fail(f"{_rows_shown(indices)}, of {evidence.at('dataset.rows')}", expected)
    wrong = [row["index"] for row in rows if not _is_row(row)]
    return decide(not wrong, f"{len(rows) - len(wrong)} of {len(rows)} rows have it", expected)


def arguments(evidence: Evidence, _contest: Contest) -> CheckResult:
    pinned = evidence.pins.arguments
    given = {key: evidence.at(f"arguments.{key}") for key in pinned}
    expected = _words(pinned)
    if evidence.at("arguments") is None or not pinned:
        return unknown("the run does not say how it was called", expected)
    # 0 == False in Python: a temperature of False is no temperature.
    same = all(type(given[key]) is type(pinned[key]) and given[key] == pinned[key] for key in pinned)
    return decide(same, _words(given), expected)


def accuracy(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = DROP_RULE
    if evidence.accuracy is None:
        return unknown("no run of the unmodified pipeline to hold it against", expected)
    if evidence.accuracy.verdict in {"kept", "broken"}:
        return decide(evidence.accuracy.verdict == "kept", evidence.accuracy.words, expected)
    return unknown(evidence.accuracy.words, expected)


def timed_section(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = "one section or more, from the first row to the last, and their median"
    timed, elapsed_s = evidence.at("phases_s.timed"), evidence.at("elapsed_s")
    if evidence.at("resumed"):
        return fail("the run was gone on with, so its time is not of all rows", expected)
    if not isinstance(timed, list | tuple) or not timed or not all(map(_is_seconds, timed)):
        return unknown("no timed section is recorded", expected)
    actual = f"{len(timed)} × {evidence.at('dataset.rows')} rows, median {statistics.median(timed):.3f} s"
    recorded_s, passes_s = evidence.at("telemetry.elapsed_s"), evidence.at("engine.stats.passes_s")
    wrong = []
    if not _is_seconds(elapsed_s) or abs(elapsed_s - statistics.median(timed)) > CLOSE_S:
        wrong.append(f"{elapsed_s} s are claimed")
    if _is_seconds(recorded_s) and recorded_s < sum(timed):
        wrong.append(f"the clock beside it (telemetry) says {recorded_s:.3f} s for all")
    if _is_seconds(passes_s) and passes_s > max(timed):
        wrong.append(f"passes took {passes_s:.3f} s")
    if wrong:
        return fail(f"{actual}, yet {', and '.join(wrong)}", expected)
    if not _is_seconds(recorded_s):
        return unknown(f"{actual}; the clock beside it (telemetry) is not recorded", expected)
    return decide(True, actual, expected)


def valid_time(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = f"{verdict.VALID}, with or without notes"
    state, notes, reasons = (evidence.at(f"verdict.{key}") for key in ("state", "notes", "reasons"))
    if state == verdict.INVALID:
        return fail(_listed(state, reasons), expected)
    if state in {verdict.VALID, verdict.NOTED}:
        return decide(True, _listed(state, notes), expected)
    return unknown("the run has no verdict", expected)


def network(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = "no network, or not a byte over it under the clock"
    interfaces = evidence.at("network.interfaces")
    received, sent = evidence.at("network.received_bytes"), evidence.at("network.sent_bytes")
    if not isinstance(interfaces, list | tuple) or not isinstance(received, int) or not isinstance(sent, int):
        return unknown("the run did not look", expected)
    if not interfaces:
        return decide(True, "there was none", expected)
    over = ", ".join(map(str, interfaces))
    return decide(received == sent == 0, f"{received:,} bytes came and {sent:,} went over {over}", expected)


def _is_row(row: Any) -> bool:
    output, tokens = row.get("output"), row.get("token_ids")
    form = is_output(output) and output[0].keys() == {"generated_text"}
    return form and isinstance(tokens, list) and all(map(_is_count, tokens))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _rows_shown(indices: list[Any]) -> str:
    return f"{len(indices)} rows" + (" in order" if indices == list(range(len(indices))) else ", not one after another")


def _short(sha256: str | None) -> str:
    return "not known here" if sha256 is None else f"{sha256[:12]}…"


def _words(arguments: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in arguments.items())


def _listed(state: str, words: Any) -> str:
    return f"{state}: {'; '.join(map(str, words))}" if isinstance(words, list | tuple) and words else state
