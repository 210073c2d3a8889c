"""A run survives: killed, interrupted, out of disk, without its data, it keeps its answers; --resume does the rest."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from support.commands import heeding_interrupts, invoke_command
from support.rows import write_rows

from pipeline import paths, settings
from pipeline.errors import PipelineError, UsageError
from pipeline.files import sha256_of
from pipeline.model import lock
from pipeline.record.outputs import read_outputs
from pipeline.runs import resume, summary
from pipeline.runs import timed as running
from pipeline.runs.request import Request

pytestmark = pytest.mark.usefixtures("one_thread", "runs", "short_warm_up")

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]
Moment = Callable[["subprocess.Popen[str]"], None]
ROWS, TOKENS = 400, 16
SEED = 5


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def start(*options: object, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        heeding_interrupts(invoke_command("run", *options)),
        cwd=paths.ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def rows_in(runs: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in runs.glob("*/outputs.jsonl"))


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send the signal; everything that was said."""
    if process.poll() is None:
        os.killpg(process.pid, number)
    said = "".join(process.communicate(timeout=60))
    assert "Traceback" not in said
    return said


def end_of(process: subprocess.Popen[str]) -> str:
    """Let it end by itself; everything that was said."""
    said = "".join(process.communicate(timeout=90))
    assert "Traceback" not in said
    return said


def go_on(folder: Path, **options: Any) -> running.Summary:
    unfinished = resume.find(str(folder), Request(**options))
    return running.run(unfinished.request, lambda line: None, unfinished)


def refused(folder: Path | str, **options: Any) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        go_on(folder, **options)
    return caught.value


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "many.jsonl", ROWS)


