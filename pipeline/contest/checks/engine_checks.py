"""Checks of the engine's own account: passes, their times, the tokens that went through them, and what was asked of it.

A pass gives each answer one token, and one more for each draft that it accepts; it reads the weights once. So neither
their number nor their time is free.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from statistics import median, median_high

from pipeline import settings
from pipeline.check import INTEGRITY, INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.checks.facts import Check, Facts
from pipeline.contest.checks.submitted import Stats
from pipeline.contest.checks.timing_checks import CLOSE_S, pass_s

SLOWEST_REPEAT, FASTEST_REPEAT = 3.0, 0.4
"""Bounds of a section's time as multiples of the median: a faster one did not do the same work."""

FASTEST_PASS = 0.3
"""Least time of a pass, as a share of the fastest pass that the warm-up measured."""

REFERENCE = "reference"


def _repeats(facts: Facts) -> CheckResult:
    """Check that sections take alike and each has passes: kept answers would make a later one faster, or idle."""
    manifest = facts.manifest
    timed, middle, larger = (
        manifest.phases_s.timed,
        median(manifest.phases_s.timed),
        median_high(manifest.phases_s.timed),
    )
    outliers = [t for t in timed if not FASTEST_REPEAT * larger <= t <= SLOWEST_REPEAT * middle]
    idle = [number for number, each in enumerate(manifest.sections, start=1) if each.passes < 1]
    idle = idle if manifest.engine.stats is not None else []  # the reference tells of no passes
    wrong = [f"{t:.3f} s beside a median of {middle:.3f}" for t in outliers]
    wrong += [f"section {number} without a pass" for number in idle]
    expected = (
        f"sections that take {FASTEST_REPEAT} to {SLOWEST_REPEAT} times their median, each with passes of its own"
    )
    return decided("repeats", INVALID_RUN, not wrong, listed(wrong) or f"{len(timed)} sections", expected)


def _passes(facts: Facts) -> CheckResult:
    """Check the engine's count and time of passes against the section, its answers, and what the warm-up measured."""
    manifest = facts.manifest
    stats, cost = manifest.engine.stats, manifest.engine.cost
    expected = "passes for every token of an answer, that fit into the section, none faster than the warm-up's smallest"
    if manifest.engine.name == REFERENCE and stats is None:
        wrong = list(_of_the_reference(facts))
        return decided(
            "passes", INVALID_RUN, not wrong, listed(wrong) or "as pipe() works", "one prompt after the other"
        )
    if stats is None or cost is None or not cost.elapsed_s:
        return decided("passes", INVALID_RUN, False, "the engine tells of none", expected)
    last_s = manifest.phases_s.timed[-1]
    least_s = FASTEST_PASS * min(cost.elapsed_s) * stats.passes
    wrong = [f"{stats.passes_s:.3f} s of passes in {last_s:.3f} s"] * (not 0 < stats.passes_s <= last_s + CLOSE_S)
    wrong += [f"{stats.passes} passes in {last_s:.4f} s"] * (last_s < least_s)
    wrong += ["as many passes as the section counted"] * (stats.passes != manifest.sections[-1].passes)
    if stats.drafts_accepted is None or stats.prompt_rows is None or stats.answer_rows is None:
        return unknown("passes", INVALID_RUN, "it tells of no drafts or rows", expected)
    wrong += _too_few(facts, stats)
    actual = f"{stats.passes} in {stats.passes_s:.3f} s"
    return decided("passes", INVALID_RUN, not wrong, f"not: {listed(wrong)}" if wrong else actual, expected)


