"""Pictures of a run as PNG files: time and accuracy for the leaderboard, rows and costs for the explanation.

The same run gives the same bytes with the same matplotlib, which the lock pins: no dates, fonts that it brings along.
For names in scripts that these lack it takes a font of the system, where there is one.
"""

from __future__ import annotations

import functools
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, findSystemFonts, fontManager, get_font

from pipeline.contest.verify.run_figures import device
from pipeline.report import plots

INK, SOFT, LINE, BLUE, ORANGE, GREY, RED = "#1b2330", "#5c6675", "#d5dae1", "#2563a8", "#d9822b", "#c3cad4", "#b3261e"
PALE = "#dfe8f3"
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
    """A team's picture for the contest's public board: its name, the time, the accuracy, each over a bar whose parts
    are labelled."""
    rows, elapsed_s, score = manifest["dataset"]["rows"], manifest["elapsed_s"], manifest["score"]
    phases, timed = manifest["phases_s"], manifest["phases_s"]["timed"]
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(10, 4.4), dpi=DPI, facecolor="white")
        figure.text(0.05, 0.88, textwrap.shorten(team, 60, placeholder="…"), size=22, weight="bold")
        if rehearsal:
            label = {"facecolor": RED, "edgecolor": "none", "boxstyle": "round,pad=0.45"}
            figure.text(0.95, 0.886, "REHEARSAL", size=13, weight="bold", color="white", ha="right", bbox=label)
        ran = f"{manifest['model']['name']} · {manifest['dataset']['name']}, {rows:,} prompts · {device(manifest)}"
        figure.text(0.05, 0.8, textwrap.shorten(ran, 105, placeholder="…"), size=11.5, color=SOFT)
        _headline(figure, 0.05, "inference time", f"{elapsed_s:,.2f} s" if elapsed_s else "no time", BLUE)
        each = f"{elapsed_s / rows:.3f} s a prompt" if elapsed_s else "resumed, so it has no time"
        each += f", median of {len(timed)}" if len(timed) > 1 else ""
        figure.text(0.05, 0.42, each, size=13, color=SOFT)
        _headline(figure, 0.54, "accuracy, exact match", _percent(score["share"]), ORANGE)
        figure.text(0.54, 0.42, f"{score['correct']:,} of {score['scored']:,} right", size=13, color=SOFT)
        if elapsed_s:
            _phases(figure.add_axes((0.05, 0.26, 0.41, 0.09)), phases["load"], phases["warm_up"], elapsed_s)
        _shares(figure.add_axes((0.54, 0.26, 0.41, 0.09)), score["correct"], score["scored"])
        state = (manifest.get("verdict") or {}).get("state", "no verdict")
        figure.text(0.05, 0.05, f"{state} · {manifest['dtype']} · commit {commit[:12]}", size=10, color=SOFT)
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


def without_letters(text: str) -> bool:
    """Whether no font here has all of its letters: the picture then shows boxes for them."""
    faces = [get_font(findfont(name)) for name in fonts()]
    return not all(any(face.get_char_index(ord(letter)) for face in faces) for letter in text)


def _headline(figure: Figure, left: float, label: str, value: str, colour: str) -> None:
    figure.text(left, 0.68, label, size=13, color=SOFT)
    figure.text(left, 0.51, value, size=42, weight="bold", color=colour)


def _percent(share: float | None) -> str:
    return "not scored" if share is None else f"{share:.1%}"


def _phases(axes: Axes, load_s: float, warm_up_s: float, elapsed_s: float) -> None:
    """Load and warm-up, and behind them the timed part."""
    _parts(
        axes,
        [("load", load_s, PALE), ("warm-up", warm_up_s, GREY), ("under the clock", elapsed_s, BLUE)],
        lambda value: f"{value:,.1f} s",
    )


def _shares(axes: Axes, right: int, scored: int) -> None:
    _parts(axes, [("right", right, ORANGE), ("wrong", scored - right, GREY)], lambda value: f"{value:,.0f}")


def _parts(axes: Axes, parts: Sequence[tuple[str, float, str]], shown: Callable[[float], str]) -> None:
    """One bar, and below it a key: each part's colour, name and value, whatever the width of the part."""
    start = 0.0
    for name, value, colour in parts:
        axes.barh(0, value, left=start, color=colour, label=f"{name} {shown(value)}")
        start += value
    axes.set_xlim(0, max(start, 1e-9))
    axes.set_axis_off()
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=len(parts), borderaxespad=0, borderpad=0,
                handlelength=0.8, handletextpad=0.4, columnspacing=1.2, fontsize=10)  # fmt: skip


def _png(figure: Figure) -> bytes:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `without_letters` says it once, and in words
        return plots.png_bytes(figure)