@pytest.fixture(scope="module")
def whole(tiny: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The answers of a run that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PIPELINE_RUNS", str(tmp_path_factory.mktemp("whole")))
        done = running.run(Request(dataset=str(file), model=str(tiny), max_new_tokens=TOKENS), lambda line: None)
    return read_outputs(done.folder)


@pytest.fixture(scope="module")
def killed_once(tiny: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed in the middle."""
    runs = tmp_path_factory.mktemp("killed")
    process = start(
        "--dataset", file, "--model", tiny, "--max-new-tokens", TOKENS, env={**os.environ, "PIPELINE_RUNS": str(runs)}
    )
    wait_for(process, lambda: rows_in(runs) >= 100)
    end(process, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return next(runs.iterdir())


@pytest.fixture
def killed(killed_once: Path, runs: Path) -> Path:
    """A copy of it, among this test's runs."""
    return Path(shutil.copytree(killed_once, runs / killed_once.name))


# Killed


def test_killed_it_leaves_whole_answers_and_what_it_was_asked(
    killed: Path, file: Path, tiny: Path, whole: list[dict[str, Any]]
) -> None:
    rows = read_outputs(killed)
    assert 100 <= len(rows) < ROWS
    assert all(row == whole[row["index"]] for row in rows)
    told = manifest(killed)
    assert told["state"] == "unfinished"
    assert told["request"]["dataset"] == str(file)
    assert told["dataset"]["sha256"] == sha256_of(file)
    assert told["model"]["lock_sha256"] == lock.read(tiny).root


def test_gone_on_with_it_answers_the_rest_and_has_no_time(killed: Path, whole: list[dict[str, Any]]) -> None:
    kept = len(read_outputs(killed))
    before, code = (killed / "outputs.jsonl").read_bytes(), manifest(killed)["code"]
    done = go_on(killed)
    assert read_outputs(killed) == whole
    assert (killed / "outputs.jsonl").read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert (done.folder, done.rows, done.kept, done.elapsed_s) == (killed, ROWS, kept, None)
    told = manifest(killed)
    assert told["state"] == "finished"
    assert told["resumed"] == [{"kept": kept, "code": code, "after": "the process ended without saying why"}]
    assert told["command"][:2] == ["invoke", "run"]
    assert told["elapsed_s"] is None
    assert told["phases_s"]["timed"] == []
    assert told["answer_tokens"] == done.answer_tokens == sum(len(row["token_ids"]) for row in whole)
    assert told["score"]["scored"] == ROWS
    assert told["weights"]["tensors"] == 14
    said = summary.text(Request(), done)
    assert f"none, as the run was cut off: {kept} of {ROWS} answers were kept" in said


def test_a_last_line_that_is_not_whole_is_answered_again(killed: Path, whole: list[dict[str, Any]]) -> None:
    outputs = killed / "outputs.jsonl"
    lines = outputs.read_bytes().splitlines(keepends=True)
    outputs.write_bytes(b"".join(lines[:50]) + lines[50][: len(lines[50]) // 2])
    done = go_on(killed)
    assert done.kept == 50
    assert read_outputs(killed) == whole


def test_with_all_rows_answered_only_the_end_is_missing(killed: Path, whole: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in whole)
    (killed / "outputs.jsonl").write_text(text, encoding="utf-8")
    done = go_on(killed)
    assert done.kept == ROWS
    assert (killed / "outputs.jsonl").read_text(encoding="utf-8") == text
    assert manifest(killed)["score"]["scored"] == ROWS


def unfinished_in(runs: Path) -> Path | None:
    """The folder of the run that is to be gone on with, if any."""
    return next(
        (path.parent for path in runs.glob("*/manifest.json") if manifest(path.parent)["state"] != "finished"), None
    )


def survive(moments: list[Moment], options: list[object], runs: Path) -> dict[Path, int]:
    """Start a run, kill it at a moment, go on with it, kill it at the next, …: how often each run was killed.

    A run that ended before its kill came is left as it is, and the next moment gets a new one: however fast the
    machine, no moment is spent on a run that is over.
    """
    kills: dict[Path, int] = {}
    for moment in moments:
        folder = unfinished_in(runs)
        process = start("--resume", folder) if folder else start(*options)
        moment(process)
        end(process, signal.SIGKILL)
        begun = folder or next((path for path in runs.iterdir() if path not in kills), None)
        if begun is not None:  # a kill may come before there is a folder
            kills[begun] = kills.get(begun, 0) + (process.returncode == -signal.SIGKILL)
    return kills


def random_moments(count: int, runs: Path, seed: int) -> list[Moment]:
    """Half of them some milliseconds behind an answer, half anywhere in a process's life."""
    chance = random.Random(seed)

    def at(share: float, delay_s: float) -> Moment:
        def moment(process: subprocess.Popen[str]) -> None:
            before = rows_in(runs)
            done = before % ROWS
            wait_for(process, lambda: rows_in(runs) >= before + 1 + int(share * (ROWS - done) / 3))
            time.sleep(delay_s)

        return moment

    def anywhere(delay_s: float) -> Moment:
        return lambda process: time.sleep(delay_s)

    return [
        at(chance.random(), chance.uniform(0, 0.02)) if turn % 2 == 0 else anywhere(chance.uniform(0.5, 6))
        for turn in range(count)
    ]


def check_survived(kills: dict[Path, int], runs: Path, whole: list[dict[str, Any]]) -> None:
    assert set(kills) == set(runs.iterdir())
    assert sum(kills.values()) >= 2
    for folder, times in kills.items():
        if manifest(folder)["state"] != "finished":
            kept = len(read_outputs(folder))
            said = end_of(start("--resume", folder))
            assert f"none, as the run was cut off: {kept} of {ROWS} answers were kept" in said
        assert read_outputs(folder) == whole
        assert len(manifest(folder).get("resumed", [])) <= times
        assert (folder / "outputs.jsonl").read_bytes().count(b"\n") == ROWS
        names = {path.name for path in folder.iterdir()} - {"passes.csv"}  # of the last part, if it had anything to do
        assert names == {"outputs.jsonl", "answers.jsonl", "manifest.json", "run.log", "telemetry.csv"}


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_answers(
    tiny: Path, file: Path, runs: Path, whole: list[dict[str, Any]]
) -> None:
    options = ["--dataset", file, "--model", tiny, "--max-new-tokens", TOKENS]
    check_survived(survive(random_moments(4, runs, SEED), options, runs), runs, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_many_moments(tiny: Path, file: Path, runs: Path, whole: list[dict[str, Any]], seed: int) -> None:
    options = ["--dataset", file, "--model", tiny, "--max-new-tokens", TOKENS]
    check_survived(survive(random_moments(6, runs, seed), options, runs), runs, whole)


@pytest.mark.slow
def test_the_reference_goes_on_too(tiny: Path, file: Path, runs: Path) -> None:
    options = ["--dataset", file, "--model", tiny, "--max-new-tokens", 3, "--limit", 60, "--engine", "reference"]
    process = start(*options)
    wait_for(process, lambda: rows_in(runs) >= 5)
    end(process, signal.SIGKILL)
    (folder,) = runs.iterdir()
    kept = len(read_outputs(folder))
    assert 5 <= kept < 60
    assert go_on(folder).kept == kept
    ours = running.run(Request(str(file), str(tiny), max_new_tokens=3, limit=60), lambda line: None)
    assert read_outputs(folder) == read_outputs(ours.folder)


# Interrupted


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [
        (signal.SIGINT, 130, "interrupted (Ctrl-C)"),
        pytest.param(signal.SIGTERM, 143, "stopped (SIGTERM)", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_interrupted_it_says_why_and_how_to_go_on(
    tiny: Path,
    file: Path,
    runs: Path,
    whole: list[dict[str, Any]],
    number: signal.Signals,
    status: int,
    reason: str,
) -> None:
    process = start("--dataset", file, "--model", tiny, "--max-new-tokens", TOKENS)
    wait_for(process, lambda: rows_in(runs) >= 20)
    said = end(process, number)
    (folder,) = runs.iterdir()
    kept = len(read_outputs(folder))
    assert process.returncode == status, said
    assert f"{kept} answers are kept; to go on: invoke run --resume {folder}" in said
    assert (manifest(folder)["state"], manifest(folder)["failed"]["reason"]) == ("failed", reason)
    assert reason in (folder / "run.log").read_text(encoding="utf-8")
    assert go_on(folder).kept == kept
    assert read_outputs(folder) == whole
    (resumed,) = manifest(folder)["resumed"]
    assert (resumed["kept"], resumed["after"]) == (kept, reason)
    assert "failed" not in manifest(folder)


# Things that go missing while it runs


class SmallDisk:
    """A folder with room for 64 KiB: a file system of its own where we may mount one, a limit on files elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.mounted = self._call("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)

    def limit(self) -> None:
        """For the child, before it becomes the run, where nothing could be mounted."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    def grow(self) -> None:
        if self.mounted:
            assert self._call("mount", "-o", "remount,size=64m", self.folder)

    def end(self) -> None:
        if self.mounted:
            self._call("umount", "--lazy", self.folder)

    def _call(self, *command: object) -> bool:
        try:
            return subprocess.run([*map(str, command)], capture_output=True, check=False).returncode == 0
        except OSError:
            return False


@pytest.fixture
def small_disk(runs: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(runs)
    yield disk
    disk.end()


@pytest.mark.slow
def test_a_full_disk_keeps_what_fits_and_with_room_it_goes_on(
    small_disk: SmallDisk, tiny: Path, file: Path, runs: Path, whole: list[dict[str, Any]]
) -> None:
    how = {} if small_disk.mounted else {"preexec_fn": small_disk.limit}
    process = start("--dataset", file, "--model", tiny, "--max-new-tokens", TOKENS, **how)
    said = end_of(process)
    assert process.returncode == 5, said
    assert said.count("R101 ") == 1
    (folder,) = runs.iterdir()
    outputs = folder / "outputs.jsonl"
    assert outputs.read_bytes().endswith(b"}\n")
    kept = len(read_outputs(folder))
    assert 50 < kept < ROWS
    assert f"{kept} answers are kept" in said
    assert manifest(folder)["state"] in ("failed", "unfinished")  # there may be no room to say even that
    small_disk.grow()
    assert go_on(folder).kept == kept
    assert read_outputs(folder) == whole


@pytest.mark.slow
def test_a_data_file_that_vanishes_before_it_is_read(tiny: Path, tmp_path: Path, runs: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 20)
    content = file.read_bytes()
    process = start("--dataset", file, "--model", tiny, "--max-new-tokens", 4)
    wait_for(process, lambda: bool(list(runs.glob("*/manifest.json"))))
    file.unlink()
    said = end_of(process)
    assert process.returncode == 5, said
    assert "R103 the data file has vanished" in said
    assert "rows.jsonl" in said
    (folder,) = runs.iterdir()
    assert "R103" in manifest(folder)["failed"]["reason"]
    assert refused(folder).code == "U111"
    file.write_bytes(content)
    assert go_on(folder).rows == 20


@pytest.mark.slow
def test_a_data_file_that_vanishes_once_it_is_read_is_not_missed(
    tiny: Path, tmp_path: Path, runs: Path, whole: list[dict[str, Any]]
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    sha256 = sha256_of(file)
    process = start("--dataset", file, "--model", tiny, "--max-new-tokens", TOKENS)
    wait_for(process, lambda: rows_in(runs) >= 1)
    file.unlink()
    assert process.poll() is None
    said = end_of(process)
    assert process.returncode == 0, said
    (folder,) = runs.iterdir()
    assert read_outputs(folder) == whole
    assert manifest(folder)["dataset"]["sha256"] == sha256


@pytest.mark.slow
def test_a_run_folder_that_becomes_read_only_keeps_all_answers(
    tiny: Path, tmp_path: Path, runs: Path, as_nobody: Callable[..., str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", 20)
    shutil.copytree(tiny, tmp_path / "model", copy_function=shutil.copyfile)
    runs.mkdir()
    for folder in (tmp_path, tmp_path / "model"):
        folder.chmod(0o755)
    runs.chmod(0o777)
    said = as_nobody(
        # Once with all rights, so that nothing is left to import when they are gone.
        "import os, pathlib, threading, time\n"
        "from pipeline import errors\nfrom pipeline.runs import request, resume, timed\n"
        "asked = request.Request(dataset='rows.jsonl', model='./model', max_new_tokens=4)\n"
        "timed.run(asked)\nos.environ['PIPELINE_RUNS'] = 'runs'",
        "runs = pathlib.Path('runs')\n"
        "def lock():\n"
        "    while not any(path.stat().st_size for path in runs.glob('*/outputs.jsonl')):\n"
        "        time.sleep(0.001)\n"
        "    next(runs.iterdir()).chmod(0o555)\n"
        "threading.Thread(target=lock, daemon=True).start()\n"
        "def told(*arguments):\n"
        "    try: timed.run(*arguments)\n"
        "    except errors.PipelineError as error: print(error.exit_status, error)\n"
        "told(asked)\n"
        "for path in next(runs.iterdir()).iterdir(): path.chmod(0o444)\n"
        "told(asked, print, resume.find(str(next(runs.iterdir())), request.Request()))",
        PIPELINE_RUNS="warm-up",
    )
    assert said.count("5 R102") == 2
    assert "20 answers are kept" in said
    assert "Permission denied" in said
    (folder,) = runs.iterdir()
    assert len(read_outputs(folder)) == 20
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        assert go_on(folder).kept == 20


# What cannot be gone on with


def test_a_data_file_that_changed(killed: Path, file: Path) -> None:
    content = file.read_bytes()
    before = (killed / "outputs.jsonl").read_bytes()
    try:
        file.write_bytes(content.replace(b"What is 7?", b"What is 8?"))
        changed = sha256_of(file)
        error = refused(killed)
    finally:
        file.write_bytes(content)
    assert (error.code, error.exit_status) == ("U315", 2)
    assert error.where.endswith(": dataset.sha256")
    assert error.expected == f"dataset.sha256 {sha256_of(file)}"
    assert error.actual == f"dataset.sha256 {changed}"
    assert (killed / "outputs.jsonl").read_bytes() == before
    assert manifest(killed)["state"] == "unfinished"


@pytest.mark.slow
def test_a_model_that_changed(tiny: Path, tmp_path: Path, runs: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 300)
    model = Path(shutil.copytree(tiny, tmp_path / "model"))
    process = start("--dataset", file, "--model", model, "--max-new-tokens", TOKENS)
    wait_for(process, lambda: rows_in(runs) >= 5)
    end(process, signal.SIGKILL)
    (folder,) = runs.iterdir()
    before = lock.read(model).root
    config = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [2, 3]}))
    assert refused(folder).code == "M202"  # damaged, until somebody says that it was meant
    (model / lock.NAME).unlink()
    after = lock.verify(model).root
    error = refused(folder)
    assert error.code == "U315"
    assert error.where.endswith(": model.lock_sha256")
    assert (error.expected, error.actual) == (f"model.lock_sha256 {before}", f"model.lock_sha256 {after}")


def test_rules_that_changed(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = settings.run().model_copy(update={"return_full_text": True})
    monkeypatch.setattr(settings, "run", lambda: rules)
    error = refused(killed)
    assert (error.code, error.expected, error.actual) == (
        "U315",
        "arguments.return_full_text False",
        "arguments.return_full_text True",
    )


@pytest.mark.parametrize(("key", "other"), [("dtype", "bfloat16"), ("device", "cuda:7")])
def test_another_machine(killed: Path, key: str, other: str) -> None:
    told = manifest(killed)
    (killed / "manifest.json").write_text(json.dumps({**told, key: other}))
    error = refused(killed)
    assert (error.code, error.expected, error.actual) == ("U315", f"{key} {other}", f"{key} {told[key]}")


@pytest.mark.parametrize(
    ("options", "named"),
    [({"max_new_tokens": 5}, ["max_new_tokens"]), ({"engine": "reference", "limit": 3}, ["engine", "limit"])],
)
def test_other_options(killed: Path, options: dict[str, Any], named: list[str]) -> None:
    error = refused(killed, **options)
    was = {"max_new_tokens": TOKENS, "engine": "ours", "limit": None}
    assert (error.code, error.exit_status) == ("U314", 2)
    assert error.where.endswith(", ".join(named))
    assert error.expected == ", ".join(f"{name} {was[name] or 'none'}" for name in named)
    assert error.fix.startswith(f"leave out --{named[0].replace('_', '-')}")
    assert error.actual == ", ".join(f"{name} {options[name]}" for name in named)


def test_the_same_options_again_do_no_harm(killed: Path) -> None:
    assert resume.find(killed.name, Request(max_new_tokens=TOKENS)).path == killed


def test_a_run_that_is_finished(killed: Path) -> None:
    go_on(killed)
    assert refused(killed).code == "U312"


@pytest.mark.slow
def test_a_run_that_is_still_going_on(tiny: Path, file: Path, runs: Path, whole: list[dict[str, Any]]) -> None:
    process = start("--dataset", file, "--model", tiny, "--max-new-tokens", TOKENS)
    wait_for(process, lambda: rows_in(runs) >= 5)
    (folder,) = runs.iterdir()
    error = refused(folder)
    assert (error.code, error.exit_status) == ("U321", 2)
    said = end_of(process)
    assert process.returncode == 0, said
    assert read_outputs(folder) == whole
    assert "resumed" not in manifest(folder)


def test_no_such_run(killed: Path, runs: Path) -> None:
    error = refused(killed.name[:-1])
    assert error.code == "U311"
    assert f"did you mean {killed.name}?" in error.what
    shutil.rmtree(runs)
    assert refused("any").code == "U311"


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"schema": "other/1"}'])
def test_a_folder_without_a_runs_manifest(killed: Path, content: str | None) -> None:
    (killed / "manifest.json").unlink()
    if content is not None:
        (killed / "manifest.json").write_text(content)
    error = refused(killed)
    assert isinstance(error, UsageError)
    assert error.code == "U313"
    assert "manifest.json" in error.where


def test_a_refusal_on_the_command_line(invoke: Invoke, killed: Path) -> None:
    done = invoke("run", "--resume", killed.name, "--limit", "7")
    assert done.returncode == 2
    assert "U314" in done.stderr
    assert re_do(done.stderr)
    assert "Traceback" not in done.stderr


def re_do(text: str) -> bool:
    return any(line.startswith("  do:       ") for line in text.splitlines())


def test_where_ties_may_fall_otherwise_the_log_says_so(tmp_path: Path) -> None:
    def warnings(dtype: str, invariant: dict[str, Any]) -> str:
        began = {"dtype": dtype, "engine": {"invariant": invariant}}
        said = io.StringIO()
        sink = logger.add(said)
        try:
            resume.warn_of_ties(resume.Unfinished(tmp_path, Request(), began), dict(began))
        finally:
            logger.remove(sink)
        return said.getvalue()

    not_tried = {"holds": False, "why": "not tried on a CPU"}
    said = warnings("bfloat16", not_tried)
    assert "may differ at near ties" in said
    assert "not tried on a CPU" in said
    assert not warnings("float32", not_tried)
    assert not warnings("bfloat16", {"holds": True, "why": "tried", "bits": "1" * 64})
