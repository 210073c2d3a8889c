"""A plan for the terminal and for programs: what was assumed and by whose figures, then the sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from pipeline import table
from pipeline.runs.plan import MIB, Plan, Seconds, SetPlan
from pipeline.schemas.devices import Range
from pipeline.table import Column

NAMES = ("low", "likely", "high")


def text(planned: Plan) -> str:
    """For the terminal: the seconds of each set, their work, the memory, and what all that rests on."""
    device = planned.device
    unseen = device.measured is None
    left = device.memory_mib - device.in_use_mib - planned.weights_bytes / MIB
    weights_mib = f"{planned.weights_bytes / MIB:,.0f}"
    facts = [
        ("device", device.title),
        ("memory", f"{device.memory_mib:,} MiB, {device.in_use_mib:,} in use, weights {weights_mib}, left {left:,.0f}"),
        ("plan", planned.memory.text()),
        ("weights", f"read in {planned.sweep_s * 1e3:.0f} ms, the time that {planned.break_even_rows:,.0f} rows take"),
        ("tokens", f"counted with the tokenizer of {planned.tokenizer}"),
    ]
    head = f"{planned.model} on {device.name}: a PREDICTION" + "; nothing here was measured on that device" * unseen
    parts = {
        "The work of each set:": [table.text(COUNTS, [_counts(each) for each in planned.sets])],
        "The device and its memory:": _labelled(facts),
        "What the times rest on:": _labelled(_rests_on(planned)),
    }
    lines = list(_seconds_table(planned))
    for title, part in parts.items():
        lines += ["", title, *part]
    return "\n".join([head, "", *lines])


COUNTS = (
    Column("set"),
    *(Column(title, right=True) for title in ("prompts", "tokens", "as a tree", "answers", "longest", "passes")),
)


def _counts(each: SetPlan) -> list[str]:
    seen = each.forecast
    counts = (each.prompts, each.prompt_tokens, seen.prompt_rows, each.answer_tokens, each.longest, len(seen.pass_rows))
    return [each.name, *(f"{count:,}" for count in counts)]


def _seconds_table(planned: Plan) -> Iterator[str]:
    modes = list(planned.sets[0].modes) if planned.sets else []
    several = any(seconds.fastest < seconds.slowest for each in planned.sets for seconds in each.modes.values())
    title = "Predicted time" + ", likely (from the fastest to the slowest)" * several
    yield title + ", in each power mode:" if len(modes) > 1 else f"{title}:"
    columns = (Column("set"), *(Column(mode or "time", right=True) for mode in modes), Column("bound by"))
    rows = [[each.name, *(_range(each.modes[mode]) for mode in modes), each.bound_by] for each in planned.sets]
    yield table.text(columns, rows)


def _range(seconds: Seconds) -> str:
    digits = 0 if seconds.likely >= 100 else 1 if seconds.likely >= 1 else 2
    if seconds.fastest == seconds.slowest:
        return f"{seconds.likely:,.{digits}f} s"
    return f"{seconds.likely:,.{digits}f} s ({seconds.fastest:,.{digits}f} to {seconds.slowest:,.{digits}f})"


def _rests_on(planned: Plan) -> Iterator[tuple[str, str]]:
    device = planned.device
    if planned.measured and device.measured is not None:
        yield "measured", device.measured.source
        return
    if device.measured is not None:
        yield "measured", f"rates of another model, {device.measured.model}, on this device: {device.measured.source}"
        return
    peak = f"{device.bytes_per_s / 1e9:,.0f} GB/s"
    modes = [(device.mode, device.flops_per_s, device.bytes_share), *(
        (name, mode.flops_per_s, mode.bytes_share) for name, mode in device.modes.items()
    )]  # fmt: skip
    for name, flops_per_s, bytes_share in modes:
        mode, of = f"{name}: " * bool(name), f"of the peak of {flops_per_s / 1e12:.1f} TFLOP/s"
        if name in device.modes:
            yield "", f"{mode}arithmetic reaches the same shares {of}"
        else:
            yield "", f"{mode}arithmetic reaches, {of}:"
            yield from _rates(device.flops_share)
        yield "", f"{mode}reading memory reaches, of the peak of {peak}:"
        yield from _rates(bytes_share)
    if device.assumption:
        yield "assumed", device.assumption


def _rates(shares: Range) -> Iterator[tuple[str, str]]:
    if shares.low is None and shares.high is None:
        yield "likely", f"{shares.likely.value:.0%}: {shares.likely.source}"
        return
    for name in NAMES:
        yield name, f"{shares.at(name).value:.0%}: {shares.at(name).source}"


def _labelled(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Each label with its words beside it; words without a label stand as a line of their own."""
    for label, words in facts:
        yield f"  {label:<8}  {words}" if label else f"  {words}"


def as_json(planned: Plan) -> dict[str, Any]:
    """The same for programs."""
    return {**asdict(planned), "device": planned.device.model_dump(), "prediction": True}