def _too_few(facts: Facts, stats: Stats) -> Iterator[str]:
    """Passes that could not have given all tokens of the answers."""
    lengths = [len(answer.token_ids) for answer in facts.submitted.answers]
    accepted = sum((stats.drafts_accepted or {}).values())
    least = max(max(lengths, default=0) - accepted, -(-(sum(lengths) - accepted) // max(1, len(lengths))))
    if 0 < stats.passes < least:
        yield f"{stats.passes} passes, where its answers and drafts need {least}"


def _of_the_reference(facts: Facts) -> Iterator[str]:
    """Claims about pipe() that cannot be: it answers in the data's order, a token in each pass, without counting."""
    manifest, answers = facts.manifest, facts.submitted.answers
    if any(section.passes for section in manifest.sections):
        yield "passes, which it does not count"
    indices = [answer.index for answer in answers]
    if indices != sorted(indices):
        yield "answers in another order than the data's"
    size = max(1, manifest.request.batch_size or 1)
    lengths = [len(answer.token_ids) for answer in answers]
    least_s = pass_s(facts) * sum(max(lengths[at : at + size]) for at in range(0, len(lengths), size))
    if (fastest_s := min(manifest.phases_s.timed)) < least_s:
        yield f"{fastest_s:.4g} s, where a pass a token takes {least_s:.4g}"


def _costs(facts: Facts) -> CheckResult:
    """Check the times of passes by their rows, which the warm-up measured: none beats reading the weights once."""
    engine = facts.manifest.engine
    expected = f"ascending numbers of rows, each with a time of at least {pass_s(facts):.3g} s, for the weights once"
    if engine.cost is None:
        fine = True if engine.name == REFERENCE and engine.stats is None else None
        return decided("costs", INVALID_RUN, fine, "the engine tells of none", expected)
    rows, times = engine.cost.rows, engine.cost.elapsed_s
    wrong = ["not a time for each"] * (len(rows) != len(times) or not rows)
    wrong += ["rows that do not ascend from one"] * (rows != sorted(set(rows)) or min(rows, default=1) < 1)
    least_s = min(times, default=0.0)
    wrong += [f"{least_s:.3g} s"] * (least_s <= 0 or least_s < pass_s(facts))
    return decided("costs", INVALID_RUN, not wrong, listed(wrong) or f"{least_s:.3g} s at least", expected)


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


def _request(facts: Facts) -> CheckResult:
    """Check what was asked for against what ran: data, model, engine, precision, device, number of tokens."""
    run = facts.manifest
    request, most = run.request, run.arguments.get("max_new_tokens")
    pairs = {
        "data": (settings.dataset_name(request.dataset), run.dataset.name),
        "model": (PurePosixPath(request.model).name, PurePosixPath(run.model.name).name),
        "engine": (request.engine, run.engine.name),
        "dtype": (request.dtype, run.dtype),
        "device": (None if request.device is None else request.device.partition(":")[0], run.device.partition(":")[0]),
        "max_new_tokens": (request.max_new_tokens, most),
    }
    wrong = [
        f"{key}: {asked!r} asked for, {told!r} told"
        for key, (asked, told) in pairs.items()
        if asked not in (None, told)
    ]
    submission = facts.submitted.submission
    for key, claimed, name in (("model", submission.model.name, run.model.name),
                               ("data", submission.dataset.name, run.dataset.name)):  # fmt: skip
        wrong += [f"{key}: submission.json says {claimed!r}, the manifest {name!r}"] * (claimed != name)
    repeats = _option(run.command, "--repeat")
    wrong += [f"--repeat {repeats} in its command"] * (repeats not in (None, str(request.repeat)))
    expected = "the run did what its options say"
    return decided(
        "request", INTEGRITY, not wrong, listed(wrong, 3) or f"{run.model.name} on {run.dataset.name}", expected
    )


def _option(command: list[str], name: str) -> str | None:
    """An option's value in a command line; None without it."""
    at = command.index(name) + 1 if name in command else len(command)
    return command[at] if at < len(command) else None


CHECKS: dict[str, Check] = {
    "repeats": _repeats,
    "passes": _passes,
    "costs": _costs,
    "work": _work,
    "request": _request,
}
