"""Data through a named pipe: opened when the clock starts and not before, read once; a second reading is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import invoke_command
from support.rows import write_rows

from pipeline import paths, text_generation
from pipeline.contest.archive import unpack
from pipeline.contest.similarity import source_tree
from pipeline.dataset import records, stream
from pipeline.device.host import Host
from pipeline.errors import UsageError
from pipeline.record.outputs import read_outputs
from pipeline.runs import reproduce, resume, timed
from pipeline.runs.request import Request

pytestmark = pytest.mark.usefixtures("one_thread", "runs", "short_warm_up")

ROWS = 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    return path


class Writer(threading.Thread):
    """Hands a file over through a pipe; `opened_s` is when somebody opened the pipe to read."""

    def __init__(self, pipe: Path, content: bytes, after_s: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.pipe, self.content, self.after_s, self.opened_s = pipe, content, after_s, 0.0
        self.start()

    def run(self) -> None:
        time.sleep(self.after_s)
        with open(self.pipe, "wb", buffering=0) as end:
            self.opened_s = time.perf_counter()
            end.write(self.content)


@pytest.fixture(autouse=True)
def let_go(tmp_path: Path) -> Iterator[None]:
    """Whoever still waits for a pipe's other end after a test gets one."""
    yield
    for path in tmp_path.rglob("*"):
        if path.is_fifo():
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def run(tiny: Path, data: Path, say: Any = lambda line: None, **request: Any) -> timed.Summary:
    return timed.run(Request(dataset=str(data), model=str(tiny), max_new_tokens=8, **request), say)


def manifest(done: timed.Summary) -> dict[str, Any]:
    return json.loads((done.folder / "manifest.json").read_text(encoding="utf-8"))


def test_a_pipe_is_answered_as_a_file_is(tiny: Path, file: Path, pipe: Path) -> None:
    writer = Writer(pipe, file.read_bytes())
    piped, plain = run(tiny, pipe), run(tiny, file)
    writer.join(10)
    assert read_outputs(piped.folder) == read_outputs(plain.folder)
    told, usual = manifest(piped)["dataset"], manifest(plain)["dataset"]
    assert told == {**usual, "name": str(pipe), "pipe": True}


def test_it_is_opened_when_all_is_loaded_and_warm(
    tiny: Path, file: Path, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_s, own = [], timed._prepare

    def prepare(*arguments: Any) -> Any:
        made = own(*arguments)
        time.sleep(0.2)
        warm_s.append(time.perf_counter())
        return made

    monkeypatch.setattr(timed, "_prepare", prepare)
    writer = Writer(pipe, file.read_bytes())
    done = run(tiny, pipe)
    writer.join(10)
    assert writer.opened_s >= warm_s[0]
    assert done.elapsed_s is not None


def test_the_wait_for_a_writer_is_said_and_not_timed(
    tiny: Path, file: Path, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PATIENCE_S", 0.05)
    said: list[str] = []
    told = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if "waiting for somebody to write" in line:
            told.set()

    def write_late() -> None:
        assert told.wait(60)
        time.sleep(1.5)
        Writer(pipe, file.read_bytes()).join(10)

    late = threading.Thread(target=write_late, daemon=True)
    late.start()
    done = run(tiny, pipe, say)
    late.join(10)
    assert [line for line in said if "pipe.jsonl" in line]
    assert done.elapsed_s is not None
    assert done.elapsed_s < 1.5


def test_with_a_writer_there_nothing_is_said(tiny: Path, file: Path, pipe: Path) -> None:
    said: list[str] = []
    Writer(pipe, file.read_bytes())
    run(tiny, pipe, said.append)
    assert not [line for line in said if "waiting" in line]


def test_what_reads_twice_is_refused_at_once_by_name(tiny: Path, file: Path, pipe: Path, runs: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run(tiny, pipe, repeat=2)
    assert caught.value.code == "U304"
    assert "pipe.jsonl" in str(caught.value)
    assert not runs.exists()
    Writer(pipe, file.read_bytes())
    done = run(tiny, pipe)
    pipe.unlink()  # the record tells it as well
    with pytest.raises(UsageError) as caught:
        reproduce.reproduce(str(done.folder), Host(Path("/")))
    assert caught.value.code == "U502"
    path = done.folder / "manifest.json"
    path.write_text(path.read_text().replace('"state": "finished"', '"state": "failed"'))
    with pytest.raises(UsageError) as caught:
        resume.find(str(done.folder), Request())
    assert caught.value.code == "U316"


def test_a_run_that_was_cut_off_before_the_pipe_had_data_is_refused_too(tiny: Path, pipe: Path, runs: Path) -> None:
    Writer(pipe, b"")
    with pytest.raises(Exception, match="F101"):
        run(tiny, pipe)
    (folder,) = runs.iterdir()
    with pytest.raises(UsageError) as caught:
        resume.find(str(folder), Request())
    assert caught.value.code == "U316"


@pytest.mark.slow
def test_the_command_takes_a_substituted_process(tiny: Path, file: Path, runs: Path) -> None:
    line = " ".join(map(str, invoke_command("run", "--model", tiny, "--max-new-tokens", 4)))
    done = subprocess.run(
        ["bash", "-c", f"{line} --dataset <(cat {file})"],
        cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode in {0, 8}, done.stderr
    assert f"for {ROWS} prompts" in done.stdout


@pytest.mark.slow
def test_the_organisers_script_reads_a_pipe(tiny: Path, file: Path, pipe: Path) -> None:
    Writer(pipe, file.read_bytes())
    done = subprocess.run(
        [sys.executable, "test_script.py", str(tiny), str(pipe)],
        cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"/{ROWS}" in done.stdout


def test_a_data_set_of_the_script_is_read_once(file: Path, pipe: Path) -> None:
    Writer(pipe, file.read_bytes())
    assert text_generation.load_dataset(pipe) == text_generation.load_dataset(file)


READERS: dict[str, Callable[[Path], object]] = {
    "U117": records.read,
    "U601": unpack.check_is_meant,
    "U721": source_tree.read,
}


@pytest.mark.parametrize("code", READERS)
def test_what_reads_a_file_more_than_once_does_not_wait_for_a_pipe(tmp_path: Path, code: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError) as caught:
        READERS[code](tmp_path / "pipe")
    assert caught.value.code == code
    assert "pipe" in str(caught.value.actual)


@pytest.mark.parametrize("command", [("plan", "--dataset"), ("stress", "--set")])
def test_neither_does_a_command(tmp_path: Path, command: tuple[str, str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = subprocess.run(
        invoke_command(*command, tmp_path / "pipe"),
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr.split()[0]) == (2, "U117")
