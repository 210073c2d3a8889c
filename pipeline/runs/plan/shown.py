"""A plan for the terminal and for programs: what was assumed and by whose figures, then the sets."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipeline import table
from pipeline.runs.plan import MIB, Plan, Seconds, SetPlan
from pipeline.schemas.devices import Range
from pipeline.table import Column, lay_out

NAMES = ("low", "likely", "high")


def text(planned: Plan) -> str:
    """For the terminal: what was assumed, then a row a set for its counts and one for its seconds."""
    device = planned.device
    unseen = device.measured is None
    left = device.memory_mib - device.in_use_mib - planned.weights_bytes / MIB
    weights_mib = f"{planned.weights_bytes / MIB:,.0f}"
    facts = [
        ("device", device.title),
        ("memory", f"{device.memory_mib:,} MiB, {device.in_use_mib:,} in use, weights {weights_mib}, left {left:,.0f}"),
        ("plan", planned.memory.text()),
        (
            "weights",
            f"read in {planned.sweep_s * 1e3:.0f} ms, as long as {planned.break_even_rows:,.0f} rows take",
        ),
        ("tokens", f"counted with the tokenizer of {planned.tokenizer}"),
        *_rests_on(planned),
    ]
    head = f"{planned.model} on {device.name}: a PREDICTION" + "; nothing here was measured on that device" * unseen
    counts = lay_out(COUNTS, [_counts(each) for each in planned.sets])
    return "\n".join([head, *_folded(facts), "", *counts, "", *_seconds_table(planned)])


COUNTS = (
    Column("set"),
    *(Column(title, right=True) for title in ("prompts", "tokens", "as a tree", "answers", "longest", "passes")),
)


def _counts(each: SetPlan) -> list[str]:
    seen = each.forecast
    counts = (each.prompts, each.prompt_tokens, seen.prompt_rows, each.answer_tokens, each.longest, len(seen.pass_rows))
    return [each.name, *(f"{count:,}" for count in counts)]


def _seconds_table(planned: Plan) -> list[str]:
    modes = list(planned.sets[0].modes) if planned.sets else []
    heads = [f"predicted, {modes[0]}".rstrip(", "), *modes[1:]] if modes else []
    columns = (Column("set"), *(Column(title, right=True) for title in heads), Column("bound by"))
    rows = [[each.name, *(_range(each.modes[mode]) for mode in modes), each.bound_by] for each in planned.sets]
    return lay_out(columns, rows)


def _range(seconds: Seconds) -> str:
    if seconds.fastest == seconds.slowest:
        return f"{seconds.likely:.1f} s"
    return f"{seconds.likely:.1f} s ({seconds.fastest:.1f} to {seconds.slowest:.1f})"


def _rests_on(planned: Plan) -> Iterator[tuple[str, str]]:
    device = planned.device
    if planned.measured and device.measured is not None:
        yield "rests on", device.measured.source
        return
    if device.measured is not None:
        yield "rests on", f"rates of another model, {device.measured.model}, on this device: {device.measured.source}"
        return
    where, gb_per_s = f" in {device.mode}" * bool(device.mode), f"{device.bytes_per_s / 1e9:.0f} GB/s"
    yield from _rates("products", device.flops_share, f"of {device.flops_per_s / 1e12:.1f} TFLOP/s{where}")
    yield from _rates("reading", device.bytes_share, f"of {gb_per_s}{where}")
    for name, mode in device.modes.items():
        yield name, f"products by the same shares of {mode.flops_per_s / 1e12:.1f} TFLOP/s; reading:"
        yield from _rates("", mode.bytes_share, f"of {gb_per_s}")
    if device.assumption:
        yield "assumed", device.assumption


def _rates(title: str, shares: Range, of: str) -> Iterator[tuple[str, str]]:
    if shares.low is None and shares.high is None:
        yield title, f"{shares.likely.value:.0%} {of}: {shares.likely.source}"
        return
    for name in NAMES:
        yield title if name == NAMES[0] else "", f"{name:<6} {shares.at(name).value:.0%} {of}: {shares.at(name).source}"


def _folded(facts: list[tuple[str, str]]) -> Iterator[str]:
    width = max(60, min(table.terminal_width() or 120, 120))
    for label, words in facts:
        yield from textwrap.wrap(f"  {label:<8} {words}", width, subsequent_indent=" " * 11, break_long_words=False)


def as_json(planned: Plan) -> dict[str, Any]:
    """The same for programs."""
    return {**asdict(planned), "device": planned.device.model_dump(), "prediction": True}
