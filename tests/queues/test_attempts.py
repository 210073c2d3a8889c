"""One result a run: raced by processes, on folders that lie, on disks that are full."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import files, paths
from pipeline.errors import ResourceError, UsageError
from pipeline.queues import attempts, job, owner

RACERS = 20
RACE = """
import os, sys, time
from pathlib import Path
from pipeline.queues import attempts
run = Path(sys.argv[1])
for number in range(1, int(sys.argv[2]) + 1):
    if os.fork() == 0:
        attempt = attempts.begin(run, number)
        attempts.write_outcome(attempt, {"kind": "ok", "by": number})
        (run / f"ready-{number}").touch()
        while not (run / "go").exists():
            time.sleep(0.0005)
        claimed = attempts.claim(run / "attempt-1", str(number))
        settled = attempts.settle(run, attempt)
        (run / f"said-{number}").write_text(f"{settled} {claimed}")
        os._exit(0)
while len(list(run.glob("ready-*"))) < int(sys.argv[2]):
    time.sleep(0.01)
(run / "go").touch()
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""


def test_twenty_processes_race_for_one_link(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT)}
    fork = [sys.executable, "-S", "-c", RACE, str(tmp_path), str(RACERS)]
    subprocess.run(fork, env=environment, check=True, timeout=60)
    said = {number: (tmp_path / f"said-{number}").read_text().split() for number in range(1, RACERS + 1)}
    assert [settled for settled, _ in said.values()].count("True") == 1
    assert [claimed for _, claimed in said.values()].count("True") == 1
    winner = next(number for number, (settled, _) in said.items() if settled == "True")
    assert attempts.result(tmp_path)["by"] == winner
    assert (tmp_path / "result.json").stat().st_nlink == 2


def made(run: Path, number: int = 1, **outcome: Any) -> Path:
    folder = attempts.begin(run, number)
    assert folder is not None
    attempts.claim(folder, f"n{number}")
    if outcome:
        attempts.write_outcome(folder, outcome)
    return folder


def test_a_link_that_was_made_and_answers_an_error_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, link = made(tmp_path, kind="ok"), os.link

    def lies(source: Path, target: Path) -> None:
        link(source, target)
        raise OSError(errno.EIO, "the answer was lost")

    monkeypatch.setattr(attempts.os, "link", lies)
    assert attempts.settle(tmp_path, folder)
    monkeypatch.undo()
    assert not attempts.settle(tmp_path, made(tmp_path, 2, kind="ok"))


def test_an_attempt_is_begun_once(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert attempts.begin(tmp_path, 1) is None
    assert not attempts.claim(folder, "another")
    assert json.loads((folder / "started.json").read_text())["node"] == "n1"
    assert job.run(folder, lambda _: pytest.fail("a second time"), {}) == "begun before"


def test_a_settled_runs_job_does_nothing(tmp_path: Path) -> None:
    attempts.settle(tmp_path, made(tmp_path, kind="ok"))
    second = attempts.begin(tmp_path, 2)
    assert job.run(second, lambda _: pytest.fail("a settled run"), {}) == "settled before"
    assert not (second / "started.json").exists()


def test_our_own_mistakes_are_the_nodes_and_tried_again(tmp_path: Path) -> None:
    def fails(_: Path) -> dict[str, Any]:
        raise RuntimeError("no such thing")

    done = [job.run(attempts.begin(tmp_path, number), fails, {"node": 3}) for number in (1, 2, 3)]
    assert done == ["another attempt may do better"] * 2 + ["settled"]
    told = attempts.result(tmp_path)
    assert (told["kind"], told["attempt"]) == ("node", "attempt-3")
    assert "no such thing" in told["why"]


def test_an_outcome_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, write, tried = made(tmp_path), files.write_json, []

    def full(path: Path, value: object) -> None:
        tried.append(path)
        if len(tried) < 3:
            raise files.disk_full(path, "for the test")
        write(path, value)

    monkeypatch.setattr(attempts.files, "write_json", full)
    attempts.write_outcome(folder, {"kind": "ok"}, pause_s=0)
    assert (len(tried), attempts.read(folder / "outcome.json")) == (3, {"kind": "ok"})
    tried.clear()
    with pytest.raises(ResourceError):
        attempts.write_outcome(folder, {"kind": "ok"}, patience_s=0)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "ok"', "\udcff", "0"])
def test_half_a_file_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert attempts.read(tmp_path / "outcome.json") is None


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with owner.only_one(tmp_path), pytest.raises(UsageError) as caught, owner.only_one(tmp_path):
        pass
    assert caught.value.code == "U732"
    assert f"process {os.getpid()}" in caught.value.actual
    with owner.only_one(tmp_path):
        pass


def test_a_driver_on_another_machine_counts_while_it_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / "owner.json"
    path.write_text(json.dumps({"host": "elsewhere", "boot_id": "another", "process": 1}))
    with pytest.raises(UsageError), owner.only_one(tmp_path):
        pass
    os.utime(path, (0, 0))
    with owner.only_one(tmp_path):
        pass
