"""The picture of a benchmark's table: both files, the words in them, the same bytes again."""

from __future__ import annotations

from pathlib import Path

from pipeline.report import bench_picture
from pipeline.report.bench_picture import Bar


def test_the_table_becomes_an_svg_and_a_png(tmp_path: Path) -> None:
    bars = [Bar("ours", 7.2, "7.2 s, 6.7 × as fast", True), Bar("pipe()", 48.0, "48.0 s", False)]
    svg, png = bench_picture.write(tmp_path, "100 prompts", "AMD EPYC", bars)
    assert png.read_bytes().startswith(b"\x89PNG")
    first = svg.read_bytes()
    assert first.startswith(b"<?xml")
    assert first.count(bench_picture.OURS.encode()) == 1
    again, _ = bench_picture.write(tmp_path, "100 prompts", "AMD EPYC", bars)
    assert again.read_bytes() == first
