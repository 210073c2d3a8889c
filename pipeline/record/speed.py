"""How much faster one of two runs was, by their manifests: medians of their sections, with spreads, and energy.

A time is one only where the run was not resumed; two times compare only where both runs answered as many rows.
The manifests may be damaged or a stranger's: what is no time is taken as none, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

MOST_S = 1e9
"""Also the most joules: more is no measurement."""
DIFFERENT = 0.02
"""From when on two times count as different, of the smaller: MLPerf's audit calls a result materially different from
2 % on (mlcommons/inference_policies, audit rules)."""


@dataclass(frozen=True)
class Times:
    """The timed sections of a run, seconds."""

    sections_s: tuple[float, ...]
    energy_j: float | None
    device: str

    @property
    def middle_s(self) -> float:
        return median(self.sections_s)

    @property
    def words(self) -> str:
        """The median, and how far the sections lie apart."""
        if len(self.sections_s) == 1:
            return f"{shown_s(self.middle_s)} (one section)"
        low, high = min(self.sections_s), max(self.sections_s)
        return f"{shown_s(self.middle_s)} ({shown_s(low)} to {shown_s(high)} in {len(self.sections_s)} sections)"


@dataclass(frozen=True)
class Speed:
    """A's times, B's, and how many times as fast B is; where that cannot be said, why not."""

    a: Times | None
    b: Times | None
    ratio: float | None
    """A's median over B's: above 1, B is faster."""
    why_not: str | None

    @property
    def headline(self) -> str:
        """One sentence, in which the runs are A and B."""
        if self.ratio is None or self.a is None or self.b is None:
            return f"No times to compare: {self.why_not}."
        both = f"{self.b.words} against {self.a.words}"
        if abs(self.ratio - 1) < DIFFERENT:
            said = f"B takes as long as A: {both}"
        elif self.ratio > 1:
            said = f"B is {self.ratio:.3g} × as fast as A: {both}"
        else:
            said = f"A is {1 / self.ratio:.3g} × as fast as B: {self.a.words} against {self.b.words}"
        if None not in (self.a.energy_j, self.b.energy_j):
            said += f"; energy {self.a.energy_j:,.0f} J for A, {self.b.energy_j:,.0f} J for B"
        if self.a.device != self.b.device:
            said += f"; not on one device: {self.a.device} for A, {self.b.device} for B"
        return said + "."


def between(
    a: Mapping[str, Any], b: Mapping[str, Any], rows_a: int, rows_b: int, names: tuple[str, str] = ("A", "B")
) -> Speed:
    """The speed of one run against another, by their manifests and the rows that each answered. `names`: of the
    runs, for `why_not`."""
    times, reasons = [], []
    for name, manifest in zip(names, (a, b), strict=True):
        found = _times(manifest)
        times.append(found if isinstance(found, Times) else None)
        reasons += [] if isinstance(found, Times) else [f"{name} {found}"]
    if not reasons and rows_a != rows_b:
        reasons = [f"{names[0]} answered {rows_a:,} rows, {names[1]} {rows_b:,}"]
    first, second = times
    if reasons or first is None or second is None:
        return Speed(first, second, None, "; ".join(reasons))
    return Speed(first, second, first.middle_s / second.middle_s, None)


def shown_s(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:,.0f} s"


def _times(manifest: Mapping[str, Any]) -> Times | str:
    """The times of a run, or why it has none, as the end of a sentence that begins with its name."""
    phases, telemetry = manifest.get("phases_s"), manifest.get("telemetry")
    sections = phases.get("timed") if isinstance(phases, Mapping) else None
    if manifest.get("resumed"):
        return "was resumed, so it has no valid time"
    if manifest.get("shards"):
        return "was made in shards, so it has no time that counts"
    if manifest.get("state") != "finished":
        return "did not finish"
    if not isinstance(sections, (list, tuple)) or not sections or not all(map(_is_time, sections)):
        return "has no time in its manifest"
    energy = telemetry.get("energy_j") if isinstance(telemetry, Mapping) else None
    environment = manifest.get("environment")
    gpu = environment.get("gpu") if isinstance(environment, Mapping) else None
    cpu = environment.get("processor") if isinstance(environment, Mapping) else None
    return Times(
        tuple(map(float, sections)),
        float(energy) if energy is not None and _is_time(energy) else None,
        str((gpu if manifest.get("device") != "cpu" else cpu) or manifest.get("device")),
    )


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < MOST_S
