"""A CPU's curve is kept for the same machine, checked, and only ever a saving of time; a small set measures less."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.rows import write_rows

from pipeline import text_generation
from pipeline.engine import calibration, cost
from pipeline.engine.engine import Engine
from pipeline.runs import engines, kept_curve, request
from pipeline.runs.request import Request

CHATS = [[{"role": "user", "content": text}] for text in ("What is a lamp?", "Name three rivers.", "And?")]
FULL = tuple(n for n in calibration.SIZES if n <= 256)


@pytest.fixture(scope="module")
def pipe(tiny: Path) -> text_generation.TextGenerator:
    return text_generation.load(tiny, device="cpu")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, ...]]:
    """The sizes that each measurement of this test asked for, on a machine of steady times; nothing is kept yet."""
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    (tmp_path / "boot").write_text("one")
    monkeypatch.setattr(kept_curve, "BOOT", tmp_path / "boot")
    sizes: list[tuple[int, ...]] = []

    def steady(run_pass: Any, some: Sequence[int], *_: Any, **__: Any) -> cost.PassCost:
        sizes.append(tuple(some))
        run_pass(some[0])
        return cost.PassCost(tuple(some), tuple(0.01 + 0.001 * size for size in some))

    monkeypatch.setattr(cost, "measure", steady)
    return sizes


def answers(pipe: text_generation.TextGenerator) -> Any:
    return pipe(CHATS, max_new_tokens=8, return_full_text=False)


def test_a_second_run_checks_two_sizes_and_answers_the_same(
    pipe: text_generation.TextGenerator, timed: list[tuple[int, ...]]
) -> None:
    engines.warm_up(pipe)
    first = answers(pipe)
    assert pipe.describe()["cost"]["from"] == Engine.MEASURED
    engines.warm_up(pipe)
    assert timed == [FULL, (1, 256)]
    assert pipe.describe()["cost"]["from"] == Engine.KEPT
    assert pipe.engine.cost.rows == FULL
    assert answers(pipe) == first


def test_a_small_set_times_a_few_sizes_which_are_not_kept(
    pipe: text_generation.TextGenerator, timed: list[tuple[int, ...]]
) -> None:
    engines.warm_up(pipe, prompts=kept_curve.FEW_PROMPTS)
    few = answers(pipe)
    engines.warm_up(pipe, prompts=kept_curve.FEW_PROMPTS + 1)
    assert timed == [calibration.FEW_SIZES, FULL]
    assert answers(pipe) == few
    engines.warm_up(pipe, prompts=3)
    assert timed[2:] == [(1, 256)]


def test_another_boot_or_other_threads_are_another_machine(
    pipe: text_generation.TextGenerator, timed: list[tuple[int, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.warm_up(pipe)
    (tmp_path / "boot").write_text("two")
    engines.warm_up(pipe)
    cores = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*cores, 4096})
    engines.warm_up(pipe)
    assert timed == [FULL, FULL, FULL]
    monkeypatch.setattr(kept_curve, "BOOT", tmp_path / "none")
    engines.warm_up(pipe)
    assert timed[3:] == [FULL]


@pytest.mark.parametrize(
    "damage",
    [
        "[",
        "[]",
        '{"%s": null}',
        '{"%s": {"rows": [1, 256], "elapsed_s": [1, 2]}}',
        '{"%s": {"rows": [256, 1], "elapsed_s": [1, 2]}}',
        '{"%s": {"rows": [1], "elapsed_s": ["x"]}}',
        '{"%s": {"rows": [1, 2], "elapsed_s": [0, -1]}}',
    ],
)
def test_a_damaged_memory_costs_a_measurement(
    pipe: text_generation.TextGenerator, timed: list[tuple[int, ...]], tmp_path: Path, damage: str
) -> None:
    memory = tmp_path / "devices" / ".curves.json"
    memory.parent.mkdir()
    key = kept_curve._key(pipe)
    assert key is not None
    memory.write_text(damage.replace("%s", key))
    engines.warm_up(pipe)
    assert timed == [FULL]
    assert json.loads(memory.read_text())[key]["rows"] == list(FULL)


def test_a_curve_whose_ends_have_moved_is_measured_anew(
    pipe: text_generation.TextGenerator, timed: list[tuple[int, ...]], tmp_path: Path
) -> None:
    engines.warm_up(pipe)
    memory = tmp_path / "devices" / ".curves.json"
    kept = json.loads(memory.read_text())
    (curve,) = kept.values()
    curve["elapsed_s"][0] *= 2
    memory.write_text(json.dumps(kept))
    engines.warm_up(pipe)
    assert timed == [FULL, (1, 256), FULL]


def test_a_kept_curve_is_as_fast_or_slow_as_the_machine_is_now() -> None:
    curve = cost.PassCost((1, 8), (1.0, 2.0)).scaled(3.0)
    assert (curve.rows, curve.elapsed_s) == ((1, 8), (3.0, 6.0))


def test_how_many_prompts_come_is_known_of_a_file_and_not_of_a_pipe(tiny: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 5)
    assert request.begin(Request(dataset=str(file), model=str(tiny), limit=3)).prompts == 3
    os.mkfifo(tmp_path / "pipe")
    assert request.begin(Request(dataset=str(tmp_path / "pipe"), model=str(tiny))).prompts is None
