"""Checks of where a run took place: what the board did under the clock, and the memory that it took.

The verdict on the board is made anew from telemetry.csv; the share of other programs is the one thing in it that a run
can only claim.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

from pipeline.check import INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.checks.facts import Check, Facts
from pipeline.contest.checks.organiser import ITEM_BYTES
from pipeline.contest.checks.submitted import StateClaim
from pipeline.device import power, verdict
from pipeline.device.board import Board
from pipeline.device.power import Mode
from pipeline.device.telemetry import NAME, PERIOD_S
from pipeline.engine import memory

LONGEST_GAP_S = 3.0
"""Longest gap between two samples, which are due every half second: a busy machine is late, a cut leaves more."""


def _telemetry(facts: Facts) -> CheckResult:
    """Check that the recording is whole: all samples, no gap, around every timed section."""
    manifest, (recording, trouble) = facts.manifest, facts.recording
    expected = f"samples from before the first section to behind the last, none {LONGEST_GAP_S:.0f} s from the next"
    if recording is None:
        return decided("telemetry", INVALID_RUN, False, trouble, expected)
    moments = [sample.at_s for sample in recording.samples]
    line = manifest.timeline_s
    first_s, last_s = moments[0] + line.telemetry[0], moments[-1] + line.telemetry[0]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    wrong = [f"{len(moments)} samples of {manifest.telemetry.samples}"] * (len(moments) != manifest.telemetry.samples)
    wrong += ["not ascending"] * any(gap < 0 for gap in gaps)
    wrong += [f"a gap of {max(gaps, default=0):.1f} s"] * any(gap > LONGEST_GAP_S for gap in gaps)
    wrong += ["begins after the first section"] * (first_s > line.timed[0][0] + PERIOD_S)
    wrong += ["ends before the last section"] * (last_s < line.timed[-1][1] - PERIOD_S / 10)
    return decided("telemetry", INVALID_RUN, not wrong, listed(wrong) or f"{len(moments)} samples", expected)


def _board(facts: Facts) -> CheckResult:
    """Judge power mode, clocks and throttling anew, and compare with the run's verdict on itself."""
    manifest, (recording, _) = facts.manifest, facts.recording
    expected = f"{power.TARGET_MODE}, no clock held down, and the verdict that the run recorded"
    if recording is None:
        return unknown("board", INVALID_RUN, f"{NAME} cannot be read", expected)
    judged = verdict.judge(_state(manifest.board.before), _state(manifest.board.after), recording)
    if manifest.board.before.board != manifest.board.after.board:
        return decided("board", INVALID_RUN, False, "another board after the run than before it", expected)
    if judged.state == verdict.INVALID:
        return decided("board", INVALID_RUN, False, listed(judged.reasons), expected)
    if judged.state != manifest.verdict.state:
        return decided("board", INVALID_RUN, False, f"{judged.state}; the run says {manifest.verdict.state}", expected)
    unseen = ["other programs' share"] * (recording.others_share is None)
    unseen += ["power mode"] * (None in (manifest.board.before.mode, manifest.board.after.mode))
    if judged.counts and unseen:
        return unknown("board", INVALID_RUN, f"not to be seen: {listed(unseen)}", expected)
    return decided(
        "board",
        INVALID_RUN,
        True,
        f"{judged.state}: {listed(judged.notes)}" if judged.notes else judged.state,
        expected,
    )


def _resident(facts: Facts) -> CheckResult:
    """Check that the peak of memory has room for the weights in the claimed dtype; quantised ones need less.

    Weights that are streamed from the disk in every pass need room for two layers and the embeddings.
    """
    manifest, model = facts.manifest, facts.model
    expected = "a peak of memory that holds the weights in the claimed dtype"
    if (
        model is None
        or model.shape is None
        or model.size_bytes is None
        or model.dtype is None
        or manifest.dtype not in ITEM_BYTES
    ):
        return unknown("resident", INVALID_RUN, f"the size of {manifest.model.name} is not known here", expected)
    if manifest.engine.weights == memory.STREAMED:
        needed = memory.streamed_bytes(model.shape, memory.Kind(ITEM_BYTES[manifest.dtype], "cuda"))
    else:
        needed = model.size_bytes * ITEM_BYTES[manifest.dtype] // ITEM_BYTES[model.dtype]
    host_bytes, gpu_bytes = manifest.peak_memory.host_bytes, manifest.peak_memory.gpu_bytes or 0
    peak, expected = host_bytes + gpu_bytes, f"{expected}: {needed / 1e6:,.0f} MB"
    most = manifest.board.before.board.memory_bytes
    if most is not None and max(host_bytes, gpu_bytes) > most:
        return decided(
            "resident", INVALID_RUN, False, f"{peak / 1e6:,.0f} MB on a board of {most / 1e6:,.0f}", expected
        )
    return decided("resident", INVALID_RUN, peak >= needed, f"{peak / 1e6:,.0f} MB", expected)


def _state(state: StateClaim) -> verdict.State:
    mode = None if state.mode is None else Mode(state.mode.id, state.mode.name)
    told = state.board.model_dump(include={field.name for field in fields(Board)})  # a key more is nobody's
    return verdict.State(Board(**told), mode, state.clocks_locked)


CHECKS: dict[str, Check] = {"telemetry": _telemetry, "board": _board, "resident": _resident}
