"""Plots as pieces of SVG that stand inside a page: they take the page's colours and letters, light or dark.

matplotlib draws with placeholder colours, each of which becomes a CSS variable of the page. The same data gives the
same bytes: no date, and ids from a fixed salt. Ids carry the plot's name, since all plots of a page share one document.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, FAINT, RULE, CARD = "#010101", "#010102", "#010103", "#010104"
SERIES = ("#010111", "#010112", "#010113", "#010114", "#010115", "#010116")
VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    RULE: "--rule",
    CARD: "--card",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)},
}
"""What the page's style gives a colour to."""

WIDTH_IN, DPI = 5.0, 100
"""A phone's whole width, and about half of a desktop's page: letters are readable at both."""

STYLE = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "text.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": FAINT,
    "legend.fontsize": 10.5,
    "lines.linewidth": 1.6,
    "figure.dpi": DPI,
}


@dataclass(frozen=True)
class Plot:
    title: str
    svg: Markup
    words: str
    """What it shows, for whom cannot see it, and as its caption."""


def plot(name: str, title: str, words: str, draw: Callable[[Axes], None], height_in: float = 2.5) -> Plot:
    """`draw` gets empty axes. `name` is unique on a page."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        draw(axes)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return Plot(title, _piece(file.getvalue(), name, title, words), words)


def thinned(values: Sequence[float], most: int = 600) -> list[int]:
    """Indices of at most so many values, evenly spread: a plot has no more pixels than that."""
    step = max(1, -(-len(values) // most))
    return list(range(0, len(values), step))


def _piece(svg: str, name: str, title: str, words: str) -> Markup:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id|clip-path|xlink:href)="(url\()?(#?)([^")]+)', rf'\1="\2\3{name}-\4', svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # it would be the whole page's
    svg = re.sub(r"font-family: [^;]*; ?", "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    label = f"{escape(title)}. {escape(words)}"
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box} role="img" aria-label="{label}">'
    return Markup(head + svg[svg.index(">") + 1 :].strip())
