"""Margins: measured after the run, equal to what transformers' own logits give, and only where tokens differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.rows import write_rows
from transformers import AutoTokenizer, Phi3ForCausalLM

from pipeline import text_generation
from pipeline.accuracy import compare_text as comparison
from pipeline.accuracy.compare import compare
from pipeline.dataset import records
from pipeline.engine.engine import Engine
from pipeline.errors import IntegrityError, ResourceError
from pipeline.record.outputs import read_outputs
from pipeline.runs import margins
from pipeline.runs import timed as running
from pipeline.runs.request import Request

pytestmark = pytest.mark.usefixtures("one_thread", "runs", "short_warm_up")

TOLERANCE = 1e-4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", 4)


@pytest.fixture
def pair(tiny: Path, file: Path, runs: Path) -> tuple[Path, Path]:
    """A run, and the same one with other tokens in row 1 from its third on, fewer in row 2, another text in row 3."""
    request = Request(dataset=str(file), model=str(tiny), max_new_tokens=6, dtype="float32")
    first = running.run(request, lambda line: None).folder
    second = runs / "second"
    second.mkdir()
    (second / "manifest.json").write_bytes((first / "manifest.json").read_bytes())
    rows = read_outputs(first)
    rows[1]["token_ids"] = [*rows[1]["token_ids"][:2], 7, 8]
    rows[2]["token_ids"] = rows[2]["token_ids"][:4]
    rows[3]["output"] = [{"generated_text": "other"}]
    (second / "outputs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return first, second


def theirs(tiny: Path, file: Path, row: int, answered: list[int]) -> torch.Tensor:
    """transformers' logits behind a prompt and the tokens answered so far."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    text = tokenizer.apply_chat_template(records.read(file)[row].messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + answered
    with torch.inference_mode():
        return Phi3ForCausalLM.from_pretrained(tiny)(torch.tensor([ids])).logits[0, -1]


def test_margins_are_those_of_transformers_logits(tiny: Path, file: Path, pair: tuple[Path, Path]) -> None:
    first, second = map(str, pair)
    made = margins.measure(compare(first, second), first, lambda line: None)
    assert [each.index for each in made.differing] == [1, 2, 3]
    by_row = {each.index: each.margin for each in made.differing}
    answers = {row["index"]: row["token_ids"] for row in read_outputs(pair[0])}

    logits = theirs(tiny, file, 1, answers[1][:2])
    best, following = logits.topk(2).values.tolist()
    assert by_row[1].best_less_second == pytest.approx(best - following, abs=TOLERANCE)
    assert by_row[1].behind == pytest.approx((0, best - logits[7].item()), abs=TOLERANCE)
    assert by_row[1].behind[1] > 0.01

    best, following = theirs(tiny, file, 2, answers[2][:4]).topk(2).values.tolist()
    assert by_row[2].best_less_second == pytest.approx(best - following, abs=TOLERANCE)
    assert by_row[2].behind == (0.0, None)
    assert by_row[3] is None


def test_a_prompt_in_several_passes_has_the_same_logits(tiny: Path, file: Path) -> None:
    chat = records.read(file)[0].messages
    pipe = text_generation.load(tiny, dtype="float32", device="cpu")
    whole = pipe.logits(chat, [5, 6])
    small = replace(pipe.engine.limits, budget_rows=7)
    pipe.engine = Engine(pipe.engine.weights, small, backend=pipe.engine.backend)
    assert torch.allclose(pipe.logits(chat, [5, 6]), whole, atol=TOLERANCE)
    assert torch.allclose(whole, theirs(tiny, file, 0, [5, 6]), atol=TOLERANCE)
    assert pipe.engine.pool.free == pipe.engine.pool.slots


def test_a_prompt_that_does_not_fit_is_refused(tiny: Path) -> None:
    pipe = text_generation.load(tiny, dtype="float32", device="cpu")
    engine = Engine(pipe.engine.weights, pipe.engine.limits)  # all of memory
    with pytest.raises(ResourceError) as caught:
        engine.logits([5] * (engine.limits.slots + 1))
    assert caught.value.code == "R301"


def test_another_model_by_now_is_refused(pair: tuple[Path, Path]) -> None:
    path = pair[0] / "manifest.json"
    told: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "model": {**told["model"], "lock_sha256": "0" * 64}}))
    made = compare(str(pair[0]), str(pair[1]))
    with pytest.raises(IntegrityError) as caught:
        margins.measure(made, str(pair[0]), lambda line: None)
    assert (caught.value.code, caught.value.exit_status) == ("M142", 4)
    assert "0" * 64 in caught.value.expected


@pytest.mark.slow
def test_on_the_command_line(pair: tuple[Path, Path], invoke: Callable) -> None:
    done = invoke("compare", *pair, "--margins")
    assert done.returncode == 0, done.stderr
    assert "margin " in done.stdout
    told = json.loads(invoke("compare", *pair, "--margins", "--json").stdout)
    assert [each["margin"] is None for each in told["differing"]] == [False, False, True]
    assert "margin" not in comparison.text(compare(*map(str, pair)))
