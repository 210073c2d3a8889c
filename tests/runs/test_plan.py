"""`invoke plan`: what it says follows from the device's rates, and it refuses what cannot fit, with numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.rows import write_rows

from pipeline import paths, settings
from pipeline.engine import cost
from pipeline.engine.forecast import Forecast, Script, forecast
from pipeline.engine.state import Limits
from pipeline.errors import IntegrityError, ResourceError, UsageError
from pipeline.runs import plan
from pipeline.runs.plan import saved, shown

MEDIUM = settings.model("phi3-medium").shape


def quiet(_: str) -> None:
    pass


def test_the_shape_of_the_contests_model_is_its_known_size() -> None:
    assert MEDIUM.parameters == 13_960_238_080
    assert MEDIUM.kv_elements_per_token * 2 == 204_800


@given(st.integers(1, 20_000))
def test_a_roofline_is_never_below_arithmetic_or_the_reading_of_the_weights(rows: int) -> None:
    curve = cost.roofline(MEDIUM, 2, 17e12, 156e9, 4096)
    assert curve.seconds(rows) >= MEDIUM.swept_parameters * 2 / 156e9
    assert curve.seconds(rows) >= rows * MEDIUM.flops_per_row / 17e12
    assert curve.seconds(rows + 1) >= curve.seconds(rows)


def test_twice_the_device_is_half_the_time() -> None:
    prompts = [[1, 2, 3, *range(10, 40 + i)] for i in range(50)]
    script = Script([[5, 6, 0]] * 50)
    one, two = (
        forecast(prompts, script, Limits(512, 20_000, 512), cost.roofline(MEDIUM, 2, n * 1e13, n * 1e11, 512))
        for n in (1, 2)
    )
    assert one.pass_rows == two.pass_rows
    assert one.elapsed_s == pytest.approx(2 * two.elapsed_s)


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The devices, free to be changed."""
    folder = tmp_path / "configs"
    for path in paths.CONFIGS.rglob("*.yaml"):
        copy = folder / path.relative_to(paths.CONFIGS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(paths, "CONFIGS", folder)
    return folder


def with_memory(configs: Path, mib: int) -> None:
    path = configs / "devices" / "orin-32gb.yaml"
    described = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**described, "memory_mib": mib}), encoding="utf-8")


def test_a_plan_without_the_model_counts_with_the_standins_tokenizer_and_says_so(standin: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "mine.jsonl", 12)
    planned = plan.plan("orin-32gb", "phi3-medium", str(file), quiet)
    (one,) = planned.sets
    assert (one.name, one.prompts) == ("mine", 12)
    assert one.forecast.prompt_rows < one.prompt_tokens
    assert one.forecast.elapsed_s >= 2 * planned.sweep_s  # the prompts, and a check of the answers
    assert one.longest <= planned.memory.limits.slots
    text = shown.text(planned)
    assert "PREDICTION" in text
    assert "tokenizer of standin" in text
    assert "26,627" in text


def test_a_plan_says_a_range_for_each_mode_and_what_it_rests_on(standin: Path, tmp_path: Path) -> None:
    planned = plan.plan("orin-32gb", "phi3-medium", str(write_rows(tmp_path / "mine.jsonl", 12)), quiet)
    (one,) = planned.sets
    assert list(one.modes) == ["MAXN", "40W", "30W"]
    for seconds in one.modes.values():
        assert seconds.fastest < seconds.likely < seconds.slowest
    assert one.modes["MAXN"].likely == pytest.approx(one.forecast.elapsed_s)
    assert one.modes["MAXN"].likely < one.modes["40W"].likely < one.modes["30W"].likely
    text = " ".join(shown.text(planned).split())
    assert f"{one.modes['MAXN'].fastest:.2f} to {one.modes['MAXN'].slowest:.2f}" in text
    for share in (planned.device.flops_share.low, planned.device.bytes_share.high):
        assert share.source in text
    assert "power mode that is not stated" in text


@pytest.mark.parametrize(
    ("pass_rows", "roomier", "bound_by"),
    [((4000, 12), 1.0, "arithmetic"), ((12, 12, 12), 1.0, "weights"), ((4000, 12), 0.9, "K/V memory")],
)
def test_what_a_set_waits_for_is_said(pass_rows: tuple[int, ...], roomier: float, bound_by: str) -> None:
    estimate = settings.device("orin-32gb").estimates(MEDIUM, 4096)["MAXN"]
    elapsed_s = sum(map(estimate.likely.seconds, pass_rows))
    one = plan.SetPlan("x", 1, 1, 1, 1, Forecast(elapsed_s, pass_rows, 1, 1), roomy_s=roomier * elapsed_s)
    assert plan._bound_by(one, estimate) == bound_by


def test_a_range_out_of_order_is_refused(configs: Path) -> None:
    path = configs / "devices" / "orin-32gb.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("value: 0.36", "value: 0.50"), encoding="utf-8")
    with pytest.raises(IntegrityError, match="low is more than likely"):
        settings.device("orin-32gb")


