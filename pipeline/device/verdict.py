"""Whether a run's time counts, from what was seen of the board: VALID, VALID with notes, or INVALID with its reasons.

Only on a Jetson is a time one of the contest's, so only there can it be invalid; on another machine the same things are
notes. What could not be seen is a note, never taken for good.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.device import board, power
from pipeline.device.board import Board
from pipeline.device.channels import KINDS, NOTICE
from pipeline.device.host import Host
from pipeline.device.power import Mode
from pipeline.device.telemetry import Recording

VALID, NOTED, INVALID = "VALID", "VALID with notes", "INVALID"

MOST_OTHERS = 0.10
"""Share of the cores' time that other processes may use."""

OTHERS = "other programs used"
"""How the words about it begin."""

LOWEST_GPU_CLOCK = 0.97
"""Share of a locked clock; below it something held the clock down."""


@dataclass(frozen=True)
class State:
    """The board at one moment, for the manifest."""

    board: Board
    mode: Mode | None
    clocks_locked: bool | None


@dataclass(frozen=True)
class Verdict:
    """Whether a time counts, and why."""

    state: str
    counts: bool
    """On a Jetson: elsewhere a time is nobody's result, and nothing makes it invalid."""
    reasons: tuple[str, ...]
    """Why it is invalid."""
    notes: tuple[str, ...]


def state(host: Host) -> State:
    return State(board.look(host), power.mode(host), power.clocks_locked(host))


def judge(before: State, after: State, seen: Recording) -> Verdict:
    """`before` and `after` the timed sections that `seen` covers."""
    wrong, notes = _throttled(before, seen), _unseen(before, seen)
    for moment, each in (("before", before), ("after", after)):
        if each.mode is not None and each.mode.name != power.TARGET_MODE:
            wrong.append(f"power mode {each.mode.name} {moment} the run, not {power.TARGET_MODE}")
    if seen.others_share is not None and seen.others_share > MOST_OTHERS:
        wrong.append(f"{OTHERS} {seen.others_share:.0%} of the processor's time")
    if not before.board.is_jetson:
        return _verdict(False, [], [*wrong, *notes, "not on a Jetson"])
    if before.clocks_locked is False:
        notes.append("clocks were not locked")
    if before.board.module is None:
        notes.append("the module could not be seen")
    elif (before.board.jetpack, before.board.module) != (board.TARGET_JETPACK, board.TARGET_MODULE):
        notes.append(f"{before.board.title} with L4T {before.board.l4t or 'unknown'}, not the contest's board")
    return _verdict(True, wrong, notes)


def _verdict(counts: bool, wrong: list[str], notes: list[str]) -> Verdict:
    state = INVALID if wrong else NOTED if notes else VALID
    return Verdict(state, counts, tuple(dict.fromkeys(wrong)), tuple(dict.fromkeys(notes)))


def _throttled(before: State, seen: Recording) -> list[str]:
    reasons = []
    for name, values in seen.of_kind("alarm").items():
        if name.endswith("_events") and values and values[-1] > values[0]:
            reasons.append(f"throttled: {name} counted {values[-1] - values[0]:.0f}")
        if name.endswith("_crit_alarm") and any(values):
            reasons.append(f"throttled: {name} was on")
    for name, values in seen.of_kind("cooling").items():
        if max(values, default=0) > 0:
            reasons.append(f"throttled: {name.removesuffix('_held')} was held down")
    for values in seen.of_kind("gpu clock").values():
        if before.clocks_locked and values and min(values) < LOWEST_GPU_CLOCK * max(values):
            reasons.append(f"throttled: the GPU's locked clock fell to {min(values):.0f} of {max(values):.0f} MHz")
    swapped = seen.of_kind("memory").get("swapped_MiB")
    if swapped and swapped[-1] > swapped[0] + 1:
        reasons.append(f"{swapped[-1] - swapped[0]:.0f} MiB were swapped out")
    return reasons


def _unseen(before: State, seen: Recording) -> list[str]:
    """Notes: what could not be seen, and warnings that fell short of throttling."""
    notes = [f"{name} was on" for name, v in seen.of_kind("alarm").items() if name.endswith("_max_alarm") and any(v)]
    for name, values in seen.of_kind(NOTICE).items():
        if max(values, default=0) > 0:
            notes.append(f"{name.removesuffix('_notice')} was on, a notice that slows nothing")
    if before.board.is_jetson:
        if before.mode is None:
            notes.append("the power mode could not be seen (in a container, mount the host: -v /:/host:ro)")
        if before.clocks_locked is None:
            notes.append("whether clocks are locked could not be seen")
        for kind, why in KINDS.items():
            if not any(seen.of_kind(kind).values()):
                notes.append(f"not measured: {kind} ({why})")
    partly = {name: share for name, share in seen.coverage().items() if 0 < share < 1}
    return [*notes, *(f"{name} was read in {share:.0%} of the samples" for name, share in partly.items())]
