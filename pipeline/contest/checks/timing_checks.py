"""Checks of the clock: whether the times of a run can all be true of one process on the device that it names.

Every interval is told several ways: as a duration, on one timeline, by the moments at which answers were finished, in
the log, and between two times of day. A time that was edited has to be edited everywhere, and then it meets the floor:
what the device needs for reading the weights and for the arithmetic that nobody can leave out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from pipeline import settings
from pipeline.check import INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.checks.facts import Check, Facts
from pipeline.contest.checks.organiser import ITEM_BYTES
from pipeline.contest.checks.submitted import Manifest
from pipeline.device import board

CLOSE_S = 1e-3
"""Tolerance between two records of one interval."""

CLOCK_SLACK_S, CLOCK_SLACK_SHARE = 5.0, 0.02
"""Tolerance between the time of day and the interval clock, for corrections by time servers during a run."""

SLOWEST_REPEAT, FASTEST_REPEAT = 3.0, 0.5
"""Bounds of a section's time as multiples of the median: a faster one did not do the same work."""

FASTEST_PASS = 0.3
"""Least time of a pass, as a share of the fastest pass that the warm-up measured."""

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
    wrong += ["as many sections as were asked for"] * (len(phases.timed) != manifest.request.repeat)
    return decided(
        "phases", INVALID_RUN, not wrong, f"wrong: {listed(wrong)}" if wrong else "consistent", "durations above zero"
    )


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
    wrong += ["not a part for each section"] * (not len(timed) == len(phases.timed) == len(manifest.sections))
    expected = "load, warm-up, telemetry around the timed sections, attestation; each as long as it is told"
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
    wrong += ["after the section ended"] * (max(moments) > section_s)
    return decided(
        "answer-times", INVALID_RUN, not wrong, listed(wrong) or f"{moments[0]:.3f} to {moments[-1]:.3f} s", expected
    )


def _wall_clock(facts: Facts) -> CheckResult:
    manifest = facts.manifest
    wall_s = (manifest.ended_utc - manifest.began_utc).total_seconds()
    line_s = manifest.timeline_s.attestation[1]
    slack_s = CLOCK_SLACK_S + CLOCK_SLACK_SHARE * max(0.0, wall_s)
    return decided(
        "wall-clock",
        INVALID_RUN,
        wall_s >= 0 and abs(wall_s - line_s) <= slack_s,  # no slack ends a run before it began, however short it is
        f"{wall_s:.1f} s by the time of day, {line_s:.1f} s by the interval clock",
        f"the same within {slack_s:.1f} s",
    )


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


def _repeats(facts: Facts) -> CheckResult:
    """Check that sections take alike and each has passes: kept answers would make a later one faster, or idle."""
    manifest = facts.manifest
    timed, middle = manifest.phases_s.timed, median(manifest.phases_s.timed)
    outliers = [t for t in timed if not FASTEST_REPEAT * middle <= t <= SLOWEST_REPEAT * middle]
    idle = [number for number, each in enumerate(manifest.sections, start=1) if each.passes < 1]
    idle = idle if manifest.engine.stats is not None else []  # the reference tells of no passes
    wrong = [f"{t:.3f} s beside a median of {middle:.3f}" for t in outliers]
    wrong += [f"section {number} without a pass" for number in idle]
    expected = (
        f"sections that take {FASTEST_REPEAT} to {SLOWEST_REPEAT} times their median, each with passes of its own"
    )
    return decided("repeats", INVALID_RUN, not wrong, listed(wrong) or f"{len(timed)} alike", expected)


def _passes(facts: Facts) -> CheckResult:
    """Check the engine's count and time of passes against the section and its measurements during the warm-up."""
    manifest = facts.manifest
    stats, cost = manifest.engine.stats, manifest.engine.cost
    expected = "passes that fit into the section, none faster than the warm-up's smallest"
    if stats is None or cost is None or not cost.elapsed_s:
        fine = manifest.engine.name == "reference"
        return decided("passes", INVALID_RUN, fine, "the engine tells of none", expected)
    last_s = manifest.phases_s.timed[-1]
    least_s = FASTEST_PASS * min(cost.elapsed_s) * stats.passes
    wrong = [f"{stats.passes_s:.3f} s of passes in {last_s:.3f} s"] * (not 0 < stats.passes_s <= last_s + CLOSE_S)
    wrong += [f"{stats.passes} passes in {last_s:.4f} s"] * (last_s < least_s)
    wrong += ["as many passes as the section counted"] * (stats.passes != manifest.sections[-1].passes)
    actual = f"{stats.passes} in {stats.passes_s:.3f} s"
    return decided("passes", INVALID_RUN, not wrong, f"not: {listed(wrong)}" if wrong else actual, expected)


def _work(facts: Facts) -> CheckResult:
    """Check the counts of prompt and answer tokens: a prompt that was cut or rewritten has another count."""
    from pipeline.engine import prefix_tree  # noqa: PLC0415 - torch

    submitted, encoded = facts.submitted, facts.prompts
    manifest, subject = submitted.manifest, "the tokens of all prompts and answers"
    answered = sum(len(answer.token_ids) for answer in submitted.answers)
    counts = {manifest.answer_tokens, *(section.answer_tokens for section in manifest.sections)}
    stats = manifest.engine.stats
    if stats is not None:
        counts.add(stats.answer_tokens)
    if counts != {answered}:
        return decided("work", INVALID_RUN, False, f"{answered:,} answer tokens are told as {listed(counts)}", subject)
    if stats is None or encoded is None:
        fine = True if stats is None and manifest.engine.name == "reference" else None
        return decided("work", INVALID_RUN, fine, "the prompts' tokens cannot be counted here", subject)
    expected = sum(map(len, encoded)), prefix_tree.build(encoded).tokens if encoded else 0
    fine = (stats.prompt_tokens, stats.tree_tokens) == expected
    actual = f"{stats.prompt_tokens:,} prompt tokens, {stats.tree_tokens:,} as a tree; {answered:,} answered"
    return decided("work", INVALID_RUN, fine, actual, f"{expected[0]:,}, {expected[1]:,}")


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
    shape = model.shape
    weights_s = shape.swept_parameters * ITEM_BYTES.get(manifest.dtype, 2) / best.bytes_per_s
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
    "repeats": _repeats,
    "passes": _passes,
    "work": _work,
    "floor": _floor,
}
