"""Many sets in one go: one load an engine, a run folder a set, a table beside the model card, and going on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from pipeline import reference, text_generation
from pipeline.accuracy.compare import compare
from pipeline.errors import PipelineError
from pipeline.runs import evaluate
from pipeline.runs import evaluate_table as evaluation
from pipeline.runs.evaluate import Evaluation, Result

pytestmark = pytest.mark.usefixtures("one_thread", "runs", "short_warm_up")

SETS = ("obqa", "gsm8k-test", "humaneval")


def asked(tiny: Path, **more: Any) -> Evaluation:
    return Evaluation(**{"sets": SETS, "model": str(tiny), "limit": 3, "max_new_tokens": 4, **more})


def run(what: Evaluation, folder: Path) -> list[Result]:
    return evaluate.evaluate(what, folder, execute_code=False, say=lambda line: None)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("outputs.jsonl")}


@pytest.mark.slow
def test_a_table_of_sets_and_engines(tiny: Path) -> None:
    what = asked(tiny, engines=("ours", "reference"))
    folder = evaluate.begin(what)
    results = run(what, folder)
    assert [(each.dataset, each.engine) for each in results] == [
        (name, engine) for name in SETS for engine in ("ours", "reference")
    ]
    assert all(ours.texts == theirs.texts for ours, theirs in zip(results[::2], results[1::2], strict=True))
    shown = evaluation.text(results, folder)
    assert "9 of 9 answers are the same bytes" in shown
    assert "87.4 % (10)" in shown
    assert "not scored" in shown
    assert "--execute-code" in shown
    assert "zero-shot" in shown
    evaluation.write(results, folder)
    told = json.loads((folder / "results.json").read_text())["results"]
    assert [(row["set"], row["rows"], row["same_bytes"]) for row in told[::2]] == [(name, 3, 3) for name in SETS]
    assert told[0]["model_card"] == {"title": "OpenBookQA", "shots": 10, "score": 87.4}


@pytest.mark.slow
def test_its_run_folders_can_be_compared(tiny: Path) -> None:
    what = asked(tiny, engines=("ours", "reference"), sets=("obqa",))
    folder = evaluate.begin(what)
    run(what, folder)
    made = compare(str(folder / "obqa-ours"), str(folder / "obqa-reference"))
    assert (made.rows, made.byte_equal, made.verdict) == (3, 3, "cannot tell")  # of the 30 rows of the set
    assert {name for name, _, _ in made.manifests} == {"request.engine", "engine.name"}


@pytest.mark.slow
def test_each_engine_is_loaded_once_and_not_at_all_when_nothing_is_left(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    for engine, module in (("ours", text_generation), ("reference", reference)):
        load = module.load
        monkeypatch.setattr(module, "load", lambda *a, e=engine, real=load, **k: (loads.append(e), real(*a, **k))[1])
    what = asked(tiny, engines=("ours", "reference"))
    folder = evaluate.begin(what)
    first = run(what, folder)
    assert loads == ["ours", "reference"]
    assert [each.texts for each in run(what, folder)] == [each.texts for each in first]
    assert loads == ["ours", "reference"]


@pytest.mark.slow
def test_what_was_cut_off_goes_on_within_a_set(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    what = asked(tiny)
    whole = evaluate.begin(what)
    run(what, whole)
    cut = evaluate.begin(what)
    append = evaluate.run_folder.RunFolder.append
    count = []

    def appending(self: Any, *row: Any) -> None:
        count.append(1)
        if len(count) == 5:
            raise KeyboardInterrupt
        append(self, *row)

    with monkeypatch.context() as patched:
        patched.setattr(evaluate.run_folder.RunFolder, "append", appending)
        with pytest.raises(KeyboardInterrupt):
            run(what, cut)
    assert sum(content.count(b"\n") for content in files(cut).values()) == 4
    folder, found = evaluate.find(cut.name, Evaluation(sets=()))
    assert (folder, found) == (cut, what)
    assert [each.texts for each in run(found, folder)] == [each.texts for each in run(what, whole)]
    assert {name: content.count(b"\n") for name, content in files(cut).items()} == dict.fromkeys(files(whole), 3)


@pytest.mark.parametrize("state", ["failed", "finished"])
def test_another_model_by_now_is_refused(tiny: Path, state: str) -> None:
    what = asked(tiny, sets=("obqa",))
    folder = evaluate.begin(what)
    run(what, folder)
    path = folder / "obqa-ours" / "manifest.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "state": state, "model": {**told["model"], "lock_sha256": "0" * 64}}))
    assert refused(lambda: run(what, folder)).code == "U315"


def refused(call: Callable[[], object]) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"sets": ()}, "U343"),
        ({"engines": ()}, "U343"),
        ({"sets": ("obqa", "bolq-validation")}, "U101"),
        ({"engines": ("our",)}, "U301"),
        ({"limit": 0}, "U302"),
    ],
)
def test_what_cannot_be_asked(tiny: Path, runs: Path, wrong: dict[str, Any], code: str) -> None:
    assert refused(lambda: evaluate.begin(asked(tiny, **wrong))).code == code
    assert not runs.exists()


def test_going_on_with_what_is_no_evaluation(tiny: Path, runs: Path) -> None:
    (runs / "other").mkdir(parents=True)
    assert refused(lambda: evaluate.find("other", Evaluation(sets=()))).code == "U341"
    assert refused(lambda: evaluate.find("none", Evaluation(sets=()))).code == "U311"


def test_going_on_otherwise_than_it_was_asked(tiny: Path) -> None:
    folder = evaluate.begin(asked(tiny))
    error = refused(lambda: evaluate.find(str(folder), Evaluation(sets=(), limit=4)))
    assert (error.code, error.expected, error.actual) == ("U342", "3", "4")
    assert evaluate.find(str(folder), Evaluation(sets=SETS, limit=3))[1] == asked(tiny)


def test_prompts_beyond_the_context_are_answered_and_named(small: Path) -> None:
    what = Evaluation(sets=("boolq-validation",), model=str(small), limit=3, max_new_tokens=4)
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        (result,) = run(what, evaluate.begin(what))
    finally:
        logger.remove(sink)
    assert len(result.texts) == 3
    assert len(lines) == 1
    assert all(f"boolq-validation.jsonl line {number}" in lines[0] for number in (1, 2, 3))


@pytest.mark.slow
def test_on_the_command_line(tiny: Path, invoke: Callable, runs: Path) -> None:
    done = invoke("evaluate", "--sets", "obqa,gsm8k-test", "--model", tiny, "--limit", "2", "--max-new-tokens", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "91.0 % (8)" in done.stdout
    (folder,) = runs.iterdir()
    again = invoke("evaluate", "--resume", folder.name)
    assert again.returncode == 0
    assert "loading" not in again.stdout
    wrong = invoke("evaluate", "--sets", "bolq")
    assert wrong.returncode == 2
    assert "did you mean boolq" in wrong.stderr


@pytest.mark.slow
def test_a_benchmark_s_plain_name_is_that_of_a_set(tiny: Path, invoke: Callable, runs: Path) -> None:
    sets = "obqa,gsm8k,gsm8k-test"
    done = invoke("evaluate", "--sets", sets, "--model", tiny, "--limit", "1", "--max-new-tokens", "1")
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = runs.iterdir()
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"obqa-ours", "gsm8k-test-ours"}
