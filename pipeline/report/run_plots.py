"""The plots of a run's page. Each draws only what was recorded: a gap stays a gap, and nothing is a plot of nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.engine.cost import PassCost
from pipeline.record.timeline import Pass
from pipeline.report.facts import Channel, Facts, Samples
from pipeline.report.plots import CARD, FAINT, RULE, SERIES, Plot, plot, thinned

BARS = 300
"""Passes that are drawn as bars of their own; more are one filled outline of their means."""

LANES = ("read", "tokenise", "plan", "passes", "texts")

UNITS = (
    ("W", "Power", "watts", ""),
    ("C", "Temperature", "°C", ""),
    ("MHz", "Clocks", "MHz", ""),
    ("MiB", "Memory of the whole machine", "GiB", "Available to programs, and swapped out"),
)


def of_passes(facts: Facts) -> list[Plot]:
    """The timed section as a waterfall, what its passes held, and what each took against the cost model."""
    if not facts.passes:
        return []
    plots = [_rows(facts.passes)]
    if lanes := waterfall_lanes(facts):
        plots.insert(0, _waterfall(lanes))
    if cost := cost_of(facts):
        plots.append(_against_cost(facts.passes, began_s(facts), cost))
    return plots


def of_board(facts: Facts) -> list[Plot]:
    """Power, temperature, clocks and memory over time: only of channels that gave values."""
    if facts.samples is None:
        return []
    section = _section(facts)
    return [
        _channels(facts.samples, channels, unit, section)
        for unit in UNITS
        if (channels := facts.samples.of_unit(unit[0]))
    ]


def cost_of(facts: Facts) -> PassCost | None:
    """The cost model that warm-up measured on the device; None where the manifest holds none."""
    rows, elapsed_s = facts.get("engine.cost.rows"), facts.get("engine.cost.elapsed_s")
    return PassCost(tuple(rows), tuple(elapsed_s)) if rows and elapsed_s and len(rows) == len(elapsed_s) else None


def began_s(facts: Facts) -> float:
    """When the first pass could be packed: seconds after the engine was called."""
    return facts.get("stages_s.plan") or 0.0


def pass_times(passes: Sequence[Pass], began: float) -> list[float]:
    """Seconds of each pass, from the end of the one before."""
    return [now - before for before, now in pairwise([began, *(each.end_s for each in passes)])]


def waterfall_lanes(facts: Facts) -> dict[str, list[tuple[float, float]]] | None:
    """Lane to its pieces, start and length; seconds of the timed section. None where the stages were not recorded."""
    stages = facts.get("stages_s") or {}
    if not {"read", "tokenise", "plan", "passes"} <= stages.keys():
        return None
    called = stages["read"] + stages["tokenise"]
    starts = [called + stages["plan"], *(called + each.end_s for each in facts.passes)]
    return {
        "read": [(0.0, stages["read"])],
        "tokenise": [(stages["read"], stages["tokenise"])],
        "plan": [(called, stages["plan"])],
        "passes": [(start, end - start) for start, end in pairwise(starts)],
        "texts": [(called + each.end_s, each.handed_on_s) for each in facts.passes if each.handed_on_s],
    }


def _waterfall(lanes: Mapping[str, Sequence[tuple[float, float]]]) -> Plot:
    end = max(start + length for pieces in lanes.values() for start, length in pieces)

    def draw(axes: Axes) -> None:
        for place, (name, pieces) in enumerate(lanes.items()):
            total = sum(length for _, length in pieces)
            if name == "texts":  # each too short to be seen at its true width
                starts = [start for start, _ in pieces]
                axes.vlines(
                    [starts[i] for i in thinned(starts)], place - 0.32, place + 0.32, colors=SERIES[4], linewidth=1
                )
            else:
                whole = (pieces[0][0], total)  # of passes too, which follow one another
                axes.broken_barh([whole], (place - 0.32, 0.64), facecolors=SERIES[place])
            if name == "passes" and len(pieces) <= BARS:
                axes.vlines([start for start, _ in pieces[1:]], place - 0.32, place + 0.32, colors=CARD, linewidth=0.8)
            # Behind the lane, in a margin of their own: a lane too thin to be seen still says how long it is.
            axes.text(1.02 * end, place, seconds(total), va="center", fontsize=10)
        axes.set_yticks(range(len(lanes)), list(lanes))
        axes.set_xlim(0, end)
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds of the timed section")

    return plot(
        "waterfall",
        "The timed section",
        "Reading the file, tokenising, planning, the passes one after another, and between them, marked by where they "
        "happened, the making and writing of texts.",
        draw,
    )


def _rows(passes: Sequence[Pass]) -> Plot:
    places = range(1, len(passes) + 1)
    prompt, total = [each.prompt_rows for each in passes], [each.rows for each in passes]

    def draw(axes: Axes) -> None:
        if len(passes) <= BARS:
            axes.bar(places, prompt, width=0.8, color=SERIES[0], label="prompts")
            answer = [each.answer_rows for each in passes]
            axes.bar(places, answer, width=0.8, bottom=prompt, color=SERIES[3], label="answers and drafts")
        else:
            size = -(-len(passes) // BARS)
            groups = [passes[start : start + size] for start in range(0, len(passes), size)]
            ends = [start * size + len(group) / 2 for start, group in enumerate(groups)]
            for rows, colour, label in (
                ([sum(each.rows for each in group) / len(group) for group in groups], SERIES[3], "answers and drafts"),
                ([sum(each.prompt_rows for each in group) / len(group) for group in groups], SERIES[0], "prompts"),
            ):
                axes.fill_between(ends, rows, step="mid", color=colour, linewidth=0, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("pass")
        axes.set_ylabel("rows")
        axes.set_ylim(0, 1.22 * max(total))
        axes.legend(ncols=2, loc="upper left", borderaxespad=0)

    words = (
        f"{len(passes):,} passes of {min(total):,} to {max(total):,} rows, which are tokens of prompts and of answers."
    )
    return plot("rows", "What the passes held", words, draw)


def _against_cost(passes: Sequence[Pass], began: float, cost: PassCost) -> Plot:
    rows, times = [each.rows for each in passes], pass_times(passes, began)
    curve = sorted({*range(1, max(rows) + 1, max(1, max(rows) // 100)), max(rows)})

    def draw(axes: Axes) -> None:
        axes.plot(curve, [1e3 * cost.seconds(n) for n in curve], color=FAINT, label="predicted from warm-up")
        shown = thinned(rows)
        axes.scatter(
            [rows[i] for i in shown], [1e3 * times[i] for i in shown], s=14, color=SERIES[1], label="measured", zorder=3
        )
        axes.set_xlabel("rows of a pass")
        axes.set_ylabel("ms")
        axes.set_ylim(0, 1.22 * max(1e3 * max(times), 1e3 * cost.seconds(max(rows))))
        axes.legend(ncols=2, loc="upper left", borderaxespad=0)

    measured, predicted = sum(times), sum(cost.seconds(n) for n in rows)
    words = f"All passes took {seconds(measured)}; the cost model, measured in warm-up, says {seconds(predicted)}."
    return plot("cost", "Passes against the cost model", words, draw)


def _channels(
    samples: Samples, channels: Sequence[Channel], unit: tuple[str, str, str, str], section: tuple[float, float] | None
) -> Plot:
    suffix, title, axis, what = unit
    scale = 1 / 1024 if suffix == "MiB" else 1.0

    def draw(axes: Axes) -> None:
        if section is not None:
            axes.axvspan(*section, color=RULE, alpha=0.35, linewidth=0)
        for number, channel in enumerate(channels):
            shown = thinned(samples.at_s)
            values = [channel.values[i] for i in shown]
            axes.plot(
                [samples.at_s[i] for i in shown],
                [float("nan") if value is None else value * scale for value in values],
                color=SERIES[number % len(SERIES)],
                linestyle=("-", "--", ":")[number // len(SERIES) % 3],
                label=channel.name.removesuffix(f"_{suffix}").replace("_", " "),
            )
        axes.set_xlabel("seconds")
        axes.set_ylabel(axis)
        axes.margins(y=0.15)
        if suffix != "C":
            axes.set_ylim(bottom=0)
        axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.28), columnspacing=1.2)

    partly = [
        f"{channel.name} was read in {channel.coverage:.0%} of them" for channel in channels if channel.coverage < 1
    ]
    words = f"{what}. " * bool(what) + f"{len(samples.at_s):,} samples" + "".join(f"; {each}" for each in partly) + "."
    if section is not None:
        words += " Shaded: the timed sections."
    lines = -(-len(channels) // 2)
    return plot(f"channel-{suffix}", title, words, draw, height_in=2.4 + 0.2 * lines)


def _section(facts: Facts) -> tuple[float, float] | None:
    """From the start of the first timed section to the end of the last, on the telemetry's clock."""
    timed, telemetry = facts.get("timeline_s.timed"), facts.get("timeline_s.telemetry")
    if not timed or not telemetry:
        return None
    return timed[0][0] - telemetry[0], timed[-1][1] - telemetry[0]


def seconds(value: float) -> str:
    """Three digits that count, in a unit that suits."""
    if value < 0.0995:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 99.5 else f"{value:,.0f} s"
