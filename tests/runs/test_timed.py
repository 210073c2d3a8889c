"""A run from the request to the run folder, and by which rule it is scored."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from support.rows import write_rows
from support.tiny_runs import manifest, refused, run

from pipeline import paths, reference, text_generation
from pipeline.accuracy import sandbox
from pipeline.errors import EnvironmentProblem
from pipeline.files import sha256_of
from pipeline.model import lock
from pipeline.model.attest import Attestation
from pipeline.record import timeline
from pipeline.record.outputs import outputs_digest, read_outputs
from pipeline.runs import summary
from pipeline.runs import timed as running
from pipeline.runs.request import ENGINES, Request

pytestmark = pytest.mark.usefixtures("one_thread", "runs", "short_warm_up")

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]
ROWS = 7


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def both(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, running.Summary]]:
    """The same file by both engines."""
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PIPELINE_RUNS", str(folder / "runs"))
        file = write_rows(folder / "rows.jsonl", ROWS)
        yield {engine: run(tiny, file, engine=engine) for engine in ENGINES}


# What a run writes


def test_both_engines_write_the_same_rows(both: dict[str, running.Summary]) -> None:
    ours, theirs = (read_outputs(both[engine].folder) for engine in ENGINES)
    assert ours == theirs
    assert [row["index"] for row in ours] == list(range(ROWS))
    assert all(isinstance(row["output"][0]["generated_text"], str) for row in ours)
    assert {len(row["token_ids"]) for row in ours} == {8}
    assert both["ours"].score == both["reference"].score
    assert both["ours"].answer_tokens == both["reference"].answer_tokens == 8 * ROWS


@pytest.mark.parametrize("engine", ENGINES)
def test_the_manifest_has_what_a_judge_needs(both: dict[str, running.Summary], tiny: Path, engine: str) -> None:
    done = both[engine]
    told = manifest(done.folder)
    assert told["schema"] == "phi3-offline-pipeline/run/1"
    assert told["command"][0] == "invoke"
    assert told["request"]["engine"] == told["engine"]["name"] == engine
    assert told["arguments"] == {
        "max_new_tokens": 8,
        "return_full_text": False,
        "do_sample": False,
        "temperature": 0.0,
        "batch_size": None,
    }
    assert (told["dtype"], told["device"]) == ("float32", "cuda" if torch.cuda.is_available() else "cpu")
    assert told["model"] == {"name": str(tiny), "lock_sha256": lock.read(tiny).root}
    data = Path(told["dataset"]["name"])
    assert told["dataset"] == {"name": str(data), "sha256": sha256_of(data), "rows": ROWS}
    phases_s = told["phases_s"]
    assert phases_s.pop("attestation") > 0
    assert phases_s == {"load": done.load_s, "warm_up": done.warm_up_s, "timed": list(done.all_elapsed_s)}
    assert told["weights"].pop("size_bytes") > 6_000_000
    files = {"model.safetensors": sha256_of(tiny / "model.safetensors")}
    assert told["weights"] == {"lock_sha256": lock.read(tiny).root, "tensors": 14, "rounded": False, "files": files}
    assert all(seconds > 0 for seconds in [told["phases_s"]["load"], told["phases_s"]["warm_up"], told["elapsed_s"]])
    assert told["answer_tokens"] == 8 * ROWS
    assert told["score"] == {"rule": "exact", "correct": 0, "scored": ROWS, "share": 0.0, "note": None}
    assert set(told["code"]) == {"commit", "dirty", "changed"}
    assert {"python", "platform", "cores", "threads", "memory_bytes", "packages"} <= set(told["environment"])
    assert told["peak_memory"]["host_bytes"] > 100_000_000
    assert told["state"] == "finished"
    assert not {"failed", "resumed"} & set(told)


def test_the_manifest_has_what_the_engine_did(both: dict[str, running.Summary]) -> None:
    told = manifest(both["ours"].folder)["engine"]
    stats = told["stats"]
    assert stats["passes"] > 0
    assert stats["prompt_rows"] == stats["tree_tokens"] < stats["prompt_tokens"]
    assert told["tokens_saved_by_sharing"] == stats["prompt_tokens"] - stats["tree_tokens"] > 0
    assert stats["answer_rows"] >= (8 - 1) * ROWS
    assert set(stats["drafts_proposed"]) == set(stats["drafts_accepted"]) != set()
    assert told["prediction"]["passes_predicted_s"] > 0
    assert 0 < told["prediction"]["passes_measured_s"] <= both["ours"].elapsed_s
    assert told["limits"]["budget_rows"] > 0
    assert len(told["cost"]["rows"]) == len(told["cost"]["elapsed_s"]) > 0


def test_a_run_says_where_its_time_went(both: dict[str, running.Summary]) -> None:
    done = both["ours"]
    stages_s, stats = manifest(done.folder)["stages_s"], manifest(done.folder)["engine"]["stats"]
    assert set(stages_s) == {"read", "tokenise", "plan", "passes", "hand_on"}
    assert all(seconds > 0 for seconds in stages_s.values())
    assert stages_s["hand_on"] < stages_s["passes"]
    assert sum(stages_s.values()) - stages_s["hand_on"] <= done.elapsed_s
    passes = timeline.read_passes(done.folder)
    assert len(passes) == stats["passes"]
    assert sum(each.prompt_rows for each in passes) == stats["prompt_rows"]
    assert sum(each.answer_rows for each in passes) == stats["answer_rows"]
    assert stages_s["plan"] < passes[0].end_s
    assert [each.end_s for each in passes] == sorted(each.end_s for each in passes)
    assert sum(each.handed_on_s for each in passes) == pytest.approx(stages_s["hand_on"], abs=1e-4)
    assert list(manifest(both["reference"].folder)["stages_s"]) == ["read"]
    assert not (both["reference"].folder / "passes.csv").exists()


def test_a_run_says_when_each_part_of_it_happened(tiny: Path, file: Path) -> None:
    done = run(tiny, file, repeat=2)
    told = manifest(done.folder)
    line, timed = told["timeline_s"], told["timeline_s"]["timed"]
    moments = [*line["load"], *line["warm_up"], line["telemetry"][0], *timed[0], *timed[1], line["telemetry"][1]]
    assert moments == sorted(moments)
    assert line["telemetry"][1] <= line["attestation"][0]
    assert [end - start for start, end in timed] == pytest.approx(done.all_elapsed_s)
    wall_s = datetime.fromisoformat(told["ended_utc"]) - datetime.fromisoformat(told["began_utc"])
    assert line["attestation"][1] <= wall_s.total_seconds() + 0.01
    rows = [json.loads(line) for line in (done.folder / "outputs.jsonl").read_text().splitlines()]
    finished = [row["at_s"] for row in rows]
    assert finished == sorted(finished)
    assert 0 < finished[0] <= finished[-1] <= done.all_elapsed_s[0]
    (one,) = {json.dumps({**section, "passes": 0}) for section in told["sections"]}
    outputs = [row["output"] for row in sorted(rows, key=lambda row: row["index"])]
    assert json.loads(one) == {"passes": 0, "answer_tokens": 8 * ROWS, "outputs_sha256": outputs_digest(outputs)}
    assert all(section["passes"] > 0 for section in told["sections"])


@pytest.mark.checkout
def test_the_commit_in_the_manifest_is_this_checkouts(both: dict[str, running.Summary]) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout

    code = manifest(both["ours"].folder)["code"]
    assert code["commit"] == git("rev-parse", "HEAD").strip()
    assert isinstance(code["dirty"], bool)


def test_the_log_tells_the_phases(both: dict[str, running.Summary]) -> None:
    log = (both["ours"].folder / "run.log").read_text(encoding="utf-8")
    assert "load" in log
    assert f"{ROWS} prompts in" in log


def test_the_summary_is_short_and_has_the_two_numbers(both: dict[str, running.Summary]) -> None:
    request = Request(dataset="rows.jsonl", model="tiny")
    text = summary.text(request, both["ours"])
    assert f"s for {ROWS} prompts" in text
    assert f"0 of {ROWS} right by the rule `exact`" in text
    assert both["ours"].folder.name in text
    assert len(text.splitlines()) < 10


# What a request can ask for


def test_limit_takes_the_first_rows(tiny: Path, file: Path) -> None:
    done = run(tiny, file, limit=2)
    assert [row["index"] for row in read_outputs(done.folder)] == [0, 1]
    assert (done.rows, manifest(done.folder)["dataset"]["rows"], done.score.scored) == (2, 2, 2)


def test_a_limit_beyond_the_file_takes_all(tiny: Path, file: Path) -> None:
    assert run(tiny, file, limit=1000).rows == ROWS


def test_repeat_times_the_same_thing_again_and_writes_it_once(tiny: Path, file: Path) -> None:
    done = run(tiny, file, repeat=3)
    assert len(manifest(done.folder)["phases_s"]["timed"]) == 3
    assert done.elapsed_s == sorted(done.all_elapsed_s)[1]
    assert len(read_outputs(done.folder)) == ROWS
    assert "median of" in summary.text(Request(), done)


def test_max_new_tokens_ends_answers(tiny: Path, file: Path) -> None:
    done = run(tiny, file, max_new_tokens=3)
    assert {len(row["token_ids"]) for row in read_outputs(done.folder)} == {3}


def test_the_references_batch_size_changes_no_answer(tiny: Path, file: Path, both: dict[str, running.Summary]) -> None:
    done = run(tiny, file, engine="reference", batch_size=3)
    assert read_outputs(done.folder) == read_outputs(both["reference"].folder)
    assert manifest(done.folder)["arguments"]["batch_size"] == 3


def test_dtype_is_taken_and_written_down(tiny: Path, file: Path) -> None:
    assert manifest(run(tiny, file, dtype="bfloat16", limit=2).folder)["dtype"] == "bfloat16"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_without_answers_is_run_and_not_scored(tiny: Path, tmp_path: Path, engine: str) -> None:
    file = tmp_path / "plain.jsonl"
    file.write_text('{"message": [{"role": "user", "content": "Why?"}]}\n')
    done = run(tiny, file, engine=engine)
    assert manifest(done.folder)["score"] == {"rule": "exact", "correct": 0, "scored": 0, "share": None, "note": None}
    assert "the file has no answers" in summary.text(Request(), done)


def test_the_rows_come_in_file_order_and_are_scored_so(tiny: Path, file: Path, tmp_path: Path) -> None:
    rows = read_outputs(run(tiny, file).folder)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line, row in zip(lines, rows, strict=True):
        line["answer"] = row["output"][0]["generated_text"].lstrip().replace("\n", "")
    known = tmp_path / "known.jsonl"
    known.write_text("".join(json.dumps(line) + "\n" for line in lines[::-1]))
    assert run(tiny, known).score.correct == ROWS


# By which rule a run is scored


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets both engines answer every prompt with a text."""

    def tell(text: str) -> None:
        monkeypatch.setattr(text_generation, "load", lambda *_, **__: Telling(text))
        monkeypatch.setattr(running, "attest", lambda *_: Attestation("", 0, 0, False, {}, 0.0))

    return tell


