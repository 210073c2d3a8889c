"""Pictures of a run as PNG files: time and accuracy for the leaderboard, rows and costs for the explanation.

The same run gives the same bytes with the same matplotlib, which the lock pins: no dates, fonts that it brings along.
For names in scripts that these lack it takes a font of the system, where there is one.
"""

from __future__ import annotations

import functools
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, findSystemFonts, fontManager, get_font

from pipeline.report import plots

INK, SOFT, LINE, BLUE, ORANGE, GREY, RED = "#1b2330", "#5c6675", "#d5dae1", "#2563a8", "#d9822b", "#c3cad4", "#b3261e"
KOREAN = {"NanumGothic.ttf": "NanumGothic", "NotoSansCJK-Regular.ttc": "Noto Sans CJK JP", "UnDotum.ttf": "UnDotum"}
"""File to family; the second holds Korean too."""
DPI = 150


@functools.cache
def fonts() -> list[str]:
    """Families, in the order in which a letter is looked for. Looks at the disk: matplotlib's own list is remembered
    from its first start, so a font that was installed since then would not be in it."""
    here = [path for path in sorted(findSystemFonts()) if Path(path).name in KOREAN]
    for path in here:
        fontManager.addfont(path)
    return ["DejaVu Sans", *dict.fromkeys(KOREAN[Path(path).name] for path in here)]


def _style() -> dict[str, Any]:
    return {**plots.style(INK, SOFT, LINE, 11), "font.family": fonts()}


def leaderboard(manifest: Mapping[str, Any], team: str, commit: str, rehearsal: bool) -> bytes:
    """A team's picture for the contest's public board: its name, the time, the accuracy."""
    rows, elapsed_s, score = manifest["dataset"]["rows"], manifest["elapsed_s"], manifest["score"]
    phases, timed = manifest["phases_s"], manifest["phases_s"]["timed"]
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(10, 5.6), dpi=DPI, facecolor="white")
        figure.text(0.05, 0.9, textwrap.shorten(team, 60, placeholder="…"), size=22, weight="bold")
        if rehearsal:
            label = {"facecolor": RED, "edgecolor": "none", "boxstyle": "round,pad=0.45"}
            figure.text(0.95, 0.905, "REHEARSAL", size=13, weight="bold", color="white", ha="right", bbox=label)
        ran = f"{manifest['model']['name']} · {manifest['dataset']['name']}, {rows:,} prompts · {device(manifest)}"
        figure.text(0.05, 0.835, textwrap.shorten(ran, 105, placeholder="…"), size=11.5, color=SOFT)
        _headline(figure, 0.05, "inference time", f"{elapsed_s:,.2f} s" if elapsed_s else "no time", BLUE)
        each = f"{elapsed_s / rows:.3f} s a prompt" if elapsed_s else "resumed, so it has no time"
        each += f", median of {len(timed)}" if len(timed) > 1 else ""
        figure.text(0.05, 0.5, each, size=13, color=SOFT)
        _headline(figure, 0.54, "accuracy, exact match", _percent(score["share"]), ORANGE)
        figure.text(0.54, 0.5, f"{score['correct']:,} of {score['scored']:,} right", size=13, color=SOFT)
        if elapsed_s:
            _phases(figure.add_axes((0.05, 0.265, 0.41, 0.11)), phases["load"], phases["warm_up"], elapsed_s)
        _shares(figure.add_axes((0.54, 0.265, 0.41, 0.11)), score["correct"], score["scored"])
        state = (manifest.get("verdict") or {}).get("state", "no verdict")
        figure.text(0.05, 0.055, f"{state} · {manifest['dtype']} · commit {commit[:12]}", size=10, color=SOFT)
        return _png(figure)


def rows(stats: Mapping[str, Any]) -> bytes:
    """Rows as they were asked for, and as they were computed. `stats` are the engine's."""
    requested = (stats["prompt_tokens"], stats["answer_tokens"])
    done = (stats["tree_tokens"], stats["answer_rows"] + stats["recomputed_rows"])
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(8, 2.6), dpi=DPI, facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        for place, (prompt, answer) in enumerate((done, requested)):
            axes.barh(place, prompt, color=BLUE, label="prompts" if place else None, height=0.55)
            axes.barh(place, answer, left=prompt, color=ORANGE, label="answers" if place else None, height=0.55)
            axes.text(prompt + answer, place, f"  {prompt + answer:,}", va="center", size=11)
        axes.set_yticks([0, 1], ["computed", "asked for"])
        axes.set_xlim(0, 1.14 * max(sum(requested), sum(done), 1))
        axes.set_xlabel("rows of the network")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(length=0)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=2)
        return _png(figure)


def cost(measured: Mapping[str, Any]) -> bytes:
    """Milliseconds of a pass by its rows. `measured` is the engine's cost model."""
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(8, 3.0), dpi=DPI, facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        axes.plot(measured["rows"], [1000 * each for each in measured["elapsed_s"]], "o-", color=BLUE, markersize=5)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("rows of a pass")
        axes.set_ylabel("milliseconds")
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        axes.set_axisbelow(True)
        return _png(figure)


def device(manifest: Mapping[str, Any]) -> str:
    """The device of a run, in a few words."""
    board, environment = manifest["board"]["before"]["board"], manifest["environment"]
    return board["model"] or environment["gpu"] or environment["processor"] or environment["machine"]


def without_letters(text: str) -> bool:
    """Whether no font here has all of its letters: the picture then shows boxes for them."""
    faces = [get_font(findfont(name)) for name in fonts()]
    return not all(any(face.get_char_index(ord(letter)) for face in faces) for letter in text)


def _headline(figure: Figure, left: float, label: str, value: str, colour: str) -> None:
    figure.text(left, 0.725, label, size=13, color=SOFT)
    figure.text(left, 0.575, value, size=42, weight="bold", color=colour)


def _percent(share: float | None) -> str:
    return "not scored" if share is None else f"{share:.1%}"


def _phases(axes: Axes, load_s: float, warm_up_s: float, elapsed_s: float) -> None:
    """Bars of load and warm-up, and behind them the timed part."""
    axes.barh(0, load_s, color="#e6e9ee")
    axes.barh(0, warm_up_s, left=load_s, color=GREY)
    axes.barh(0, elapsed_s, left=load_s + warm_up_s, color=BLUE)
    axes.set_xlim(0, load_s + warm_up_s + elapsed_s)
    _bare(axes, "seconds: load, warm-up; coloured: under the clock")


def _shares(axes: Axes, right: int, scored: int) -> None:
    axes.barh(0, right, color=ORANGE)
    axes.barh(0, scored - right, left=right, color=GREY)
    axes.set_xlim(0, max(scored, 1))
    _bare(axes, "prompts; coloured: answered right")


def _bare(axes: Axes, label: str) -> None:
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    axes.tick_params(axis="x", length=0)


def _png(figure: Figure) -> bytes:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `without_letters` says it once, and in words
        return plots.png_bytes(figure)
