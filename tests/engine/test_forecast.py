"""A forecast schedules what an engine would run, and the GPU benchmark runs on any machine with a small model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import paths
from pipeline.engine.cost import PassCost
from pipeline.engine.forecast import Script, forecast
from pipeline.engine.prefix_tree import build
from pipeline.engine.state import Limits

CURVE = PassCost((1, 128, 4096), (0.010, 0.011, 0.170))
STOP = 99


@st.composite
def sets(draw: st.DrawFn) -> tuple[list[list[int]], Script]:
    shared = draw(st.lists(st.integers(1, 5), max_size=20))
    prompts = draw(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=12), min_size=1, max_size=20))
    lengths = draw(st.lists(st.integers(0, 9), min_size=len(prompts), max_size=len(prompts)))
    return [[*shared, *prompt] for prompt in prompts], Script([[*[7] * n, STOP] for n in lengths])


@settings(max_examples=100)
@given(sets(), st.sampled_from([8, 64, 4096]))
def test_every_row_is_there_once(data: tuple[list[list[int]], Script], budget: int) -> None:
    prompts, script = data
    found = forecast(prompts, script, Limits(budget, 5000, 512), CURVE)
    assert found.prompt_rows == build(prompts).tokens
    assert max(found.pass_rows) <= budget
    assert found.elapsed_s == pytest.approx(sum(map(CURVE.seconds, found.pass_rows)))


def test_right_drafts_leave_one_row_for_each_token_and_no_draft_after_the_stop() -> None:
    prompts = [[1, 2, 3, i] for i in range(50)]
    script = Script([[7, 8, 9, 7, STOP]] * 50)
    with_drafts = forecast(prompts, script, Limits(4096, 5000, 512), CURVE)
    assert with_drafts.pass_rows == (53, 200)
    without = forecast(prompts, script, Limits(4096, 5000, 512), CURVE, drafts=False)
    assert without.pass_rows == (53, 50, 50, 50, 50)


def test_passes_are_evened_out_so_that_none_is_a_sliver() -> None:
    prompts = [[i // 50, i % 50, *range(60, 70)] for i in range(2500)]  # 12 rows each, the first shared by fifty
    found = forecast(prompts, Script([[STOP]] * 2500), Limits(4096, 90_000, 4096), CURVE)
    assert min(found.pass_rows) > 0.8 * max(found.pass_rows)


@pytest.mark.slow
@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_this_machine(tmp_path: Path) -> None:
    rows = [[[*range(5, 40), 41 + i, 50], 2 + i % 3] for i in range(6)]
    file = tmp_path / "ids.json"
    file.write_text(json.dumps({"pub30": rows}), encoding="utf-8")
    command = [sys.executable, "benchmarks/gpu.py", str(file), "--shape", "tiny", "--only", "sets", "ways"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["sets"]["pub30"]["rows"] == build([row[0] for row in rows]).tokens + sum(row[1] for row in rows)
    assert report["sets"]["pub30"]["ratio"] > 0
