"""The clock's honesty: reading, tokenising, running and decoding are timed; all of it, and nothing of it before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest

from pipeline import paths, reference, text_generation
from pipeline.errors import InvalidRun
from pipeline.model.attest import Attestation
from pipeline.runs import timed as running
from pipeline.runs.request import Request

pytestmark = pytest.mark.usefixtures("one_thread", "runs", "short_warm_up")

TEXTS = ["Why?", "Who?", "What?"]


def output(text: str) -> list[dict[str, Any]]:
    return [{"generated_text": text}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write(path, TEXTS)
    return path


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"message": [{"role": "user", "content": text}]}) + "\n" for text in texts))


class Echo:
    """A pipe that says what it was asked, and notes what happens to it; `reply` may be put in its place."""

    def __init__(self, events: list[str]) -> None:
        self.events, self.asked = events, []
        self.reply: Callable[[list[Any]], Any] = lambda chats: [output(chat[-1]["content"]) for chat in chats]

    def answer(self, chats: Any, **arguments: Any) -> reference.Answers:
        self.asked.append(chats)
        if isinstance(chats[0], dict):
            self.events.append("warm-up chat")
            return reference.Answers([output("warm")], single=True)
        self.events.append("answer")
        return reference.Answers(self.reply(chats), single=False)

    def warm_up(self, *_: object) -> None:
        self.events.append("warm-up")

    def describe(self) -> dict[str, Any]:
        return {}

    def resident(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def echo(events: list[str], monkeypatch: pytest.MonkeyPatch) -> Echo:
    """A run's parts, each noting when it is called."""
    pipe = Echo(events)

    def noting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: (events.append(name), call(*args, **kwargs))[1]

    monkeypatch.setattr(text_generation, "load", noting("load", lambda *_, **__: pipe))
    monkeypatch.setattr(reference, "load", noting("load", lambda *_, **__: pipe))
    monkeypatch.setattr(running, "synchronize", noting("device idle", lambda device: None))
    monkeypatch.setattr(running.records, "read_bytes", noting("read", running.records.read_bytes))
    monkeypatch.setattr(running, "time", SimpleNamespace(perf_counter=noting("clock", time.perf_counter)))
    monkeypatch.setattr(running, "verdicts", noting("score", running.verdicts))
    monkeypatch.setattr(running, "attest", noting("attest", lambda *_: Attestation("", 0, 0, False, {}, 0.0)))
    return pipe


def run(tiny: Path, file: Path, **request: Any) -> running.Summary:
    return running.run(Request(dataset=str(file), model=str(tiny), **request), lambda line: None)


BEFORE = ["read", "clock", "clock", "load", "device idle", "clock", "warm-up", "warm-up chat", "device idle", "clock"]
"""The early look at the file comes first; nothing of it is kept, as each section reads anew (test_first_contact)."""
TIMED = ["device idle", "clock", "read", "clock", "answer", "device idle", "clock"]
"""The look in between says how long reading took."""
AFTER = ["clock", "attest", "score"]


@pytest.mark.parametrize("engine", ["ours", "reference"])
def test_order_of_a_run(echo: Echo, events: list[str], tiny: Path, file: Path, engine: str) -> None:
    run(tiny, file, engine=engine)
    assert events == [*BEFORE, *TIMED, *AFTER]


def test_each_repeat_reads_the_file_again_under_the_clock(
    echo: Echo, events: list[str], tiny: Path, file: Path
) -> None:
    summary = run(tiny, file, repeat=3)
    assert events == [*BEFORE, *TIMED, *TIMED, *TIMED, *AFTER]
    assert len(summary.all_elapsed_s) == 3
    assert summary.elapsed_s == sorted(summary.all_elapsed_s)[1]


def test_the_warm_up_is_the_same_whatever_the_data(echo: Echo, tiny: Path, file: Path) -> None:
    asked = echo.asked
    run(tiny, file)
    write(file, ["Something else?"])
    run(tiny, file)
    assert asked[0] == asked[2]
    assert asked[1] != asked[3]


LAZY: dict[str, Callable[[list[Any]], Any]] = {
    "a generator": lambda chats: (output("x") for _ in chats),
    "an iterator": lambda chats: iter([output("x") for _ in chats]),
    "a map": lambda chats: map(output, TEXTS),
    "nothing": lambda chats: None,
    "an empty list": lambda chats: [],
    "a row too few": lambda chats: [output("x") for _ in chats[1:]],
    "a row too many": lambda chats: [output("x") for _ in [*chats, 0]],
    "rows that are iterators": lambda chats: [iter(output("x")) for _ in chats],
    "rows that are not there": lambda chats: [None] * len(chats),
    "rows without an output": lambda chats: [[] for _ in chats],
    "outputs without a text": lambda chats: [[{}] for _ in chats],
    "outputs that are no objects": lambda chats: [["x"] for _ in chats],
    "texts that are not text": lambda chats: [[{"generated_text": chat}] for chat in chats],
}


