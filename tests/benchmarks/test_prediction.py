"""The prediction's benchmark: rates that a board would have are found again, and a stalled run does not move them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline import paths

sys.path.insert(0, str(paths.ROOT))  # `benchmarks` is not installed

from benchmarks import prediction
from benchmarks.prediction import FITTED, HELD, SHAPES, Fit, Point

TRUE = Fit(14e12, 140e9)


def published(model: str, sizes: range) -> list[Point]:
    return [Point(model, tokens, prediction.predicted_s(SHAPES[model], TRUE, tokens)) for tokens in sizes]


def test_the_rates_of_a_board_are_found_again() -> None:
    points = published(FITTED, range(1, 4000, 128))
    points[20] = Point(FITTED, points[20].tokens, 9 * points[20].elapsed_s)
    found = prediction.fit(points)
    assert found.flops_per_s == pytest.approx(TRUE.flops_per_s, rel=0.02)
    assert found.bytes_per_s == pytest.approx(TRUE.bytes_per_s, rel=0.02)


def test_another_model_of_the_same_board_is_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = [point for model in SHAPES for point in published(model, range(1, 4000, 128))]
    file = tmp_path / "prefill.csv"
    rows = [f"{point.model},{point.tokens},{1e3 * point.elapsed_s}\n" for point in points]
    file.write_text("model,input_tokens,time_to_first_token_ms\n" + "".join(rows))
    prediction.main([str(file)])
    said = capsys.readouterr().out
    (held,) = (line for line in said.splitlines() if line.startswith(HELD))
    assert "32 points: median error 0." in held