class Telling:
    """A pipe that says the same to everything."""

    def __init__(self, text: str) -> None:
        self.output = [{"generated_text": text}]

    def answer(self, chats: Any, on_answer: Any = None, **arguments: Any) -> reference.Answers:
        if isinstance(chats[0], dict):
            return reference.Answers([self.output], single=True)
        for index in range(len(chats)):
            on_answer(text_generation.Answered(index, self.output, [7]))
        return reference.Answers([self.output] * len(chats), single=False)

    def warm_up(self, *_: object) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {}

    def resident(self) -> dict[str, torch.Tensor]:
        return {}


PROGRAM = """```python
def has_close_elements(numbers, threshold):
    numbers = sorted(numbers)
    return any(b - a < threshold for a, b in zip(numbers, numbers[1:]))
```"""
"""A right answer to the first row of HumanEval, and to no other."""


@pytest.mark.parametrize(
    ("dataset", "text", "rule", "line"),
    [
        ("gsm8k-test", " That makes $18.", "last-number", "1 of 1 right by the rule `last-number`"),
        ("triviaqa-validation", " The Sunset Blvd.", "alias", "1 of 1 right by the rule `alias`"),
        ("boolq-validation", " False", "exact", "1 of 1 right by the rule `exact`"),
        ("humaneval", PROGRAM, "humaneval", "not scored: that means running the answers as programs, which --execute"),
    ],
)
def test_each_set_is_scored_by_its_own_rule(
    telling: Callable[[str], None], tiny: Path, dataset: str, text: str, rule: str, line: str
) -> None:
    telling(text)
    done = run(tiny, dataset, limit=1)
    told = manifest(done.folder)["score"]
    assert (told["rule"], told["note"] is not None) == (rule, rule == "humaneval")
    assert f"score {line}" in " ".join(summary.text(Request(), done).split())


def test_programs_are_run_when_that_is_asked(telling: Callable[[str], None], tiny: Path) -> None:
    telling(PROGRAM)
    done = run(tiny, "humaneval", limit=2, execute_code=True)
    assert (done.score.right, manifest(done.folder)["score"]["note"]) == ((True, False), None)


def test_where_programs_cannot_be_run_no_run_is_begun(tiny: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_GUARD", sandbox._GUARD.replace("x86_64", "none").replace("aarch64", "none"))
    assert refused(EnvironmentProblem, tiny, "humaneval", execute_code=True).code == "E311"
    assert not runs.exists()


# As users meet it: the real command


def test_a_run_prints_its_summary(invoke: Invoke, tiny: Path, file: Path, runs: Path) -> None:
    done = invoke("run", "--dataset", file, "--model", tiny, "--limit", "2", "--max-new-tokens", "2", "--repeat", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"time +[\d.]+ s for 2 prompts", done.stdout)
    assert "median of" in done.stdout
    assert len(read_outputs(next(runs.iterdir()))) == 2
    command = manifest(next(runs.iterdir()))["command"]
    assert command[:2] == ["invoke", "run"]
    assert "Traceback" not in done.stderr
