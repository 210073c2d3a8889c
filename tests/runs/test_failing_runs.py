"""A run that fails in the middle or is refused: in code, and as users meet it on the command line."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.checkpoints import flip_a_bit
from support.commands import heeding_interrupts, invoke_command
from support.rows import write_rows
from support.tiny_runs import manifest, refused, run

from pipeline import paths, reference, text_generation
from pipeline.errors import FormError, IntegrityError, ResourceError, UsageError
from pipeline.model import lock
from pipeline.record.outputs import read_outputs
from pipeline.runs import timed as running
from pipeline.runs.request import ENGINES, Request, arguments_of

pytestmark = pytest.mark.usefixtures("one_thread", "runs", "short_warm_up")

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]
ROWS = 7


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", ROWS)


# Failures in the middle


class Stumbling:
    """A pipe that answers some rows and then fails."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def answer(self, chats: Any, on_answer: Any = None, **arguments: Any) -> reference.Answers:
        if isinstance(chats[0], dict):
            return reference.Answers([[{"generated_text": ""}]], single=True)
        for index in (3, 1):
            on_answer(text_generation.Answered(index, [{"generated_text": f"answer {index}"}], [index]))
        raise self.error

    def describe(self) -> dict[str, Any]:
        return {"set": "to stumble"}

    def warm_up(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "error",
    [ResourceError("R000", "no memory", fix="buy some"), RuntimeError("a bug"), MemoryError(), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_in_the_middle_keeps_what_was_answered(
    tiny: Path, file: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(text_generation, "load", lambda *_, **__: Stumbling(error))
    with pytest.raises(type(error)):
        run(tiny, file)
    folder = next(runs.iterdir())
    assert [row["index"] for row in read_outputs(folder)] == [1, 3]
    assert manifest(folder)["failed"]["kind"] == type(error).__name__
    assert manifest(folder)["failed"]["reason"]


def rows_written(runs: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in runs.glob("*/outputs.jsonl"))


@pytest.mark.slow
def test_ctrl_c_in_the_middle_leaves_whole_lines(tiny: Path, tmp_path: Path, runs: Path) -> None:
    file = write_rows(tmp_path / "many.jsonl", 5000)
    command = invoke_command("run", "--dataset", file, "--model", tiny, "--max-new-tokens", "16")
    running_now = subprocess.Popen(
        heeding_interrupts(command),
        cwd=paths.ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while rows_written(runs) < 20 and running_now.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running_now.pid, signal.SIGINT)
    said, complained = running_now.communicate(timeout=60)
    assert running_now.returncode == 130, complained
    assert "Traceback" not in said + complained
    assert "Interrupted" in complained
    folder = next(runs.iterdir())
    assert (folder / "outputs.jsonl").read_bytes().endswith(b"}\n")
    assert 20 <= len(read_outputs(folder)) < 5000
    assert manifest(folder)["failed"]["kind"] == "KeyboardInterrupt"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bit_that_tips_while_it_runs_is_named_and_the_answers_kept(
    tiny: Path, file: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    module = text_generation if engine == "ours" else reference
    load = module.load

    def load_into_failing_memory(*arguments: Any, **options: Any) -> Any:
        pipe = load(*arguments, **options)
        flip_a_bit(pipe.resident()["model.norm.weight"].detach(), 7, bit=2)
        return pipe

    monkeypatch.setattr(module, "load", load_into_failing_memory)
    error = refused(IntegrityError, tiny, file, engine=engine)
    assert (error.code, error.exit_status) == ("M421", 4)
    assert error.where.endswith("model.norm.weight[7]")
    (folder,) = runs.iterdir()
    assert len(read_outputs(folder)) == ROWS
    assert "model.norm.weight" in manifest(folder)["failed"]["reason"]


# Wrong data files: the run gets as far as the clock, so the model is loaded once for all of them


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> running.Ready:
    return running._prepare(Request(model=str(tiny)), tiny, arguments_of(Request()))


@pytest.fixture
def prepared(loaded: running.Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_prepare", lambda *_: loaded)


def turns(*turns: tuple[Any, Any]) -> bytes:
    return json.dumps({"message": [{"role": role, "content": content} for role, content in turns]}).encode()


GOOD = turns(("user", "Why?"))
WRONG_FILES: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "F101", "line 1"),
    "not UTF-8": (GOOD + b'\n{"message": "\xff"}', "F102", "line 2"),
    "an empty line": (GOOD + b"\n\n" + GOOD, "F103", "line 2"),
    "a broken line": (GOOD + b"\n" + GOOD[:-5], "F104", "line 2"),
    "a row that is no object": (GOOD + b"\n[1]", "F105", "line 2"),
    "a row without message": (GOOD + b'\n{"answer": "x"}', "F106", "line 2"),
    "a message that is no list": (GOOD + b'\n{"message": "x"}', "F107", "line 2"),
    "an empty message list": (GOOD + b'\n{"message": []}', "F108", "line 2"),
    "an unknown role": (GOOD + b"\n" + turns(("human", "x")), "F110", "line 2"),
    "content that is no string": (GOOD + b"\n" + turns(("user", ["x"])), "F111", "line 2"),
    "a last turn not the user's": (GOOD + b"\n" + turns(("user", "x"), ("assistant", "y")), "F113", "line 2"),
}


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(("content", "code", "line"), WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_a_wrong_data_file_is_named_with_its_line(
    tiny: Path, tmp_path: Path, runs: Path, content: bytes, code: str, line: str
) -> None:
    file = tmp_path / "wrong.jsonl"
    file.write_bytes(content)
    error = refused(FormError, tiny, file)
    assert (error.code, error.exit_status) == (code, 6)
    assert error.where.endswith(f"wrong.jsonl {line}")
    assert not runs.exists()  # said before a model is loaded: no folder of a dead run


def test_a_data_file_that_is_missing_or_a_folder(tiny: Path, tmp_path: Path) -> None:
    assert refused(UsageError, tiny, tmp_path / "none.jsonl").code == "U111"
    assert refused(UsageError, tiny, tmp_path).code == "U112"


# Wrong requests: refused before anything is loaded


@pytest.mark.parametrize(
    ("request_", "code", "shown"),
    [
        ({"engine": "our"}, "U301", "did you mean ours?"),
        ({"limit": 0}, "U302", "--limit"),
        ({"repeat": 0}, "U302", "--repeat"),
        ({"max_new_tokens": -1}, "U302", "--max-new-tokens"),
        ({"engine": "reference", "batch_size": 0}, "U302", "--batch-size"),
        ({"batch_size": 4}, "U303", "--engine reference"),
        ({"device": "gpu"}, "U204", "cpu"),
        ({"dtype": "float16"}, "U203", "bfloat16"),
    ],
)
def test_a_wrong_request(tiny: Path, file: Path, request_: dict[str, Any], code: str, shown: str) -> None:
    error = refused(UsageError, tiny, file, **request_)
    assert (error.code, error.exit_status) == (code, 2)
    assert shown in str(error)


def test_a_typo_gets_the_nearest_names(tiny: Path, file: Path) -> None:
    assert "did you mean obqa-test" in refused(UsageError, tiny, "obqa-tset").what
    assert "did you mean standin" in refused(UsageError, "standim", file).what
    assert refused(UsageError, "no/such/folder", file).code == "U103"


# Damaged models: refused before the run has a folder, or with the reason in it


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint in two shards, so that one can go."""
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors", "*lock*"))
    tensors = load_file(tiny / "model.safetensors")
    halves = [sorted(tensors)[::2], sorted(tensors)[1::2]]
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        save_file({key: tensors[key].clone() for key in half}, folder / name, metadata={"format": "pt"})
    weight_map = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def damage(folder: Path, how: str) -> None:
    shard = folder / "model-00002-of-00002.safetensors"
    if how == "missing":
        shard.unlink()
    elif how == "truncated":
        os.truncate(shard, shard.stat().st_size - 1)
    elif how == "altered":
        with shard.open("r+b") as handle:
            handle.seek(-1, os.SEEK_END)
            handle.write(b"\x77")


def test_a_checkpoint_in_shards_gives_the_same(copy: Path, tiny: Path, file: Path) -> None:
    assert read_outputs(run(copy, file).folder) == read_outputs(run(tiny, file).folder)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("how", "code"), [("missing", "M201"), ("truncated", "M202"), ("altered", "M203")])
def test_a_damaged_shard_is_named(copy: Path, file: Path, runs: Path, how: str, code: str, engine: str) -> None:
    lock.verify(copy)
    damage(copy, how)
    error = refused(IntegrityError, copy, file, engine=engine)
    assert (error.code, error.exit_status) == (code, 4)
    assert "model-00002-of-00002.safetensors" in error.where
    assert not runs.exists()


@pytest.mark.parametrize(("how", "code"), [("missing", "M401"), ("truncated", "M403")])
def test_a_damaged_shard_is_named_also_where_no_lock_was(copy: Path, file: Path, how: str, code: str) -> None:
    damage(copy, how)
    error = refused(IntegrityError, copy, file)
    assert error.code == code
    assert "model-00002-of-00002.safetensors" in error.where


@pytest.mark.parametrize("engine", ENGINES)
def test_another_architecture_is_refused(copy: Path, file: Path, engine: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    error = refused(IntegrityError, copy, file, engine=engine)
    assert (error.code, error.exit_status) == ("M303", 4)
    assert "llama" in error.actual


# As users meet them: the real command


def complaint(done: subprocess.CompletedProcess[str], status: int, code: str) -> str:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count(f"{code} ") == 1, done.stderr
    assert re.search(r"^  do:       \S", done.stderr, re.MULTILINE)
    return done.stderr


@pytest.mark.parametrize(
    ("options", "status", "code", "shown"),
    [
        (["--limit", "x"], 2, "U401", "--limit"),
        (["--repeat", "0"], 2, "U302", "--repeat"),
        (["--dataset", "obqa-tset"], 2, "U101", "obqa-test"),
    ],
)
def test_wrong_options_on_the_command_line(
    invoke: Invoke, tiny: Path, options: list[str], status: int, code: str, shown: str
) -> None:
    assert shown in complaint(invoke("run", "--model", tiny, *options), status, code)


def test_a_broken_line_on_the_command_line(invoke: Invoke, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_bytes(GOOD + b"\n{\n")
    assert "broken.jsonl line 2" in complaint(invoke("run", "--dataset", file, "--model", tiny), 6, "F104")


def test_an_altered_shard_on_the_command_line(invoke: Invoke, copy: Path, file: Path) -> None:
    lock.verify(copy)
    damage(copy, "altered")
    said = complaint(invoke("run", "--dataset", file, "--model", copy), 4, "M203")
    assert "model-00002-of-00002.safetensors" in said


@pytest.mark.slow
def test_runs_below_a_file_on_the_command_line(
    invoke: Invoke, tiny: Path, file: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.touch()
    monkeypatch.setenv("PIPELINE_RUNS", str(runs / "below"))
    assert "PIPELINE_RUNS" in complaint(invoke("run", "--dataset", file, "--model", tiny), 5, "R102")


@pytest.mark.slow
def test_no_room_in_the_middle_on_the_command_line(invoke: Invoke, tiny: Path, tmp_path: Path, runs: Path) -> None:
    """The system itself refuses to write beyond 4,000 bytes of a file."""
    file = write_rows(tmp_path / "rows.jsonl", 100)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    done = invoke("run", "--dataset", file, "--model", tiny, "--max-new-tokens", "8", preexec_fn=small_files)
    assert "outputs.jsonl" in complaint(done, 5, "R101")
    folder = next(runs.iterdir())
    assert (folder / "outputs.jsonl").read_bytes().endswith(b"}\n")
    assert 5 < len(read_outputs(folder)) < 100
    assert manifest(folder)["failed"]["kind"] == "ResourceError"


@pytest.mark.slow
def test_runs_without_permission(tiny: Path, file: Path, tmp_path: Path, as_nobody: Callable[..., str]) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    shutil.copytree(tiny, tmp_path / "model", copy_function=shutil.copyfile)
    for folder in (tmp_path, tmp_path / "model"):
        folder.chmod(0o755)
    said = as_nobody(
        # Looked at once with all rights, so that nothing is left to import when they are gone.
        "from pipeline import errors; from pipeline.runs import request, timed\n"
        "asked = request.Request(dataset='rows.jsonl', model='./model')\n"
        "request.check_room(asked, request.begin(asked))",
        "try: timed.run(asked)\nexcept errors.PipelineError as error: print(error.exit_status, error)",
        PIPELINE_RUNS="locked",
    )
    assert "5 R102" in said
    assert "Permission denied" in said


@pytest.mark.slow
def test_a_model_folder_that_may_not_be_read_gives_a_message(
    tiny: Path, file: Path, tmp_path: Path, as_nobody: Callable[..., str]
) -> None:
    shutil.copytree(tiny, tmp_path / "model", copy_function=shutil.copyfile)
    tmp_path.chmod(0o755)
    (tmp_path / "model").chmod(0)
    said = as_nobody(
        "from pipeline import files\nfrom pipeline.commands import answer\n"
        "from pipeline.runs import summary, timed, validity\nfrom invoke import Exit",
        "try: answer.run.body(None, dataset='rows.jsonl', model='./model')\n"
        "except Exit as end: print(end.code, end.message)",
        PIPELINE_RUNS="runs",
    )
    (tmp_path / "model").chmod(0o700)
    assert said.startswith("5")
    assert "R104" in said
    assert "Permission denied" in said