@pytest.mark.parametrize("name", ["orin-32gb", "../mine", "", "My board"])
def test_a_device_is_saved_under_a_name_of_its_own(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        saved.save(name)
    assert caught.value.code == "U121"


def test_without_a_run_that_measured_there_is_no_device_to_save(runs: Path) -> None:
    other = runs / "20260101T000000-x"
    other.mkdir(parents=True)
    (other / "manifest.json").write_text('{"state": "finished", "engine": {"name": "reference"}}')
    with pytest.raises(UsageError) as caught:
        saved.save("mine")
    assert caught.value.code == "U122"


def test_less_memory_means_smaller_passes_and_fewer_slots(configs: Path, standin: Path, tmp_path: Path) -> None:
    file = str(write_rows(tmp_path / "mine.jsonl", 3))
    ample = plan.plan("orin-32gb", "phi3-medium", file, quiet)
    with_memory(configs, 29_400)
    tight = plan.plan("orin-32gb", "phi3-medium", file, quiet)
    assert tight.memory.limits.budget_rows <= ample.memory.limits.budget_rows
    assert tight.memory.limits.slots < ample.memory.limits.slots


def test_a_device_that_the_model_does_not_fit_is_refused_with_numbers(
    configs: Path, standin: Path, tmp_path: Path
) -> None:
    with_memory(configs, 27_000)
    with pytest.raises(ResourceError) as caught:
        plan.plan("orin-32gb", "phi3-medium", str(write_rows(tmp_path / "mine.jsonl", 3)), quiet)
    assert caught.value.code == "R302"
    assert "MiB" in str(caught.value)


def test_a_prompt_that_does_not_fit_is_refused_by_how_much(standin: Path, tmp_path: Path) -> None:
    row = {"message": [{"role": "user", "content": "word " * 12_000}], "answer": "one"}
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(ResourceError) as caught:
        plan.plan("orin-32gb", "phi3-medium", str(file), quiet)
    assert caught.value.code == "R303"
    assert "too many" in str(caught.value)


def test_an_unknown_device_gets_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="did you mean orin-32gb"):
        plan.plan("orin-32", "phi3-medium", "obqa", quiet)


@pytest.mark.slow
def test_the_command_prints_a_table_or_json(
    invoke: Callable[..., subprocess.CompletedProcess[str]], standin: Path, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "mine.jsonl", 4)
    done = invoke("plan", "--dataset", file)
    assert done.returncode == 0, done.stderr
    assert "Predicted time" in done.stdout
    found = json.loads(invoke("plan", "--dataset", file, "--json").stdout)
    assert found["prediction"] is True
    assert found["sets"][0]["prompts"] == 4
    assert found["sets"][0]["forecast"]["elapsed_s"] > 0


def test_the_shape_says_when_it_is_tied() -> None:
    tied = replace(MEDIUM, tied=True)
    assert MEDIUM.parameters - tied.parameters == MEDIUM.vocab * MEDIUM.hidden


def test_what_was_planned_once_is_read_until_anything_of_it_changes(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path / "data"))
    file = write_rows(tmp_path / "mine.jsonl", 5)
    calls: list[int] = []

    def counting(prompts: list[list[int]], *rest: Any) -> Forecast:
        calls.append(len(prompts))
        return forecast(prompts, *rest)

    monkeypatch.setattr(plan, "forecast", counting)
    first = plan.plan("orin-32gb", "phi3-medium", str(file), quiet)
    assert plan.plan("orin-32gb", "phi3-medium", str(file), quiet) == first
    assert calls == [5]
    write_rows(file, 6)
    assert plan.plan("orin-32gb", "phi3-medium", str(file), quiet).sets[0].prompts == 6
    plan.plan("h100-80gb", "phi3-medium", str(file), quiet)
    assert calls == [5, 6, 6]


def test_a_plan_needs_no_torch_and_is_kept_by_all_the_modules_that_it_runs_through() -> None:
    code = (
        "import sys, pipeline.runs.plan\n"
        "print(*(name for name in sys.modules if name.startswith(('pipeline.engine.', 'torch'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) == {f"pipeline.engine.{name}" for name in plan.SCHEDULING}


@pytest.fixture
def kept(standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where plans are kept, in a folder of this test."""
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "sets").mkdir(parents=True)
    return tmp_path / "data" / "sets" / ".plans.json"


def test_what_was_planned_once_is_only_read_and_other_data_are_planned_anew(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(rows: int) -> plan.Plan:
        return plan.plan("orin-32gb", "phi3-medium", str(write_rows(tmp_path / "mine.jsonl", rows)), quiet)

    first, counted = made(12), []
    real = plan._Counting._made
    monkeypatch.setattr(plan._Counting, "_made", lambda self, *of: counted.append(of) or real(self, *of))
    assert made(12) == first
    assert counted == []
    assert made(13).sets[0].prompts == 13
    assert len(counted) == 1


@pytest.mark.parametrize("damage", ["", "[", "[]", "null", "{%r: null}", "{%r: {}}", '{%r: {"forecast": []}}'])
def test_a_damaged_memory_of_plans_costs_only_its_time(kept: Path, tmp_path: Path, damage: str) -> None:
    file = str(write_rows(tmp_path / "mine.jsonl", 3))
    first = plan.plan("orin-32gb", "phi3-medium", file, quiet)
    (key,) = json.loads(kept.read_text())
    kept.write_text(damage.replace("%r", json.dumps(key)))
    assert plan.plan("orin-32gb", "phi3-medium", file, quiet) == first
