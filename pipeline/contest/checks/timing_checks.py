"""Checks of the clock: whether the times of a run can all be true of one process on the device that it names.

Every interval is recorded several ways: as a duration, on one timeline, by the moments at which answers were finished,
in the log, and between two times of day. A time that was edited has to be edited everywhere, and may not fall below
the floor: what the device needs for reading the weights and for the arithmetic that nobody can leave out. A false time
above that floor, edited everywhere, passes here; only measuring again finds it (`contest/verify/again/checks.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from statistics import median

from pipeline import settings
from pipeline.check import INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.checks import device_checks
from pipeline.contest.checks.facts import Check, Facts
from pipeline.contest.checks.organiser import ITEM_BYTES
from pipeline.contest.checks.submitted import Manifest
from pipeline.device import board

CLOSE_S = 1e-3
"""Tolerance between two records of one interval."""

MOST_IDLE_S = 2.0
"""Most between two sections, and from the last to the end of the telemetry: nothing is done there. Before the first, a
run may wait for its data, where these come through a pipe."""

CLOCK_SLACK_S, CLOCK_SLACK_SHARE = 5.0, 0.02
"""Tolerance between the time of day and the interval clock, for corrections by time servers during a run."""

FASTEST_GPU = (8e12, 2.5e15)
"""Bytes and dense bfloat16 FLOP a second of the fastest GPU on sale (NVIDIA B200, data sheet): the ceiling of a GPU
that is not described under configs/devices."""

CORE_FLOPS = {"float32": 3.2e11, "bfloat16": 1e13}
"""Highest FLOP a second of one core, by dtype: two AVX-512 units at 5 GHz; AMX tiles."""
HOST_BYTES_PER_S = 1e12

MOST_LOG_BYTES = 4 << 20
LOGGED = re.compile(r"INFO (\d+) prompts in (\d+\.\d+) s, (\d+) tokens$", re.MULTILINE)


def _phases(facts: Facts) -> CheckResult:
    manifest = facts.manifest
    phases = manifest.phases_s
    wrong = [
        name
        for name, value in (("load", phases.load), ("warm-up", phases.warm_up), ("attestation", phases.attestation))
        if value < 0
    ]
    wrong += [f"section {number}" for number, value in enumerate(phases.timed, start=1) if value <= 0]
    wrong += ["the median of the sections"] * (abs(median(phases.timed) - manifest.elapsed_s) > CLOSE_S)
    wrong += ["as many sections as --repeat says"] * (len(phases.timed) != manifest.request.repeat)
    whole_s, once_s = _reading_s(facts)
    wrong += [
        f"{name} of {value:.3g} s, where reading the weights takes {least_s:.3g}"
        for name, value, least_s in (
            ("a load", phases.load, whole_s),
            ("a warm-up", phases.warm_up, once_s),
            ("an attestation", phases.attestation, whole_s),
        )
        if 0 <= value < least_s
    ]
    expected = "durations above zero, with time to read the weights"
    return decided("phases", INVALID_RUN, not wrong, f"wrong: {listed(wrong)}" if wrong else "consistent", expected)


def _reading_s(facts: Facts) -> tuple[float, float]:
    """Seconds that the device needs at least to read all weights, and those of one pass; 0 where they are not known."""
    model, rate = facts.model, ceiling(facts.manifest).bytes_per_s
    if model is None or model.shape is None or model.size_bytes is None:
        return 0.0, 0.0
    return model.size_bytes / rate, pass_s(facts)


def pass_s(facts: Facts) -> float:
    """Seconds that one pass needs at least, for reading the layers' weights; 0 where they are not known."""
    if facts.model is None or facts.model.shape is None:
        return 0.0
    item_bytes = ITEM_BYTES.get(facts.manifest.dtype, 2)
    return facts.model.shape.swept_parameters * item_bytes / ceiling(facts.manifest).bytes_per_s


def _timeline(facts: Facts) -> CheckResult:
    """Check the order: load, warm-up, the sections one after the other within the telemetry, then attestation."""
    manifest = facts.manifest
    line, phases = manifest.timeline_s, manifest.phases_s
    timed = line.timed
    order = [*line.load, *line.warm_up, line.telemetry[0], *(moment for pair in timed for moment in pair)]
    order += [line.telemetry[1], *line.attestation]
    pairs = [(line.load, phases.load), (line.warm_up, phases.warm_up), (line.attestation, phases.attestation)]
    pairs += [(line.telemetry, manifest.telemetry.elapsed_s), *zip(timed, phases.timed, strict=False)]
    wrong = [f"{end - start:.3f} s are told as {elapsed:.3f}" for (start, end), elapsed in pairs
             if abs(end - start - elapsed) > CLOSE_S]  # fmt: skip
    wrong += ["its parts are not in this order, or overlap"] * any(
        later < earlier - CLOSE_S for earlier, later in pairwise(order)
    )
    wrong += ["it begins before its zero"] * (order[0] < 0)
    starts, ends = [start for start, _ in timed[1:]], [end for _, end in timed]
    idle_s = max(start - end for start, end in zip([*starts, line.telemetry[1]], ends, strict=True))
    wrong += [f"{idle_s:.1f} s behind a section that nothing is told of"] * (idle_s > MOST_IDLE_S)
    wrong += ["not a part for each section"] * (not len(timed) == len(phases.timed) == len(manifest.sections))
    expected = "load, warm-up, telemetry around the timed sections, attestation; each as long as recorded"
    return decided("timeline", INVALID_RUN, not wrong, listed(wrong) or "in order", expected)


