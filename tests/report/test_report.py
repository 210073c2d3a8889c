"""A run as one page: all of it there, nothing made up, nothing that runs, the same bytes every time."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from support.page_checks import check

from pipeline.errors import UsageError
from pipeline.record.outputs import read_outputs
from pipeline.report import facts, report, run_plots
from pipeline.runs import plan
from pipeline.runs import timed as running
from pipeline.runs.plan import saved, shown
from pipeline.runs.request import Request

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]
EVIL = "<script>alert('prompt')</script>"


def rows(path: Path) -> Path:
    """Four rows; nobody answers them right but by chance."""
    lines = [
        {
            "message": [{"role": "user", "content": f"Read and answer {EVIL} & choose.\nquestion: What is {i}?\n"}],
            "answer": f"</td><img src=x onerror=alert({i})>",
        }
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def runs_of(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """One run by each engine; ours has two timed sections."""
    folder = tmp_path_factory.mktemp("report")
    data = rows(folder / "rows.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_RUNS", str(folder / "runs"))
        asked = {"model": str(tiny), "dataset": str(data), "max_new_tokens": 6}
        yield {
            "ours": running.run(Request(**asked, repeat=2)).folder,
            "reference": running.run(Request(**asked, engine="reference")).folder,
        }


@pytest.fixture
def ours(runs_of: dict[str, Path], tmp_path: Path) -> Path:
    """One to change."""
    return Path(shutil.copytree(runs_of["ours"], tmp_path / runs_of["ours"].name))


def page_of(folder: Path, **how: str) -> str:
    return report.make(str(folder), to=str(folder.parent / "page.html"), **how).path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_a_run_measured_is_a_device_that_a_plan_and_the_report_follow(
    ours: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PIPELINE_RUNS", str(ours.parent))
    assert "device file" not in page_of(ours)
    path = saved.save("this-one")
    assert path == tmp_path / "data" / "devices" / "this-one.yaml"
    planned = plan.plan("this-one", str(tiny), str(rows(tmp_path / "rows.jsonl")), lambda _: None)
    curve = json.loads((ours / "manifest.json").read_text())["engine"]["cost"]
    assert planned.measured
    assert planned.sweep_s == pytest.approx(min(curve["elapsed_s"]))
    assert planned.sets[0].forecast.elapsed_s > 0
    text = shown.text(planned)
    assert f"the warm-up of {ours.name}" in text
    assert "nothing here was measured" not in text
    assert "The device file this-one (invoke plan) predicts" in page_of(ours)


def change(folder: Path, **values: Any) -> dict[str, Any]:
    """Set, or with None take away, keys of a manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) | values
    manifest = {key: value for key, value in manifest.items() if value is not None}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


