"""A run in shards: cut along the prefix tree, answered by jobs that die, merged to the bytes of one run, or refused."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.commands import invoke_command
from support.rows import write_rows

from pipeline import paths
from pipeline.accuracy.compare import compare
from pipeline.contest.checks import read_submitted
from pipeline.errors import PipelineError, ResourceError
from pipeline.queues import attempts
from pipeline.queues.queue import Job, Listed, Node
from pipeline.record import provenance, speed
from pipeline.record.outputs import ANSWERS, NAME
from pipeline.runs import engines, evaluate, resume, timed
from pipeline.runs.evaluate import Evaluation
from pipeline.runs.request import Request, begin
from pipeline.runs.shards import answering, drive, merge, plan, sharded, work
from pipeline.runs.shards.cut import cut
from pipeline.runs.shards.sharded import How

pytestmark = pytest.mark.usefixtures("one_thread", "runs")

ROWS, TOKENS = 24, 4


# ---- where it is cut


def a_tree(passages: int, questions: int, chance: random.Random) -> list[list[int]]:
    """Prompts of passages that share a template, in any order."""
    template, prompts = list(range(1, 20)), []
    for _ in range(passages):
        passage = [chance.randrange(100, 999) for _ in range(chance.randrange(60, 140))]
        prompts += [[*template, *passage, *(chance.randrange(100, 999) for _ in range(12))] for _ in range(questions)]
    chance.shuffle(prompts)
    return prompts


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_each_row_is_in_one_piece_and_passages_stay_together(count: int) -> None:
    prompts = a_tree(160, 3, random.Random(count))
    made = cut(prompts, [2] * len(prompts), count)
    assert len(made.pieces) == count
    assert sorted(row for piece in made.pieces for row in piece) == list(range(len(prompts)))
    assert all(list(piece) == sorted(piece) for piece in made.pieces)
    of_passage: dict[tuple[int, ...], set[int]] = {}
    for number, piece in enumerate(made.pieces):
        for row in piece:
            of_passage.setdefault(tuple(prompts[row][19:60]), set()).add(number)
    assert {len(numbers) for numbers in of_passage.values()} == {1}
    assert made.longest < 1.15
    assert made.repeated < 0.02


def test_cuts_that_cannot_be_even() -> None:
    assert cut([], [], 3).pieces == ()
    assert sorted(cut([[1, 2], [1, 3]], [1, 1], 5).pieces) == [(0,), (1,)]
    assert sorted(map(len, cut([[1, 2, 3]] * 6, [5] * 6, 3).pieces)) == [2, 2, 2]  # one passage, longer than a piece
    long_one = [[7] * 500, *([each, each] for each in range(10, 20))]
    made = cut(long_one, [1] * 11, 4)
    assert [0] in [list(piece) for piece in made.pieces]
    assert all(made.pieces)


# ---- runs


class Here:
    """A queue whose jobs run at once, in this process; the first ones die as a test says."""

    def __init__(self, *dying: Callable[[Path], object]) -> None:
        self.dying, self.taken = list(dying), 0

    def submit(self, job: Job) -> None:
        self.taken += 1
        attempt = Path(job.command[-1])
        self.dying.pop(0)(attempt) if self.dying else work.main(attempt)

    def jobs(self) -> list[Listed]:
        return []

    def cancel(self, name: str) -> None:
        raise AssertionError(name)

    def nodes(self) -> list[Node]:
        return [Node("here", True)]


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Iterator[None]:
    """Loading and asking git are not what these tests are about."""
    load, kept = engines.load, {}

    def loading(name: str, model: Path | str, **how: Any) -> engines.Pipe:
        key = (name, str(model), *sorted(how.items()))
        if key not in kept:
            kept[key] = load(name, model, **how)
            kept[key].warm_up(lambda done, steps: None)
        return kept[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engines, "load", loading)
        patched.setattr(engines, "warm_up", lambda *_: None)
        patched.setattr(provenance, "describe", cache(provenance.describe))
        yield


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Here]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(drive, "PERIOD_S", {"local": 0.0})
    monkeypatch.setattr(drive, "GRACE_S", {"local": 0.0})

    def use(*dying: Callable[[Path], object]) -> Here:
        queue = Here(*dying)
        monkeypatch.setattr(drive, "open_queue", lambda *_: queue)
        return queue

    return use


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "many.jsonl", ROWS)


@pytest.fixture(scope="module")
def whole(tiny: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PIPELINE_RUNS", str(tmp_path_factory.mktemp("whole")))
        return timed.run(asked(tiny, file), lambda _: None).folder


def asked(tiny: Path, file: Path, **more: Any) -> Request:
    return Request(**{"dataset": str(file), "model": str(tiny), "max_new_tokens": TOKENS, **more})


def run(request: Request, shards: int | None, unfinished: resume.Unfinished | None = None) -> sharded.Summary:
    return sharded.run(request, begin(request), How(shards), lambda _: None, unfinished)


def killed_after(rows: int) -> Callable[[Path], None]:
    """As the kernel would: the job is gone, its whole answers and a part of a line are there."""

    def die(attempt: Path) -> None:
        append, count = answering.run_folder.RunFolder.append, []

        def appending(self: Any, *row: Any) -> None:
            if len(count) == rows:
                raise SystemExit
            count.append(append(self, *row))

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(answering.run_folder.RunFolder, "append", appending)
            with pytest.raises(SystemExit):
                work.main(attempt)
        with open(next(attempt.glob(f"*/{NAME}")), "a") as outputs:
            outputs.write('{"index": 3, "out')

    return die


@pytest.mark.parametrize("count", [1, 7])
def test_the_bytes_are_those_of_one_run(tiny: Path, file: Path, whole: Path, here: Any, count: int) -> None:
    queue = here()
    done = run(asked(tiny, file), count)
    assert queue.taken == count
    assert (done.folder / ANSWERS).read_bytes() == (whole / ANSWERS).read_bytes()
    assert compare(str(whole), str(done.folder)).byte_equal == ROWS
    told = json.loads((done.folder / "manifest.json").read_text())
    assert [each["rows"] for each in told["shards"]["each"]] == [
        len(piece) for piece in plan.read(done.folder / "shards").parts[0].pieces
    ]
    before = json.loads((whole / "manifest.json").read_text())
    assert {key: told[key] for key in resume.SAME} == {key: before[key] for key in resume.SAME}
    assert told["score"] == before["score"]


def test_it_has_no_time_and_says_so_everywhere(tiny: Path, file: Path, here: Any) -> None:
    here()
    done = run(asked(tiny, file, limit=8), 2)
    told = json.loads((done.folder / "manifest.json").read_text())
    assert told["elapsed_s"] is None
    assert "no time that counts" in told["shards"]["time"]
    assert "no time that counts" in sharded.text(asked(tiny, file), done)
    refused, check = read_submitted.read_manifest(done.folder)
    assert refused is None
    assert "shards" in check.found
    assert "in shards" in speed._times(told)


def test_a_killed_shard_is_taken_up_with_its_answers(tiny: Path, file: Path, whole: Path, here: Any) -> None:
    queue = here(killed_after(5), killed_after(7))
    done = run(asked(tiny, file), 2)
    assert queue.taken == 4
    assert done.kept == 12
    assert (done.folder / ANSWERS).read_bytes() == (whole / ANSWERS).read_bytes()


def test_what_was_stopped_goes_on(tiny: Path, file: Path, whole: Path, here: Any) -> None:
    def stop(attempt: Path) -> None:
        killed_after(5)(attempt)
        raise KeyboardInterrupt

    here(stop)
    with pytest.raises(KeyboardInterrupt):
        run(asked(tiny, file), 2)
    (folder,) = paths.runs().iterdir()
    unfinished = resume.find(folder.name, Request())
    assert sharded.is_sharded(unfinished)
    with pytest.raises(PipelineError) as caught:
        run(unfinished.request, 3, unfinished)
    assert caught.value.code == "U349"
    queue = here()
    done = run(unfinished.request, None, unfinished)
    assert (done.kept, queue.taken) == (5, 2)
    assert (done.folder / ANSWERS).read_bytes() == (whole / ANSWERS).read_bytes()


def test_answers_of_another_model_are_not_taken_over(tiny: Path, file: Path, here: Any) -> None:
    def die(attempt: Path) -> None:
        killed_after(5)(attempt)
        path = next(attempt.glob("*/manifest.json"))
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, "model": {**told["model"], "lock_sha256": "0" * 64}}))

    here(die)
    assert run(asked(tiny, file), 2).kept == 0


def test_a_shard_that_cannot_be_answered_ends_the_run(tiny: Path, file: Path, here: Any) -> None:
    def gone(attempt: Path) -> None:
        attempts.claim(attempt, "here")

    queue = here(gone, gone, gone)
    with pytest.raises(ResourceError) as caught:
        run(asked(tiny, file), 1)
    assert (caught.value.code, queue.taken) == ("R441", 3)


def test_data_that_changed_meanwhile_are_refused_by_the_jobs(tiny: Path, tmp_path: Path, here: Any) -> None:
    own = write_rows(tmp_path / "own.jsonl", 6)

    def change(attempt: Path) -> None:
        own.write_text(own.read_text().replace("Read", "Reed"))
        work.main(attempt)

    here(change)
    with pytest.raises(ResourceError, match="is not the file of the plan"):
        run(asked(tiny, own), 1)


# ---- what is not merged


@pytest.fixture(scope="module")
def done_once(tiny: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PIPELINE_RUNS", str(tmp_path_factory.mktemp("done")))
        patched.setattr(drive, "open_queue", lambda *_: Here())
        patched.setattr(drive, "PERIOD_S", {"local": 0.0})
        return run(asked(tiny, file, limit=9), 3).folder


@pytest.fixture
def done(done_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(done_once, tmp_path / "done")


def merged(folder: Path) -> None:
    """The answers of its shards merged again."""
    whole = plan.read(folder / "shards")
    assert whole is not None
    places = sorted(folder.glob("shards/runs/s*/attempt-1/many"))
    shards = [merge.read(each, number) for number, each in enumerate(places, 1)]
    merge.check(whole.parts[0], shards)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda own, other: own[:-1], "M742"),
        (lambda own, other: [*own, other[0]], "M742"),
        (lambda own, other: [*own[:-1], other[0]], "M742"),
        (lambda own, other: [*own, own[0]], "M741"),
        (lambda own, other: [*own[:-1], own[-1][:-3]], "M741"),
        (lambda own, other: [*own, own[0].replace('"index": ', '"index": 9')], "M742"),
    ],
)
def test_missing_doubled_foreign_rows(done: Path, spoil: Any, code: str) -> None:
    merged(done)
    first, second = (done / f"shards/runs/s{number}-t1/attempt-1/many" / NAME for number in (1, 2))
    first.write_text("".join(spoil(lines(first), lines(second))))
    with pytest.raises(PipelineError) as caught:
        merged(done)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "other",
    [
        {"environment": {"gpu": "NVIDIA H100"}},
        {"environment": {"packages": {"torch": "1.0"}}},
        {"model": {"lock_sha256": "0" * 64}},
        {"weights": {"lock_sha256": "0" * 64}},
        {"dtype": "bfloat16"},
        {"arguments": {"max_new_tokens": 5}},
        {"dataset": {"sha256": "0" * 64}},
        {"code": {"commit": "0" * 40}},
    ],
)
def test_shards_of_another_device_weights_packages(done: Path, other: dict[str, Any]) -> None:
    path = done / "shards/runs/s2-t1/attempt-1/many/manifest.json"
    path.write_text(json.dumps(laid_over(json.loads(path.read_text()), other)))
    with pytest.raises(PipelineError) as caught:
        merged(done)
    assert caught.value.code == "M743"
    assert next(iter(other)) in str(caught.value.where)


def laid_over(value: Any, other: Any) -> Any:
    if not isinstance(other, dict):
        return other
    return {**value, **{key: laid_over(value[key], inner) for key, inner in other.items()}}


def test_a_plan_that_lacks_rows(done: Path) -> None:
    whole = plan.read(done / "shards")
    assert whole is not None
    places = sorted(done.glob("shards/runs/s*/attempt-1/many"))
    shards = [merge.read(each, number) for number, each in enumerate(places, 1)]
    with pytest.raises(PipelineError) as caught:
        merge.check(replace(whole.parts[0], rows=10), shards)
    assert caught.value.code == "M744"


# ---- what cannot be


@pytest.mark.parametrize(
    ("request_more", "how", "code"),
    [
        ({"repeat": 2}, How(2), "U344"),
        ({}, How(0), "U345"),
        ({}, How(ROWS + 1), "U345"),
        ({}, How(2, "cloud"), "U737"),
        ({}, How(2, "local", "orin"), "U744"),
        ({}, How(2, "slurm"), "E631"),
    ],
)
def test_what_cannot_be_asked(
    tiny: Path, file: Path, request_more: Any, how: How, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = asked(tiny, file, **request_more)
    looked = begin(request)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError) as caught:
        sharded.run(request, looked, how, lambda _: None)
    assert caught.value.code == code
    assert list(tmp_path.glob("runs/*/shards/runs/*")) == []


def test_queue_options_without_shards_and_pipes_are_refused(tiny: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        sharded.check_used(None, "slurm", "", resumed=False)
    assert caught.value.code == "U347"
    sharded.check_used(None, "slurm", "", resumed=True)
    os.mkfifo(tmp_path / "data.jsonl")
    looked = replace(begin(asked(tiny, file)), data=tmp_path / "data.jsonl")
    with pytest.raises(PipelineError) as caught:
        sharded.run(asked(tiny, file), looked, How(2), lambda _: None)
    assert caught.value.code == "U348"


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 2}', '{"schema": 1, "parts": [{}]}'])
def test_a_damaged_plan(tmp_path: Path, content: str) -> None:
    (tmp_path / "shards.json").write_text(content)
    with pytest.raises(PipelineError) as caught:
        plan.read(tmp_path)
    assert caught.value.code == "U346"


# ---- evaluations


@pytest.mark.slow
def test_an_evaluation_in_shards_is_that_of_one_process(tiny: Path, here: Any) -> None:
    sets = ("obqa", "gsm8k-test")
    kind = {"sets": sets, "model": str(tiny), "limit": 4, "max_new_tokens": TOKENS}
    alone, cut_up = Evaluation(**kind), Evaluation(**kind, shards=3)
    results, folders = [], []
    queue = here(killed_after(1))
    for each in (alone, cut_up):
        folders.append(evaluate.begin(each))
        results.append(evaluate.evaluate(each, folders[-1], False, lambda _: None))
    assert queue.taken == 4
    assert [each.texts for each in results[0]] == [each.texts for each in results[1]]
    for name in sets:
        a, b = (folder / f"{name}-ours" / ANSWERS for folder in folders)
        assert a.read_bytes() == b.read_bytes()
    before = queue.taken
    assert [each.texts for each in evaluate.evaluate(cut_up, folders[1], False, lambda _: None)] == [
        each.texts for each in results[0]
    ]
    assert queue.taken == before


def test_several_gpus_are_boards_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "box")
    monkeypatch.setattr(drive, "_gpus", lambda: ["3", "5"])
    queue = drive._local(tmp_path, None)
    assert [each.name for each in queue.nodes()] == ["box-gpu-3", "box-gpu-5"]
    say = ("sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES; sleep 0.2")
    for name in "ab":
        queue.submit(Job(name, say, tmp_path / f"{name}.log", 60.0))
    assert {each.node for each in queue.jobs()} == {"box-gpu-3", "box-gpu-5"}
    while queue.jobs():
        pass
    assert sorted((tmp_path / f"{name}.log").read_text() for name in "ab") == ["box-gpu-3 3\n", "box-gpu-5 5\n"]
    assert len(drive._local(tmp_path, "cpu").nodes()) == 1


@pytest.mark.slow
def test_a_thousand_rows_by_the_command_with_a_shard_killed(tiny: Path, tmp_path: Path, runs: Path) -> None:
    import signal
    import subprocess
    import time

    data = write_rows(tmp_path / "thousand.jsonl", 1000)
    options = ["run", "--dataset", data, "--model", tiny, "--max-new-tokens", TOKENS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(invoke_command(*options), check=True, cwd=paths.ROOT, env=environment, capture_output=True)
    (alone,) = runs.iterdir()
    process = subprocess.Popen(
        invoke_command(*options, "--shards", 2), cwd=paths.ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    outputs, end_s = "*-shards/shards/runs/*/attempt-1/*/outputs.jsonl", time.monotonic() + 90
    while not any(path.read_bytes().count(b"\n") > 50 for path in runs.glob(outputs)):
        assert time.monotonic() < end_s
        assert process.poll() is None
        time.sleep(0.01)
    started = json.loads(next(runs.glob("*-shards/shards/runs/*/attempt-1/started.json")).read_text())
    os.kill(started["process"], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "no time that counts" in said
    assert "answers kept" in said
    (folder,) = runs.glob("*-shards")
    assert (folder / ANSWERS).read_bytes() == (alone / ANSWERS).read_bytes()
    shutil.rmtree(folder)
