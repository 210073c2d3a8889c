"""Checks of the device that a run names: whether everything that it tells of it can be of one such board.

What a board has stands in `configs/contest_board.yaml`. A channel that is absent, or falls silent, tells nothing: then
nobody can say that the board was not held back. A value that no board gives was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatchcase
from functools import cache

from pydantic import ConfigDict

from pipeline import paths, schemas, settings
from pipeline.check import INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.checks.facts import Check, Facts
from pipeline.device.telemetry import NAME, Recording


class Described(schemas.Strict):
    """The content of `configs/contest_board.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    machine: str
    kernel_ends: str
    gpu: str
    """In the name that CUDA gives."""
    cores: int
    since: date
    """Before it nobody had the contest's release."""
    channels: tuple[str, ...]
    """Without any of them, each a name with `*` for any letters, nobody can tell that a board was not held back."""
    power_w: tuple[float, float]
    bounds: dict[str, tuple[float, float]]
    """By kind of channel."""
    memory_bytes: tuple[float, float]


@cache
def described() -> Described:
    return settings.load(paths.CONFIGS / "contest_board.yaml", Described)


def of(facts: Facts) -> Described | None:
    """The description of the board that the run names; None for another device."""
    seen, known = facts.manifest.board.before.board, described()
    return known if seen.is_jetson and seen.module == known.module else None


def _machine(facts: Facts) -> CheckResult:
    """Check that environment, kernel, processor and memory are of the board that is named."""
    run, board = facts.manifest, of(facts)
    seen, environment = run.board.before.board, run.environment
    if board is None:
        named = seen.module or ("a Jetson" if seen.is_jetson else "no Jetson")
        contradicts = not seen.is_jetson and (seen.module is not None or seen.l4t is not None)
        unchecked = f"{named}: not checked, only the contest's board is described"
        why = f"{named}, yet with a module or release of one" if contradicts else unchecked
        return decided("machine", INVALID_RUN, not contradicts, why, "one device in all its records")
    low, high = board.memory_bytes
    wrong = [f"machine {environment.machine}"] * (environment.machine != board.machine)
    wrong += [f"kernel {seen.kernel}"] * (not (seen.kernel or "").endswith(board.kernel_ends))
    wrong += [f"GPU {environment.gpu}"] * (environment.gpu is not None and board.gpu not in environment.gpu.split())
    wrong += ["a GPU without a name"] * (run.device == "cuda" and environment.gpu is None)
    wrong += [f"{environment.cores} cores"] * (
        environment.cores is not None and not 0 < environment.cores <= board.cores
    )
    wrong += [f"{seen.memory_bytes:,} bytes"] * (seen.memory_bytes is not None and not low <= seen.memory_bytes <= high)
    unseen = ["the kernel"] * (seen.kernel is None) + ["the memory"] * (seen.memory_bytes is None)
    fine = False if wrong else None if unseen else True
    found = listed(wrong) or (f"cannot be seen: {listed(unseen)}" if unseen else f"{environment.gpu or seen.module}")
    return decided("machine", INVALID_RUN, fine, found, f"one {board.module}, {board.machine}, {board.cores} cores")


def _channels(facts: Facts) -> CheckResult:
    """Check that the recording has the board's channels, in every sample, with values that the board can give."""
    expected, (recording, _) = "the board's channels in every sample, with values that it can give", facts.recording
    if recording is None:
        return unknown("channels", INVALID_RUN, f"{NAME} cannot be read", expected)
    board = of(facts)
    if board is None:
        return decided("channels", INVALID_RUN, True, "not checked: only the contest's board is described", expected)
    wrong = [*_impossible(recording, board), *_falling(recording)]
    if wrong:
        return decided("channels", INVALID_RUN, False, listed(wrong, 3), expected)
    shares = recording.coverage()
    unseen = [pattern for pattern in board.channels if not any(fnmatchcase(name, pattern) for name in shares)]
    for channel in recording.channels:
        needed = any(fnmatchcase(channel.name, pattern) for pattern in board.channels)
        unseen += [f"{channel.name} in {shares[channel.name]:.0%} of samples"] * (needed and shares[channel.name] < 1)
    if unseen:
        return unknown("channels", INVALID_RUN, f"not to be seen: {listed(unseen)}", expected)
    return decided("channels", INVALID_RUN, True, f"{len(recording.channels)} channels", expected)


def _impossible(recording: Recording, board: Described) -> Iterator[str]:
    for kind, (low, high) in board.bounds.items():
        for name, values in recording.of_kind(kind).items():
            if values and not low <= min(values) <= max(values) <= high:
                beyond = min(values) if min(values) < low else max(values)
                yield f"{name} of {beyond:g}, where {low:g} to {high:g} can be"
    rails = [channel.name for channel in recording.channels if channel.kind == "power"]
    if rails:
        low, high = board.power_w
        for sample in recording.samples:
            watts = sum(
                value or 0.0
                for value, channel in zip(sample.values, recording.channels, strict=True)
                if channel.kind == "power"
            )
            if not low <= watts <= high:
                yield f"{watts:g} W, where {low:g} to {high:g} can be"
                return


def _falling(recording: Recording) -> Iterator[str]:
    """Counters that count backwards."""
    for name, values in recording.of_kind("alarm").items():
        if name.endswith("_events") and values != sorted(values):
            yield f"{name} fell"


CHECKS: dict[str, Check] = {"machine": _machine, "channels": _channels}