def words(page: str) -> str:
    """What a reader reads."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page[page.index("<main") :])).split())


def test_the_page_has_the_headline_and_all_its_parts(runs_of: dict[str, Path]) -> None:
    page = page_of(runs_of["ours"])
    check(page)
    manifest = json.loads((runs_of["ours"] / "manifest.json").read_text())
    said = words(page)
    assert f"time {manifest['elapsed_s']:.3f} s median of 2" in said
    assert "accuracy 0.0 % 0 of 4; 95 % interval 0.0 %" in said
    for heading in (
        "Where the time went",
        "Work that was saved",
        "The board under the clock",
        "Accuracy",
        "Wrong answers (4)",
        "All answers (4)",
        "To repeat it",
        "Environment",
    ):
        assert f">{heading}</h2>" in page
    assert page.count("<svg") == 4  # waterfall, rows, cost, memory
    assert f"invoke reproduce --run {runs_of['ours'].name}" in said
    assert manifest["code"]["commit"][:12] in said
    assert "not on a Jetson" in said


def test_every_wrong_row_has_its_prompt_and_both_answers(runs_of: dict[str, Path]) -> None:
    page = page_of(runs_of["ours"])
    folds = re.findall(r'<details class="row">(.*?)</details>', page, re.DOTALL)
    given = {row["index"]: row["output"][0]["generated_text"] for row in read_outputs(runs_of["ours"])}
    assert len(folds) == len(given) == 4
    for index, fold in enumerate(folds):
        assert f"What is {index}?" in fold
        assert f"alert({index})" in fold
        assert "<h3>Given</h3>" in fold


def test_text_from_data_stays_text(runs_of: dict[str, Path]) -> None:
    page = page_of(runs_of["ours"])
    assert EVIL not in page
    assert "&lt;script&gt;alert(&#39;prompt&#39;)&lt;/script&gt;" in page
    assert "<img" not in page


def test_the_page_forbids_all_but_its_own_script(runs_of: dict[str, Path]) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page_of(runs_of["ours"]))[1]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", policy)


def test_the_same_folder_gives_the_same_bytes(ours: Path) -> None:
    assert page_of(ours) == page_of(ours)


def test_where_the_time_went_adds_up(runs_of: dict[str, Path]) -> None:
    seen = facts.read(runs_of["ours"])
    floor = report._floor(seen)
    assert sum(part.value for part in floor["parts"]) == pytest.approx(seen.get("phases_s.timed")[-1], rel=1e-6)
    lanes = run_plots.waterfall_lanes(seen)
    assert sum(length for _, length in lanes["passes"]) == pytest.approx(
        seen.passes[-1].end_s - seen.get("stages_s.plan")
    )
    assert [len(lanes[name]) for name in ("read", "tokenise", "plan", "passes")] == [1, 1, 1, len(seen.passes)]


def test_what_a_reference_run_cannot_tell_is_said(runs_of: dict[str, Path]) -> None:
    page = page_of(runs_of["reference"])
    check(page)
    said = words(page)
    assert "transformers' pipe() does not say" in said
    assert "Work that was saved" not in said
    assert page.count("<svg") == 1
    assert "median of" not in said


def test_two_runs_are_compared_on_the_page(runs_of: dict[str, Path]) -> None:
    page = page_of(runs_of["ours"], against=str(runs_of["reference"]))
    check(page)
    said = words(page)
    assert f"Against {runs_of['reference'].name}" in said
    assert "The 0.5 % rule. Kept" in said
    assert "engine.name reference → ours" in said


def test_rows_that_differ_from_the_other_run_are_listed(runs_of: dict[str, Path], ours: Path) -> None:
    lines = [json.loads(line) for line in (ours / "outputs.jsonl").read_text().splitlines()]
    lines[0]["output"][0]["generated_text"], lines[0]["token_ids"] = "<b>another</b>", [7]
    (ours / "outputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(ours, against=str(runs_of["reference"]))
    check(page)
    assert "Rows that differ" in page
    assert "&lt;b&gt;another&lt;/b&gt;" in page


def test_a_run_that_failed_has_no_time_and_says_why(ours: Path) -> None:
    change(
        ours,
        state="failed",
        failed={"kind": "ResourceError", "reason": "there is no room on the disk"},
        **dict.fromkeys(
            ("elapsed_s", "phases_s", "stages_s", "engine", "score", "verdict", "telemetry", "answer_tokens")
        ),
    )
    for name in ("passes.csv", "telemetry.csv"):
        (ours / name).unlink()
    lines = (ours / "outputs.jsonl").read_text().splitlines(keepends=True)
    (ours / "outputs.jsonl").write_text("".join(lines[:3]) + '{"index": 3, "out')
    page = page_of(ours)
    check(page)
    said = words(page)
    assert "This run ended early. 3 of 4 prompts were answered before that; there is no time. there is no room" in said
    assert "time none" in said
    assert "there is no passes.csv" in said
    assert "there is no telemetry.csv" in said
    assert "All answers (3)" in said
    assert f"invoke run --resume {ours.name}" in said
    assert "<svg" not in page


def test_a_run_that_was_killed_at_its_very_start_has_a_page(ours: Path) -> None:
    manifest = json.loads((ours / "manifest.json").read_text())
    keep = ("schema", "command", "request", "arguments", "dtype", "device", "model", "code", "environment")
    (ours / "manifest.json").write_text(json.dumps({key: manifest[key] for key in keep} | {"state": "unfinished"}))
    for path in ours.iterdir():
        if path.name != "manifest.json":
            path.unlink()
    page = page_of(ours)
    check(page)
    assert "This run is not finished. 0 prompts were answered so far" in words(page)


def test_a_run_that_was_gone_on_with_has_no_time(ours: Path) -> None:
    change(ours, resumed=[{"kept": 2, "code": {}, "after": "interrupted (Ctrl-C)"}], elapsed_s=None, verdict=None)
    page = page_of(ours)
    check(page)
    said = words(page)
    assert "cut off and resumed, so it has no valid time. 2 answers were there after: interrupted (Ctrl-C)" in said
    assert "only the last part" in said


def test_an_older_run_without_stages_has_a_page(ours: Path) -> None:
    change(ours, **dict.fromkeys(("stages_s", "timeline_s", "began_utc", "sections")))
    (ours / "passes.csv").unlink()
    page = page_of(ours)
    check(page)
    assert "was not recorded" in words(page)


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "end_s,handed_on_s,prompt_rows,answer_rows\n1,x,2,3\n", "\x00"])
def test_a_damaged_log_of_passes_is_said(ours: Path, content: str) -> None:
    (ours / "passes.csv").write_text(content)
    page = page_of(ours)
    check(page)
    assert "passes.csv cannot be read" in words(page)


@pytest.mark.parametrize("content", ["", "time_s,x_W\nsoon,1\n", "time_s,x_W\n1\n"])
def test_damaged_telemetry_is_said(ours: Path, content: str) -> None:
    (ours / "telemetry.csv").write_text(content)
    page = page_of(ours)
    check(page)
    assert "telemetry.csv cannot be read" in words(page)


def with_channel(folder: Path, name: str, values: list[str]) -> None:
    """A channel in the telemetry, of as many samples as there are values."""
    with open(folder / "telemetry.csv", "w", newline="") as file:
        csv.writer(file).writerows([["time_s", name], *([f"{i / 2}", value] for i, value in enumerate(values))])


def test_a_channel_that_gave_nothing_is_named_and_not_drawn(ours: Path) -> None:
    with_channel(ours, "VDD_IN_W", [""] * 6)
    missing = {"VDD_IN_W": "it is there and cannot be read"}
    change(ours, telemetry={"missing": missing, "energy_j": None})
    page = page_of(ours)
    assert 'aria-label="Power' not in page
    assert "VDD_IN_W: it is there and cannot be read" in words(page)
    assert "Not measured (that does not mean zero)" in words(page)


def test_a_gap_stays_a_gap(ours: Path) -> None:
    with_channel(ours, "VDD_IN_W", ["5", "6", "5", "", "", "7", "6", "7"])
    (plot,) = run_plots.of_board(facts.read(ours))
    assert "VDD_IN_W was read in 75% of them" in plot.words
    line = re.search(r'<path d="([^"]*)" clip-path[^>]*stroke: var\(--series-1\)', plot.svg)[1]
    assert line.count("M ") == 2  # two strokes, and none across the gap or down to zero


def test_the_board_s_time_is_that_of_the_section(ours: Path) -> None:
    change(ours, timeline_s={"timed": [[10.5, 11.5], [12.0, 13.0]], "telemetry": [10.0, 13.5]})
    seen = facts.read(ours)
    assert run_plots._section(seen) == (0.5, 3.0)


def test_a_data_set_that_cannot_be_had_is_said(ours: Path) -> None:
    dataset = json.loads((ours / "manifest.json").read_text())["dataset"]
    change(ours, dataset={**dataset, "sha256": "0" * 64})
    page = page_of(ours)
    check(page)
    said = words(page)
    assert "Prompts and expected answers: the data file is not the one that the runs answered" in said
    assert "0 of 4, as the run itself says" in said
    assert "Wrong answers" not in said
    assert "not scored" in said


def test_a_score_that_does_not_agree_with_the_outputs_is_said(ours: Path) -> None:
    change(ours, score={"correct": 4, "scored": 4, "share": 1.0})
    assert "The manifest says 4 of 4: it does not agree with the outputs" in words(page_of(ours))


def test_rows_that_are_not_in_pipes_form_are_left_out_and_said(ours: Path) -> None:
    lines = (ours / "outputs.jsonl").read_text().splitlines(keepends=True)
    bad = {"index": 9, "output": "text", "token_ids": [1]}
    (ours / "outputs.jsonl").write_text("".join(lines) + json.dumps(bad) + "\n")
    said = words(page_of(ours))
    assert "1 rows of outputs.jsonl are not in pipe()'s form" in said
    assert "All answers (4)" in said


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "phi3-offline-pipeline/run/9"}'])
def test_a_folder_without_a_run_is_refused(ours: Path, content: str) -> None:
    (ours / "manifest.json").write_text(content)
    with pytest.raises(UsageError) as caught:
        report.make(str(ours))
    assert caught.value.code == "U701"
    assert not (ours / "report.html").exists()


def test_the_page_of_many_passes_is_small(ours: Path) -> None:
    lines = [f"{i / 100:.6f},0.000100,{i % 200},{i % 7 + 1}" for i in range(1, 20_001)]
    (ours / "passes.csv").write_text("\n".join(["end_s,handed_on_s,prompt_rows,answer_rows", *lines]) + "\n")
    page = page_of(ours)
    check(page)
    assert len(page) < 600_000
    assert "20,000 passes of" in words(page)


@pytest.mark.slow
def test_as_a_user_calls_it(invoke: Invoke, ours: Path, runs: Path) -> None:
    done = invoke("report", ours, "--to", ours.parent / "mine.html")
    assert done.returncode == 0, done.stderr
    assert "not on the page: Telemetry of power, temperature" in done.stdout
    check((ours.parent / "mine.html").read_text(encoding="utf-8"))
    done = invoke("report", "nowhere")
    assert done.returncode == 2
    assert "U311" in done.stderr


def test_the_speed_up_is_a_tile_and_a_bar(runs_of: dict[str, Path], ours: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs_of["reference"], tmp_path / "baseline"))
    times = {"phases_s": {"load": 1.0, "warm_up": 1.0, "timed": [9.0, 10.0, 12.0]}, "elapsed_s": 10.0}
    change(ours, **times, telemetry={"energy_j": 50.0, "energy_j_per_prompt": 12.5})
    change(other, phases_s={"load": 1.0, "warm_up": 1.0, "timed": [40.0]}, telemetry={"energy_j": 200.0})
    page = page_of(ours, against=str(other))
    check(page)
    read = words(page)
    assert "against the baseline 4 × as fast 10.00 s against 40.00 s" in read
    assert "equal answers 4 of 4 byte for byte as the baseline's" in read
    assert "this run, ours: 10.00 s (9.00 s to 12.00 s in 3 sections)" in read
    assert "the baseline, reference: 40.00 s (one section)" in read
    assert "energy 50 J against 200 J" in read
    commit = json.loads((ours / "manifest.json").read_text())["code"]["commit"][:12]
    assert f"commit {commit}" in read[: read.index("began")]
    assert "in float32 ·" in read[: read.index("began")]


def test_a_run_against_one_without_a_time_says_why(runs_of: dict[str, Path], ours: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs_of["reference"], tmp_path / "baseline"))
    change(other, resumed=[{"kept": 2, "code": {}, "after": "interrupted"}], elapsed_s=None)
    page = page_of(ours, against=str(other))
    check(page)
    assert "No times to compare: The other was resumed, so it has no valid time." in words(page)
    assert 'aria-label="Both times' not in page


def test_a_failed_run_s_error_keeps_its_lines(ours: Path) -> None:
    change(
        ours, state="failed", failed={"kind": "ResourceError", "reason": "R101 no room\n  where:    /x\n  do:       y"}
    )
    assert '<pre class="error">R101 no room\n  where:    /x\n  do:       y</pre>' in page_of(ours)


def test_telemetry_that_is_missing_is_listed_once(runs_of: dict[str, Path]) -> None:
    read = words(page_of(runs_of["ours"]))
    missing = json.loads((runs_of["ours"] / "manifest.json").read_text())["telemetry"]["missing"]
    assert missing
    assert [read.count(f"{name}: {why}") for name, why in missing.items()] == [1] * len(missing)
    assert "Telemetry of" not in read