def _answer_times(facts: Facts) -> CheckResult:
    """Check that the answers were finished within the first section, in the file's order."""
    submitted = facts.submitted
    moments = [answer.at_s for answer in submitted.answers if answer.at_s is not None]
    section_s = submitted.manifest.phases_s.timed[0]
    expected = f"ascending, within the {section_s:.3f} s of the first section"
    if len(moments) < len(submitted.answers) or not moments:
        return decided("answer-times", INVALID_RUN, False, "answers without a time", expected)
    wrong = ["not ascending"] * (moments != sorted(moments))
    wrong += ["before the section began"] * (min(moments) <= 0)
    wrong += ["before a pass can have ended"] * (0 < min(moments) < pass_s(facts))
    wrong += ["after the section ended"] * (max(moments) > section_s)
    return decided(
        "answer-times", INVALID_RUN, not wrong, listed(wrong) or f"{moments[0]:.3f} to {moments[-1]:.3f} s", expected
    )


def _wall_clock(facts: Facts) -> CheckResult:
    manifest = facts.manifest
    wall_s = (manifest.ended_utc - manifest.began_utc).total_seconds()
    line_s = manifest.timeline_s.attestation[1]
    slack_s = CLOCK_SLACK_S + CLOCK_SLACK_SHARE * max(0.0, wall_s)
    # No slack ends a run before it began, however short it is.
    fine = wall_s >= 0 and abs(wall_s - line_s) <= slack_s
    found = f"{wall_s:.1f} s by the time of day, {line_s:.1f} s by the interval clock"
    expected = f"the same within {slack_s:.1f} s"
    board = device_checks.of(facts)
    begun, ended = manifest.began_utc.replace(tzinfo=None), manifest.ended_utc.replace(tzinfo=None)
    tomorrow = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(days=1)
    if ended > tomorrow or (board is not None and begun.date() < board.since):
        since = "" if board is None else f", not before {board.since}, when its release came out"
        return decided("wall-clock", INVALID_RUN, False, f"a run of {begun.date()}", f"a run that has been{since}")
    return decided("wall-clock", INVALID_RUN, fine, found, expected)


def _log(facts: Facts) -> CheckResult:
    submitted, manifest = facts.submitted, facts.manifest
    path = submitted.run / "run.log"
    form = "a line in run.log for each section, with its prompts, seconds and tokens"
    if not path.is_file() or path.stat().st_size > MOST_LOG_BYTES:
        return decided("log", INVALID_RUN, False, "no run.log of a sensible size", form)
    logged = LOGGED.findall(path.read_text(encoding="utf-8", errors="replace"))
    expected = [
        (len(submitted.answers), section_s, section.answer_tokens)
        for section_s, section in zip(manifest.phases_s.timed, manifest.sections, strict=False)
    ]
    fine = len(logged) == len(expected) and all(
        (int(line[0][:12]), int(line[2][:12])) == (prompts, tokens) and abs(float(line[1]) - elapsed_s) <= CLOSE_S
        for line, (prompts, elapsed_s, tokens) in zip(logged, expected, strict=True)
    )
    return decided("log", INVALID_RUN, fine, listed(f"{line[0]} in {line[1]} s" for line in logged) or "none", form)


@dataclass(frozen=True)
class Ceiling:
    """The peak rates of a device, by its data sheet."""

    title: str
    bytes_per_s: float
    flops_per_s: float


def ceiling(manifest: Manifest) -> Ceiling:
    """The ceiling of the device that the manifest names."""
    gpu, seen = manifest.environment.gpu or "", manifest.board.before.board
    name = "orin-32gb" if seen.module == board.TARGET_MODULE else "h100-80gb" if "H100" in gpu else None
    if name is not None:
        device = settings.device(name)
        return Ceiling(device.title, device.bytes_per_s, device.flops_per_s)
    if manifest.device != "cpu" or seen.is_jetson:
        return Ceiling(gpu or "a GPU", *FASTEST_GPU)
    cores = max(1, min(manifest.environment.cores or 1024, 1024))
    flops = CORE_FLOPS.get(manifest.dtype, CORE_FLOPS["bfloat16"])
    return Ceiling(f"{cores} cores", HOST_BYTES_PER_S, cores * flops)


def _floor(facts: Facts) -> CheckResult:
    """Check that no section beats the floor: the time to read the layers' weights once or to compute every distinct
    prompt token, whichever is longer.

    The arithmetic leaves out the last layer, where an engine may skip what no answer depends on. The roofline: see
    `engine/cost.py`.
    """
    from pipeline.engine import prefix_tree  # noqa: PLC0415 - torch

    manifest, best, model, encoded = facts.manifest, ceiling(facts.manifest), facts.model, facts.prompts
    fastest_s = min(manifest.phases_s.timed)
    if model is None or model.shape is None:
        return unknown(
            "floor", INVALID_RUN, f"the shape of {manifest.model.name} is not known here", "no faster than light"
        )
    shape, weights_s = model.shape, pass_s(facts)
    arithmetic_s = 0.0
    if encoded:
        rows = prefix_tree.build(encoded).tokens
        arithmetic_s = rows * shape.flops_per_row * (1 - 1 / shape.layers) / best.flops_per_s
    floor_s = max(weights_s, arithmetic_s)
    expected = f"at least {floor_s:.3g} s: what {best.title} needs for the weights once, or for the prompts' arithmetic"
    return decided("floor", INVALID_RUN, fastest_s >= floor_s, f"{fastest_s:.6g} s", expected)


CHECKS: dict[str, Check] = {
    "phases": _phases,
    "timeline": _timeline,
    "answer-times": _answer_times,
    "wall-clock": _wall_clock,
    "log": _log,
    "floor": _floor,
}
