"""The kit for all that matplotlib draws (one style in given colours, files without dates), and plots of a page.

The same data gives the same bytes with the same matplotlib. Plots of a page are pieces of SVG that take its colours and
letters, light or dark: matplotlib draws with placeholder colours, each of which becomes a CSS variable of the page. Ids
come from a fixed salt and carry the plot's name, since all plots of a page share one document.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

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
"""Placeholder colour to the CSS variable of page.css that takes its place."""

WIDTH_IN, DPI, FONT_SIZE = 5.0, 100, 10.5
"""A phone's whole width, and about half of a desktop's page: letters are readable at both."""

PAGE_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.labelcolor": FAINT,
    "lines.linewidth": 1.6,
    "figure.dpi": DPI,
}


def style(ink: str, faint: str, rule: str, font_size: float) -> dict[str, Any]:
    """matplotlib's settings that all our drawings share. Colours: of text, of labels, of axes and ticks."""
    return {
        "text.color": ink,
        "axes.edgecolor": rule,
        "axes.labelcolor": faint,
        "xtick.color": rule,
        "ytick.color": rule,
        "xtick.labelcolor": faint,
        "ytick.labelcolor": faint,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "font.size": font_size,
        "axes.labelsize": font_size,
        "legend.fontsize": font_size,
    }


def svg_text(figure: Figure, transparent: bool = True) -> str:
    """The figure as an SVG document with no metadata."""
    file = io.StringIO()
    figure.savefig(
        file, format="svg", transparent=transparent, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    return file.getvalue()


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file with no metadata."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


@dataclass(frozen=True)
class Plot:
    title: str
    svg: Markup
    words: str
    """A description of what it shows: its caption, and its label for screen readers."""


def plot(name: str, title: str, words: str, draw: Callable[[Axes], None], height_in: float = 2.5) -> Plot:
    """A plot for a page. `draw` is called with empty axes. `name` is unique on a page."""
    with matplotlib.rc_context({**style(INK, FAINT, RULE, FONT_SIZE), **PAGE_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        draw(axes)
        svg = svg_text(figure)
    return Plot(title, _piece(svg, name, title, words), words)


def thinned(values: Sequence[float], most: int = 600) -> list[int]:
    """Indices of at most `most` values, evenly spread: a plot has no more pixels than that."""
    step = max(1, -(-len(values) // most))
    return list(range(0, len(values), step))


def _piece(svg: str, name: str, title: str, words: str) -> Markup:
    """The document's <svg> element for a page: prefixed ids, CSS variables for colours, a label, no style."""
    box = re.search(r'viewBox="[^"]*"', svg)
    if box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id|clip-path|xlink:href)="(url\()?(#?)([^")]+)', rf'\1="\2\3{name}-\4', svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # it would be the whole page's
    svg = re.sub(r"font-family: [^;]*; ?", "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    label = f"{escape(title)}. {escape(words)}"
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{label}">'
    return Markup(head + svg[svg.index(">") + 1 :].strip())
