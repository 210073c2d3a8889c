"""A run held against another, for its page: how many times as fast, both times as bars, equal answers, energy.

The other run is the yardstick, A of `pipeline/accuracy/compare`.
"""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes

from pipeline.accuracy import compare
from pipeline.accuracy.compare import Comparison, Run
from pipeline.record import run_folder, speed
from pipeline.record.speed import DIFFERENT, Speed, Times, shown_s
from pipeline.report.facts import Facts, value
from pipeline.report.plots import INK, SERIES, Plot, plot

NAMES = ("The other", "this run")
"""Of A and B in sentences."""


@dataclass(frozen=True)
class Against:
    comparison: Comparison
    seen: Facts
    other: Run
    speed: Speed
    plot: Plot | None
    """None where the two have no times that compare."""

    @property
    def name(self) -> str:
        """The other run's folder."""
        return self.other.path.name

    @property
    def tile(self) -> tuple[str, str, str]:
        """The big figure, its unit, and a line below it."""
        ratio = self.speed.ratio
        if ratio is None or self.speed.a is None or self.speed.b is None:
            return "–", "", f"{self.speed.why_not}."
        times = f"{shown_s(self.speed.b.middle_s)} against {shown_s(self.speed.a.middle_s)}"
        if abs(ratio - 1) < DIFFERENT:
            return "1.0 ×", "as fast", f"{times}: within {DIFFERENT:.0%}"
        if ratio > 1:
            return f"{ratio:.3g} ×", "as fast", times
        return f"{1 / ratio:.3g} ×", "as long", times

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Label and value: what is equal between the two, and what is not."""
        made, seen = self.comparison, self.seen
        return [
            ("equal answers", f"{made.byte_equal:,} of {made.rows:,}, byte for byte"),
            ("the contest's 0.5 % rule", made.verdict),
            ("energy", self.energy or "not measured"),
            *(
                (label, _one_or_both(seen.get(key), value(self.other.manifest, key)))
                for label, key in (("model", "model.name"), ("numbers", "dtype"))
            ),
            ("commit", _one_or_both(seen.get("code.commit"), value(self.other.manifest, "code.commit"), 12)),
            ("device", _one_or_both(self.speed.b and self.speed.b.device, self.speed.a and self.speed.a.device)),
        ]

    @property
    def energy(self) -> str | None:
        """Both runs' energies; None where one is not known."""
        a, b = self.speed.a, self.speed.b
        if a is None or b is None or a.energy_j is None or b.energy_j is None:
            return None
        return f"{b.energy_j:,.0f} J against {a.energy_j:,.0f} J"


def read(against: str, seen: Facts, execute_code: bool) -> Against:
    """Compare a run with its baseline. Raises what comparing raises."""
    compared = compare.compare(against, str(seen.folder), execute_code)
    other = compare.read(run_folder.find(against))
    times = speed.between(other.manifest, seen.manifest, len(other.outputs), len(seen.rows), NAMES)
    return Against(
        compared,
        seen,
        other,
        times,
        _bars(times, str(seen.get("request.engine")), str(value(other.manifest, "request.engine"))),
    )


def _one_or_both(this: object, other: object, most: int = 60) -> str:
    this, other = (str(each)[:most] if each else "unknown" for each in (this, other))
    return f"{this}, both" if this == other else f"{this}; the baseline {other}"


def _bars(times: Speed, this: str, other: str) -> Plot | None:
    if times.ratio is None or times.a is None or times.b is None:
        return None
    pairs: list[tuple[str, Times, str]] = [
        (f"this run, {this}", times.b, SERIES[0]),
        (f"the baseline, {other}", times.a, SERIES[5]),
    ]

    def draw(axes: Axes) -> None:
        for place, (label, each, colour) in enumerate(pairs):
            axes.barh(place, each.middle_s, height=0.42, color=colour)
            low, high = min(each.sections_s), max(each.sections_s)
            if high > low:
                axes.hlines(place, low, high, colors=INK, linewidth=1.4)
                axes.vlines([low, high], place - 0.1, place + 0.1, colors=INK, linewidth=1.4)
            axes.text(0, place - 0.3, f"{label}: {each.words}", va="bottom", fontsize=10)  # above: a phone is narrow
        axes.set_ylim(1.35, -0.75)
        axes.set_xlim(0, max(max(each.sections_s) for _, each, _ in pairs) * 1.02)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="both")  # it would run through the words
        axes.set_xlabel("seconds")

    several = any(len(each.sections_s) > 1 for _, each, _ in pairs)
    words = "The time under the clock" + (
        ": the median, and from the shortest to the longest section." * several or "."
    )
    return plot("against", "Both times", words, draw, height_in=2.2)
