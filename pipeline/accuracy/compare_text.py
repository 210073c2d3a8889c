"""A comparison for people: one table, the verdict in words, the rows that differ, and what the manifests say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.accuracy.compare import Comparison, Differing, Margin
from pipeline.accuracy.stats import DROP_RULE
from pipeline.check import listed
from pipeline.errors import AccuracyError
from pipeline.table import Column, lay_out

SHOWN_ROWS = 20


def text(made: Comparison) -> str:
    """For the terminal; `--json` has every row."""
    rows = f"{made.rows:,} of {made.rows_of_data:,} rows, which both answered"
    lines = ["", f"{made.dataset}: {rows}, scored by the rule `{made.rule}`"]
    lines += [f"  A  {made.runs[0]}", f"  B  {made.runs[1]}"]
    if any(made.unpaired):
        lines.append(f"  left out: {made.unpaired[0]} rows that only A answered, {made.unpaired[1]} that only B did")
    if made.note:
        lines.append(f"  note: {made.note}")
    lines += ["", f"  {made.speed.headline}", "", f"  {'byte-equal':<22}{made.byte_equal:>8,} of {made.rows:,} outputs"]
    lines.append(f"  equal bytes are {'required' if made.promise.equal else 'not required'}: {made.promise.why}")
    if made.scored:
        lines += _table(made)
    lines += ["", f"  The 0.5 % rule. {made.words}"]
    if made.differing:
        lines += ["", f"  rows that differ ({len(made.differing):,})"]
        lines += [_row(each) for each in made.differing[:SHOWN_ROWS]]
        if len(made.differing) > SHOWN_ROWS:
            lines.append(f"    … and {len(made.differing) - SHOWN_ROWS} more: --json has them all")
    lines += [
        "",
        "  what differs between the runs" if made.manifests else "  model, data, code, settings: all the same",
    ]
    lines += [f"    {name}: {_short(a, 40)} → {_short(b, 40)}" for name, a, b in made.manifests]
    return "\n".join(lines)


def as_json(made: Comparison) -> dict[str, Any]:
    """The same for programs, with every row."""
    return asdict(made)


def check_kept(made: Comparison) -> None:
    """Raise AccuracyError, so that a script can tell: A101 the rule is broken, A102 answers differ that may not."""
    if made.promise.equal and made.differing:
        raise AccuracyError(
            "A102",
            "answers differ, and both runs promise that an answer depends on its prompt alone",
            where=f"{made.runs[0]}, {made.runs[1]}: rows {listed(each.index for each in made.differing)}",
            expected="equal bytes in every row",
            actual=f"{len(made.differing):,} of {made.rows:,} rows differ",
            fix="report this: either a run is not what its manifest says, or the engine broke its promise",
        )
    if made.verdict == "broken":
        raise AccuracyError(
            "A101",
            "run B is less accurate than run A by more than the contest allows",
            where=f"{made.runs[0]}, {made.runs[1]}",
            expected=DROP_RULE,
            actual=made.words,
            fix="look at the rows that differ and at what differs between the runs, both above",
        )


def _table(made: Comparison) -> list[str]:
    low, high = made.interval or (0.0, 0.0)
    share_a, share_b = (made.both + made.only_a) / made.scored, (made.both + made.only_b) / made.scored
    rows = [("both right", made.both), ("only A right", made.only_a), ("only B right", made.only_b)]
    cells = [(name, f"{count:,}", "") for name, count in [*rows, ("neither", made.neither)]]
    cells += [
        ("accuracy A, B", f"{share_a:.2%}", f"and {share_b:.2%} of {made.scored:,} scored"),
        (
            "B minus A",
            f"{(made.difference or 0.0) * 100:+.2f}",
            f"points, 95 % interval {low * 100:+.2f} to {high * 100:+.2f}",
        ),
        ("McNemar, exact", f"p = {made.p:.3g}", ""),
    ]
    _head, *lines = lay_out([Column(), Column(right=True), Column()], cells)
    return lines


def _row(each: Differing) -> str:
    marks = "".join({True: "✓", False: "✗", None: "·"}[right] for right in each.right)
    if each.position is None:
        where = "same tokens"
    else:
        a, b = ("end" if token is None else token for token in each.tokens)
        where = f"token {each.position}: {a} → {b}"
    where = f"{where:<26}" + (f"{_margin(each.margin):<34}" if each.margin else "")
    return f"    {each.index:>6} {marks}  {where}{_short(each.texts[0])} → {_short(each.texts[1])}"


def _margin(margin: Margin) -> str:
    a, b = ("end" if behind is None else f"{behind:.3g}" for behind in margin.behind)
    return f"margin {margin.best_less_second:.3g} (behind: {a}, {b})"


def _short(value: Any, limit: int = 32) -> str:
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
