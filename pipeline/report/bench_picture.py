"""The picture of a benchmark's table, as SVG and PNG: a bar a contender, its speed-up, memory and equal answers.

The same results give the same bytes with the same matplotlib. The ground is white: it is made to be shown elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from pipeline.files import write_atomically
from pipeline.report import plots

INK, SOFT, LINE, OURS, PEER = "#1b2330", "#5c6675", "#d5dae1", "#2563a8", "#aab2bd"
NAME = "bench"
DPI = 150


@dataclass(frozen=True)
class Bar:
    label: str
    seconds: float
    words: str
    """Behind the bar."""
    ours: bool


def draw(title: str, under: str, bars: Sequence[Bar]) -> Figure:
    height = 1.5 + 0.62 * len(bars)
    figure = Figure(figsize=(9, height), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.04, 0.52 / height, 0.92, 1 - 1.35 / height))
    figure.text(0.04, 1 - 0.38 / height, title, size=15, weight="bold")
    figure.text(0.04, 1 - 0.66 / height, under, size=10, color=SOFT)
    for place, bar in enumerate(bars):
        axes.barh(place, bar.seconds, height=0.42, color=OURS if bar.ours else PEER)
        # Above its bar, so that no words need room beside the longest one.
        axes.text(0, place - 0.26, f"{bar.label}   {bar.words}", va="bottom", size=10.5, color=INK)
    axes.set_ylim(len(bars) - 0.7, -0.62)
    axes.set_xlim(0, max(bar.seconds for bar in bars) * 1.01)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("seconds; shorter is better")
    return figure


def write(folder: Path, title: str, under: str, bars: Sequence[Bar]) -> tuple[Path, Path]:
    """Both files. Raises ResourceError (R101, R102)."""
    with matplotlib.rc_context({**plots.style(INK, SOFT, LINE, 10.5), "svg.hashsalt": NAME}):
        figure = draw(title, under, bars)
        contents = {"svg": plots.svg_text(figure, transparent=False).encode(), "png": plots.png_bytes(figure)}
    paths = []
    for ending, content in contents.items():
        paths.append(folder / f"{NAME}.{ending}")
        with write_atomically(paths[-1]) as file:
            file.write(content)
    return paths[0], paths[1]