@pytest.mark.parametrize("answer", LAZY.values(), ids=LAZY.keys())
def test_a_result_that_is_not_all_there_is_refused(
    echo: Echo, tiny: Path, file: Path, runs: Path, answer: Callable[[list[Any]], Any]
) -> None:
    echo.reply = answer
    with pytest.raises(InvalidRun) as caught:
        run(tiny, file)
    assert (caught.value.code, caught.value.exit_status) == ("I101", 8)
    assert "I101" in json.loads(next(runs.glob("*/manifest.json")).read_text())["failed"]["reason"]


def test_repeats_that_differ_are_refused(echo: Echo, tiny: Path, file: Path) -> None:
    turns: Iterator[str] = iter(["x", "x", "y"])

    def answer(chats: list[Any]) -> list[Any]:
        last = next(turns)
        return [*[output("x") for _ in chats[1:]], output(last)]

    echo.reply = answer
    with pytest.raises(InvalidRun, match="repeat 3") as caught:
        run(tiny, file, repeat=3)
    assert (caught.value.code, caught.value.where) == ("I102", "rows 2")


@pytest.mark.parametrize("after", [["Why?", "Who?", "Where?"], TEXTS[:2], [*TEXTS, "Where?"]])
def test_a_file_that_changes_between_repeats_is_noticed(echo: Echo, tiny: Path, file: Path, after: list[str]) -> None:
    def answer(chats: list[Any]) -> list[Any]:
        write(file, after)
        return [output(chat[-1]["content"]) for chat in chats]

    echo.reply = answer
    with pytest.raises(InvalidRun) as caught:
        run(tiny, file, repeat=2)
    assert caught.value.code == "I102"


@pytest.mark.parametrize("what", ["template", "decode"])
@pytest.mark.parametrize("engine", ["ours", "reference"])
def test_tokenising_and_decoding_are_timed(
    tiny: Path, file: Path, monkeypatch: pytest.MonkeyPatch, engine: str, what: str
) -> None:
    module = text_generation if engine == "ours" else reference
    load = module.load

    def slow_load(*arguments: Any, **options: Any) -> Any:
        pipe = load(*arguments, **options)
        tokenizer = pipe.tokenizer if engine == "ours" else pipe.pipe.tokenizer
        owner, method = (jinja2.Template, "new_context") if what == "template" else (tokenizer, "decode")
        quick = getattr(owner, method)
        monkeypatch.setattr(owner, method, lambda *a, **k: (time.sleep(0.2), quick(*a, **k))[1])
        pipe.warm_up = lambda *_, **__: None
        return pipe

    monkeypatch.setattr(module, "load", slow_load)
    assert run(tiny, file, engine=engine, limit=1, max_new_tokens=1).elapsed_s >= 0.2


# A real run in a fresh process, with every opened file and every look at the clock written down by Python itself.
WATCHED = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from pipeline.runs import timed as run

model, file, engine = sys.argv[1:]
events = []

def opened(name, arguments):
    if name == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)) and os.fsdecode(arguments[0]) == file:
        events.append("open")

def looked():
    events.append("clock")
    return time.perf_counter()

sys.addaudithook(opened)
run.time = SimpleNamespace(perf_counter=looked)
run.run(run.Request(dataset=file, model=model, engine=engine, repeat=2, max_new_tokens=2), lambda line: None)
print("EVENTS", *events)
"""


@pytest.mark.parametrize("engine", ["ours", pytest.param("reference", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_file_is_opened_only_under_the_clock(tiny: Path, file: Path, engine: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tiny), str(file), engine],
        cwd=paths.ROOT,
        env={**os.environ, "PYTHONPATH": str(paths.ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    events = next(line for line in done.stdout.splitlines() if line.startswith("EVENTS")).split()[1:]
    before, read = ["open", *["clock"] * 4], ["clock", "open", "clock"]
    answers = ["clock"] * len(TEXTS)  # of the first section it is written down when each came
    assert events == [
        *before,
        *read,
        *answers,
        "clock",
        *read,
        "clock",
        *["clock"],
    ]  # the last: before weights are compared
