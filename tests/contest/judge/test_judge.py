"""A folder of submissions judged whole: in a docker that does as it is told, by jobs that run where the test does."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from pathlib import Path

import pytest
from support import fake_board, judged
from support.audited import Ground
from support.judged import Folder

from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.judge import board_ready, commanded, entries, farm, judge, plan, references, work
from pipeline.contest.judge import status as showing
from pipeline.contest.ranking import leaderboard, page
from pipeline.contest.verify.again import checks as rerun_checks
from pipeline.errors import EnvironmentProblem, IntegrityError, UsageError
from pipeline.queues import attempts, boards
from pipeline.queues.queue import Job, Listed, Node, QueueSilent

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread")]


class Here:
    """A queue whose jobs run at once, in this process, on two boards in turn."""

    def __init__(self, boards: int = 2, dies: int = 0) -> None:
        self.boards = [f"b{number}" for number in range(1, boards + 1)]
        self.taken: list[Job] = []
        self.dies, self.silent = dies, 0

    def submit(self, job: Job) -> None:
        self.taken.append(job)
        attempt = Path(job.command[-1])
        fit = [job.node] if job.node else [each for each in self.boards if each not in job.avoid] or self.boards
        os.environ["SLURMD_NODENAME"] = fit[len(self.taken) % len(fit)]
        if self.dies > 0:  # the board, with the job that it has begun
            self.dies -= 1
            attempts.claim(attempt, os.environ["SLURMD_NODENAME"])
            return
        work.main(attempt)

    def jobs(self) -> list[Listed]:
        if self.silent > 0:
            self.silent -= 1
            raise QueueSilent("restarting")
        return []

    def cancel(self, name: str) -> None:
        raise AssertionError(name)

    def nodes(self) -> list[Node]:
        return [Node(each, True) for each in self.boards]


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    made = Here()
    monkeypatch.setattr(judge, "_queue", lambda asked, place: made)
    monkeypatch.setenv("SLURMD_NODENAME", "b1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    board = fake_board.make(tmp_path / "board", mode="MAXN")
    board.lock_clocks()
    monkeypatch.setenv("PIPELINE_HOST", str(board.root))
    monkeypatch.setattr(references, "DRIFT", 30.0)
    monkeypatch.setattr(judge, "WINDOW", 0.5)  # one open job on two boards: they run at once
    # A busy machine is late by more than a tiny run takes.
    monkeypatch.setattr(rerun_checks, "CLOCK_S", 3.0)
    monkeypatch.setattr(rerun_checks, "DIFFERENT", 30.0)
    return made


def on(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("PATH", f"{folder.docker}:{os.environ['PATH']}")
    return folder


def asked(folder: Folder, ground: Ground, repeat: int = 2, yardstick: Path | None = None) -> judge.Request:
    return judge.Request(folder.path, ground.data, repeat, "local", None, yardstick, "", 0.0, 0.0)


@pytest.mark.slow
def test_good_and_bad_ones_on_two_boards(
    queue: Here, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LIMIT_FACTOR", 0.0)
    monkeypatch.setattr(plan, "LIMIT_MORE_S", 4.0)
    folder = on(judged.build(ground, tmp_path, "good", "crash", "hang", "answers", "replay"), monkeypatch)
    (folder.path / "broken.tar").write_bytes(b"no archive")
    (tmp_path / "own").mkdir()
    own = judged.build(ground, tmp_path / "own", "better")
    queue.dies, queue.silent = 1, 1
    request, said = asked(folder, ground, yardstick=own.path / own.files["better"]), []
    verdicts = judge.judge(request, ground.light_organiser, said.append)
    made, place = plan.read(folder.path / "judge"), folder.path / "judge"
    results = {key: attempts.result(place / "runs" / key) for key in made.order}
    kinds = {behaviour: sorted(results[key]["kind"] for key in made.order if made.entry(key).file == name)
             for behaviour, name in folder.files.items()}  # fmt: skip
    # No run of a hang is begun after one has timed out; on a slow machine both may have begun before, one a board.
    timeouts = kinds["hang"].count("timeout")
    assert timeouts >= 1
    assert kinds == {
        "good": ["ok", "ok"],
        "crash": ["did not start", "did not start"],
        "hang": ["not run"] * (2 - timeouts) + ["timeout"] * timeouts,
        "answers": ["ok", "ok"],
        "replay": ["wrong answers", "wrong answers"],
    }
    states = {
        behaviour: (folder.verdict(behaviour)["verdict"], folder.verdict(behaviour)["class"]) for behaviour in kinds
    }
    assert states["good"] == ("VALID", None), folder.verdict("good")["reasons"]
    assert {state for name, (state, _) in states.items() if name != "good"} == {"INVALID"}
    assert len(verdicts) == 5
    assert json.loads((folder.path / "broken.verdict/verdict.json").read_text())["verdict"] == "INVALID"
    # Each board has had its reference runs; a crash was tried twice, a hang was not.
    assert Counter(folder.called)["hang"] == timeouts
    assert Counter(folder.called)["crash"] >= 3
    assert {path.name for path in (place / "runs").glob("ref-*")} >= {"ref-b1-1", "ref-b2-1", "ref-b1-last"}
    told = folder.verdict("good")["rerun"]["judged"]
    assert told["reference_runs"] >= 3
    assert [each["class"] for each in told["runs"]] == ["ok", "ok"]
    ranked = leaderboard.make(folder.path)
    (table,) = ranked.tables
    assert [entry.ranked.team for entry in table.entries] == ["Team good"]
    assert table.entries[0].ranked.time_s == statistics.median(told["levelled_s"])
    assert f"{told['spread']:.1%}" in page.text(ranked)
    assert {each["device"] for each in told["runs"]} == {table.entries[0].ranked.verdict.taken_on}
    assert table.devices == ["Jetson AGX Orin 32GB"]
    # Started again it finds all settled, and runs nothing.
    before = len(folder.called)
    judge.judge(request, ground.light_organiser, said.append)
    assert len(folder.called) == before
    shown = showing.look(made, place)
    assert shown.left_s == 0
    assert shown.counted["ok"] == 4
    assert "good" in showing.text(shown)


def test_what_cannot_be_is_refused_before_anything_runs(
    queue: Here, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = on(judged.build(ground, tmp_path, "good"), monkeypatch)
    request, organiser = asked(folder, ground, repeat=1), ground.light_organiser

    def refused(kind: type[Exception], **other: object) -> str:
        changed = judge.Request(**{**vars(request), **other})
        with pytest.raises(kind) as caught:
            judge.judge(changed, organiser, lambda _: None)
        return caught.value.code

    assert refused(UsageError, folder=tmp_path / "nowhere") == "U735"
    assert refused(UsageError) == "U739"  # two boards, no yardstick
    broken = tmp_path / "own.tar"
    broken.write_bytes(b"no archive")
    assert refused(UsageError, yardstick=broken) == "U741"
    queue.boards = ["b1"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(EnvironmentProblem) == "E611"
    monkeypatch.undo()
    assert not (folder.path / "judge/plan.json").exists()
    assert folder.called == []
    made = plan.make(ground.data, "1" * 64, ground.model, 1, (), None, entries.archives(folder.path))
    plan.write(made, folder.path / "judge")
    assert plan.write(made, folder.path / "judge") == made
    monkeypatch.setattr(judge, "_queue", lambda asked, place: queue)
    assert refused(IntegrityError) == "M731"
    path = folder.path / "judge/plan.json"
    path.write_text(path.read_text().replace("1" * 64, plan_sha256(ground.data)))
    assert refused(UsageError, repeat=2) == "U734"
    (folder.path / "new.tar").touch()
    assert refused(UsageError) == "U734"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    assert refused(UsageError) == "U733"
    with pytest.raises(UsageError) as caught:
        commanded.status(tmp_path)
    assert caught.value.code == "U743"
    for code, words in (("U736", {"repeat": 0}), ("U737", {"on": "cloud"})):
        given = {"folder": tmp_path, "data": ground.data, "repeat": 3, "on": "local", "partition": "",
                 "yardstick": None, "model": ""}  # fmt: skip
        with pytest.raises(UsageError) as caught:
            judge.request(**{**given, **words})
        assert caught.value.code == code
    with pytest.raises(UsageError) as caught:
        commanded.data("")
    assert caught.value.code == "U742"
    with pytest.raises(UsageError) as caught:
        judge.cancel(tmp_path, "local", None)
    assert caught.value.code == "U740"


def plan_sha256(path: Path) -> str:
    return Organiser(path).data("").sha256


def test_a_hot_board_is_waited_for_and_then_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = fake_board.make(tmp_path, mode="MAXN").host
    monkeypatch.setattr(board_ready, "COOL_C", 99.0)
    assert board_ready.wait(host, 0.05, 0.01).why == ""
    monkeypatch.setattr(board_ready, "COOL_C", 10.0)
    assert "not below 10 °C within 0.05 s" in board_ready.wait(host, 0.05, 0.01).why


def test_a_container_that_could_not_be_made_is_not_the_teams_fault(tmp_path: Path) -> None:
    assert work.was_not_made(125, tmp_path)
    (tmp_path / "container-id").touch()
    assert work.was_not_made(125, tmp_path)
    assert not work.was_not_made(1, tmp_path)
    (tmp_path / "container-id").write_text("ab" * 32)
    assert not work.was_not_made(125, tmp_path)


class Probed(Here):
    """Whose boards answer a probe as a test says."""

    def __init__(self, **answer: object) -> None:
        super().__init__(boards=1)
        self.answer = answer

    def submit(self, job: Job) -> None:
        folder = Path(job.command[-1])
        os.environ["SLURMD_NODENAME"] = "b1"
        if self.answer.get("at_s") == 0 or "engine" in self.answer:
            farm.main(folder)
            path = folder / "b1.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | self.answer))
        elif not self.answer:
            farm.main(folder)


@pytest.mark.parametrize(
    ("queue_of", "code"),
    [
        (lambda: Probed(engine=""), None),
        (lambda: Probed(engine="E611 no docker"), "E637"),
        (lambda: Probed(engine="", at_s=0), "E636"),
        (lambda: Probed(engine="", linked=False), "E635"),
        (lambda: Probed(silent=True), "E634"),
        (lambda: Here(boards=0), "E633"),
    ],
)
def test_a_farm_is_looked_at_first(
    queue_of: object, code: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "PATIENCE_S", 0.1)
    monkeypatch.setattr(boards, "LOOK_S", 0.01)
    monkeypatch.setenv("SLURMD_NODENAME", "b1")
    if code is None:
        assert farm.check(queue_of(), tmp_path, ("python",), lambda _: None) == ["b1"]
        return
    with pytest.raises(EnvironmentProblem) as caught:
        farm.check(queue_of(), tmp_path, ("python",), lambda _: None)
    assert caught.value.code == code


def test_an_archive_that_is_not_run_has_its_line_and_its_verdict_all_the_same(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "broken.tar").write_bytes(b"no archive")
    organiser, said = Organiser(ground.data), []
    (name, sha256), *_ = entries.archives(tmp_path).items()
    size = plan.Size("0" * 64, 1, 1)
    assert entries.check(tmp_path / name, sha256, tmp_path / plan.FOLDER, organiser, size, said.append) is None
    (told,) = commanded.as_json([], tmp_path)
    assert (told["verdict"], said) == ("INVALID", ["broken.tar: INVALID: unpack"])
    assert "INVALID" in commanded.text([told])
    assert "unpack: " in commanded.text([told])
