"""Checks of where a run took place: what the board did under the clock, and the memory that it took.

The verdict on the board is made anew from telemetry.csv; the share of other programs is the one thing in it that a run
can only claim.
"""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path

from pipeline.check import INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.checks.organiser import ITEM_BYTES, Model, Organiser
from pipeline.contest.checks.submitted import Manifest, StateClaim, Submitted
from pipeline.device import channels, power, verdict
from pipeline.device.board import Board
from pipeline.device.channels import Channel
from pipeline.device.power import Mode
from pipeline.device.telemetry import NAME, PERIOD_S, Recording, Sample
from pipeline.engine import memory
from pipeline.engine.device import DTYPES, STREAMED

LONGEST_GAP_S = 3.0
"""Longest gap between two samples, which are due every half second: a busy machine is late, a cut leaves more."""

NEEDED = ("gpu clock", "alarm", "cooling")
"""Kinds of channels that are needed to tell that a board was not held back."""

MOST_BYTES = 64 << 20


def checks(submitted: Submitted, organiser: Organiser) -> list[CheckResult]:
    manifest = submitted.manifest
    recording, trouble = _recording(submitted)
    return [
        _telemetry(manifest, recording, trouble),
        _board(manifest, recording),
        _resident(manifest, organiser.model(manifest.model.name)),
    ]


def _telemetry(manifest: Manifest, recording: Recording | None, trouble: str) -> CheckResult:
    """Check that the recording is whole: all samples, no gap, around every timed section."""
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


def _board(manifest: Manifest, recording: Recording | None) -> CheckResult:
    """Judge power mode, clocks and throttling anew, and compare with the run's verdict on itself."""
    expected = f"{power.TARGET_MODE}, nothing held back, and the verdict that the run came to"
    if recording is None:
        return unknown("board", INVALID_RUN, f"{NAME} cannot be read", expected)
    judged = verdict.judge(_state(manifest.board.before), _state(manifest.board.after), recording)
    if manifest.board.before.board != manifest.board.after.board:
        return decided("board", INVALID_RUN, False, "another board after the run than before it", expected)
    if judged.state == verdict.INVALID:
        return decided("board", INVALID_RUN, False, listed(judged.reasons), expected)
    if judged.state != manifest.verdict.state:
        return decided("board", INVALID_RUN, False, f"{judged.state}; the run says {manifest.verdict.state}", expected)
    unseen = [kind for kind in NEEDED if not any(recording.of_kind(kind).values())]
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


def _resident(manifest: Manifest, model: Model | None) -> CheckResult:
    """Check that the peak of memory has room for the weights in the claimed dtype; quantised ones need less.

    Weights that are streamed from the disk in every pass need room for two layers and the embeddings.
    """
    expected = "a peak of memory that holds the weights in the claimed dtype"
    if (
        model is None
        or model.shape is None
        or model.size_bytes is None
        or model.dtype is None
        or manifest.dtype not in ITEM_BYTES
    ):
        return unknown("resident", INVALID_RUN, f"the size of {manifest.model.name} is not known here", expected)
    if manifest.engine.weights == STREAMED:
        needed = memory.streamed_bytes(model.shape, DTYPES[manifest.dtype])
    else:
        needed = model.size_bytes * ITEM_BYTES[manifest.dtype] // ITEM_BYTES[model.dtype]
    peak = manifest.peak_memory.host_bytes + (manifest.peak_memory.gpu_bytes or 0)
    return decided(
        "resident", INVALID_RUN, peak >= needed, f"{peak / 1e6:,.0f} MB", f"{expected}: {needed / 1e6:,.0f} MB"
    )


def _recording(submitted: Submitted) -> tuple[Recording | None, str]:
    try:
        return _read(submitted.folder / "run" / NAME, submitted.manifest), ""
    except (OSError, ValueError, csv.Error) as error:
        return None, f"{NAME}: {error.strerror if isinstance(error, OSError) else error}"


def _read(path: Path, manifest: Manifest) -> Recording:
    """Read a recording from telemetry.csv. Raises OSError, ValueError, csv.Error."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError("too large")
    with path.open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    if not head or head[0] != "time_s" or len(set(head)) < len(head) or not lines:
        raise ValueError("not a table of times and channels")
    kinds = {name: kind for name in head[1:] if (kind := channels.kind_of(name)) is not None}
    strange = [name for name in head[1:] if name not in kinds]
    if strange:
        raise ValueError(f"a channel of no known kind: {strange[0]!r}")
    if any(len(line) != len(head) for line in lines):
        raise ValueError("a line with more or fewer columns than the first")
    columns = tuple(Channel(name, kind, _nothing) for name, kind in kinds.items())
    samples = tuple(Sample(_number(line[0]), tuple(map(_number_or_none, line[1:]))) for line in lines)
    return Recording(columns, samples, manifest.telemetry.elapsed_s, 0.0, manifest.telemetry.others_share)


def _nothing() -> float:
    raise ValueError("a recorded channel is not read again")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no measurement")
    return value


def _number_or_none(text: str) -> float | None:
    return _number(text) if text else None


def _state(state: StateClaim) -> verdict.State:
    mode = None if state.mode is None else Mode(state.mode.id, state.mode.name)
    return verdict.State(Board(**state.board.model_dump()), mode, state.clocks_locked)
