"""Submissions run again: in a docker that writes down how it was called and hands out a prepared run, and for real."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import fake_board
from support.audited import DIGEST, Ground, in_state
from support.drafts_of_submissions import Draft
from support.fake_board import FakeBoard

from pipeline.check import FAIL, HUMAN, OK, UNKNOWN
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.rerun.measure import Measured
from pipeline.contest.verify import rerun, verify
from pipeline.contest.verify.again import checks as rerun_checks
from pipeline.contest.verify.again import process as rerun_process
from pipeline.contest.verify.rerun import Request
from pipeline.contest.verify.verify import CANNOT_TELL, INVALID, VALID, Verdict
from pipeline.device import verdict as board_verdict
from pipeline.device.host import Host
from pipeline.errors import EnvironmentProblem, UsageError
from pipeline.files import sha256_of
from pipeline.prepare import container

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread")]

DOCKER = f"""#!{sys.executable}
import json, pathlib, shutil, sys, time
here, said = pathlib.Path(__file__).parent, sys.argv[1:]
with open(here / "called", "a") as file:
    file.write(json.dumps(said) + "\\n")
told = json.loads((here / "docker.json").read_text())
if said[0] == "info":
    print(json.dumps({{name: {{}} for name in told["runtimes"]}}))
    sys.exit(told["info"])
if said[:2] == ["image", "inspect"]:
    print(told["id"], json.dumps(told["digests"]), json.dumps(told["volumes"]))
    sys.exit(not told["id"])
if said[0] == "run":
    time.sleep(told["sleep_s"])
    runs = next(each for each in said if each.endswith(":/runs")).split(":")[0]
    handed = next(each for each in said if each.endswith(":/data:ro")).split(":")[0]
    data = pathlib.Path(handed) / pathlib.Path(said[said.index("--dataset") + 1]).name
    print("said to stdout")
    print("said to \\x1b[31mstderr", file=sys.stderr)
    data.read_bytes()
    time.sleep(told["took_s"])
    if (here / "result").is_dir():
        shutil.copytree(here / "result", runs + "/20241006T120000-x")
    sys.exit(told["status"])
"""
TOLD = {
    "info": 0,
    "id": f"sha256:{'1' * 64}",
    "digests": [f"blue/phi3@{DIGEST}"],
    "runtimes": ["runc", "nvidia"],
    "status": 0,
    "sleep_s": 0,
    "took_s": 0,
    "volumes": {"/models": {}, "/scratch": {}},
}


class Docker:
    """One whose answers a test sets, first on the PATH."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder = folder
        shutil.copytree(run, folder / "result")
        self.claimed_s: float = json.loads((run / "manifest.json").read_text())["elapsed_s"]
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        self.tells()

    board: FakeBoard

    def tells(self, **told: Any) -> None:
        (self.folder / "docker.json").write_text(json.dumps({**TOLD, "took_s": self.claimed_s, **told}))

    def edit_outputs(self, old: str, new: str) -> None:
        path = self.folder / "result" / "outputs.jsonl"
        path.write_text(path.read_text().replace(old, new, 1))

    @property
    def called(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "called").read_text().splitlines()]

    def manifest(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Of what it hands out."""
        path = self.folder / "result" / "manifest.json"
        told = json.loads(path.read_text())
        change(told)
        path.write_text(json.dumps(told))


@pytest.fixture
def docker(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker(tmp_path / "docker", ground.run)
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    board = fake_board.make(tmp_path / "board", mode="MAXN")
    board.lock_clocks()
    monkeypatch.setenv("PIPELINE_HOST", str(board.root))
    made.board = board
    made.manifest(lambda told: told["code"].update(commit=ground.light_organiser_commit))
    # A busy machine is late by more than a tiny run takes. The real bounds: test_the_bounds_of_a_time.
    monkeypatch.setattr(rerun_checks, "CLOCK_S", 3.0)
    monkeypatch.setattr(rerun_checks, "DIFFERENT", 30.0)
    return made


def again(ground: Ground, folder: Path, times: int = 1, tar: Path | None = None) -> Verdict:
    tar = tar or ground.light
    verdict = verify.verify(tar, ground.light_organiser, Request(times, here=False), folder / "verdict")
    assert verdict.trouble == ""
    return verdict


def test_an_image_is_run_again_behind_walls(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    verdict = again(ground, tmp_path, times=3)
    assert (verdict.state, verdict.reasons) == (VALID, [])
    runs = [call for call in docker.called if call[0] == "run"]
    assert len(runs) == 3
    told = container.text(["docker", *runs[0]])
    for wall in ("--network none", "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--rm"):
        assert f" {wall} " in told
    assert " --runtime nvidia " in told
    assert " --pids-limit 1024 --ulimit fsize=1073741824:1073741824 --ulimit nofile=1024:1024 " in told
    assert " --memory " in told
    assert " --tmpfs /models:rw,size=64m --tmpfs /scratch:rw,size=64m " in told
    assert f" -v {tmp_path}/verdict/rerun/1/data:/data:ro " in told
    assert f" -v {ground.model}:/models/phi3-medium:ro " in told
    assert "--privileged" not in told
    # The image by its own id, since a name may mean another one by then.
    assert runs[0][runs[0].index(TOLD["id"]) + 1 :][:5] == [
        "run",
        "--dataset",
        "/data/rows.jsonl",
        "--model",
        "/models/phi3-medium",
    ]
    written = [each for each in told.split() if each.startswith("/") and ":/" in each and not each.endswith(":ro")]
    assert [each.rpartition(":")[2] for each in written] == ["/runs"]
    assert len({call[call.index("--name") + 1] for call in runs}) == 3


def test_what_came_of_it_is_in_the_verdict(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    verdict = again(ground, tmp_path, times=2)
    told = json.loads((tmp_path / "verdict" / "verdict.json").read_text())["rerun"]
    claimed_s = verdict.manifest.elapsed_s
    assert (told["how"], told["times"], told["differing"]) == ("container", 2, [])
    assert (len(told["elapsed_s"]), told["claimed_s"], told["clock"]) == (2, claimed_s, "the organiser's")
    assert all(claimed_s <= elapsed_s for elapsed_s in told["elapsed_s"])
    assert told["ratio"] == told["median_s"] / claimed_s
    assert told["runs"][0]["own_s"] == claimed_s
    assert told["runs"][0]["board"]["state"] in {"VALID", "VALID with notes"}
    assert told["runs"][0]["stdout_tail"] == "said to stdout\n"
    assert told["runs"][0]["stderr_tail"] == "said to ·[31mstderr\n"
    page = (tmp_path / "verdict" / "verdict.html").read_text()
    assert "Run again" in page
    assert "said to stdout" in page


LIES: dict[str, tuple[Callable[[Docker], object], str, set[str]]] = {
    "another image": (lambda docker: docker.tells(digests=["blue/phi3@sha256:" + "cd" * 32]), FAIL, {"rerun-image"}),
    "an image that is not here": (lambda docker: docker.tells(id=""), UNKNOWN, {"rerun-image", "rerun"}),
    "it fails": (lambda docker: docker.tells(status=1), FAIL, {"rerun"}),
    "it writes nothing": (lambda docker: shutil.rmtree(docker.folder / "result"), FAIL, {"rerun"}),
    "it writes half a run": (lambda docker: (docker.folder / "result/outputs.jsonl").write_text("{"), FAIL, {"rerun"}),
    "it answers other data": (
        lambda docker: docker.manifest(lambda told: told["dataset"].update(sha256="0" * 64)),
        FAIL,
        {"rerun", "rerun-record"},
    ),
    "it runs another model": (
        lambda docker: docker.manifest(lambda told: told["model"].update(lock_sha256="0" * 64)),
        FAIL,
        {"rerun", "rerun-record"},
    ),
    "other answers": (
        lambda docker: (docker.folder / "result/outputs.jsonl").write_text(
            (docker.folder / "result/outputs.jsonl")
            .read_text()
            .replace('"generated_text": "', '"generated_text": "x', 1)
        ),
        FAIL,
        {"rerun-outputs", "rerun-record"},
    ),
    "a time that it does not reach": (
        lambda docker: docker.tells(took_s=31 * docker.claimed_s + 5),
        FAIL,
        {"rerun-time", "rerun-clock"},
    ),
    "a time of its own that it did not take": (
        lambda docker: docker.manifest(lambda told: told.update(elapsed_s=told["elapsed_s"] + 30)),
        FAIL,
        {"rerun-clock", "rerun-record"},
    ),
    "another commit": (
        lambda docker: docker.manifest(lambda told: told["code"].update(commit="0" * 40)),
        FAIL,
        {"rerun-record"},
    ),
    "no telemetry": (lambda docker: (docker.folder / "result/telemetry.csv").unlink(), FAIL, {"rerun-record"}),
    "a board that is held back": (lambda docker: docker.board.boot_into("MODE_30W"), UNKNOWN, {"rerun-time"}),
    "another device": (lambda docker: docker.board.remove("proc/device-tree"), HUMAN, {"rerun-time"}),
}


@pytest.mark.parametrize("case", LIES)
def test_running_it_again_shows_the_lie(case: str, docker: Docker, ground: Ground, tmp_path: Path) -> None:
    lie, state, ids = LIES[case]
    lie(docker)
    verdict = again(ground, tmp_path)
    found = {name for name in in_state(verdict, state) if name.startswith("rerun")}
    assert found == ids, verdict.reasons
    assert verdict.state == {FAIL: INVALID, UNKNOWN: CANNOT_TELL, HUMAN: VALID}[state]


@pytest.mark.parametrize(
    ("times", "state"),
    [
        ([1.0, 1.01, 1.019], OK),
        ([1.03, 1.03, 1.03], FAIL),
        ([1.0, 1.05, 1.1], UNKNOWN),
        ([0.5, 0.5, 0.5], OK),
    ],
)
def test_the_bounds_of_a_time(times: list[float], state: str, docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerun_checks, "DIFFERENT", 0.02)
    monkeypatch.setattr(rerun_checks, "CLOCK_S", 0.05)
    board = board_verdict.state(docker.board.host)
    told = SimpleNamespace(elapsed_s=1.0, board=SimpleNamespace(before=board))
    runs = [one(board, elapsed_s, own_s=elapsed_s + 0.04) for elapsed_s in times]
    assert rerun_checks._times(SimpleNamespace(manifest=told), runs).state == state
    assert rerun_checks._clock(runs).state == OK
    assert rerun_checks._clock([one(board, 1.0, own_s=0.94)]).state == FAIL
    assert rerun_checks._clock([one(board, 100.0, own_s=99.1)]).state == OK
    assert rerun_checks._clock([one(board, 100.0, own_s=50.0)]).state == FAIL


def one(board: board_verdict.State, elapsed_s: float, own_s: float) -> rerun_checks.One:
    measured = Measured(0, 1.0, elapsed_s, b"", "run", (), (board, board), None)
    return rerun_checks.One(Path(), measured, "", "", SimpleNamespace(elapsed_s=own_s), ())


@pytest.mark.slow
def test_on_data_that_no_team_has_seen(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    """The submission's own claims are judged by its data, what comes of running it by the new ones."""
    fresh = tmp_path / "fresh.jsonl"
    rows = [json.loads(line) for line in ground.data.read_text().splitlines()]
    fresh.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    organiser = Organiser(
        fresh, None, str(ground.model), ground.light_organiser.checkout, references=[ground.reference]
    )
    docker.manifest(lambda told: told["dataset"].update(sha256=sha256_of(fresh), name="/data/fresh.jsonl"))
    docker.manifest(lambda told: told["request"].update(dataset="/data/fresh.jsonl"))
    verdict = verify.verify(ground.light, organiser, Request(2, here=False), tmp_path / "verdict")
    assert verdict.trouble == ""
    by_id = {each.id: each for each in verdict.checks}
    assert by_id["dataset"].state == UNKNOWN  # the submission's own file is not here
    assert by_id["reference"].state == UNKNOWN
    assert by_id["rerun"].state == by_id["rerun-outputs"].state == by_id["rerun-time"].state == OK
    assert "spread" in by_id["rerun-time"].found
    # Its answers are to the rows of another file: they are counted by the new one.
    assert by_id["rerun-record"].found == "score: claimed 5 of 6; counted 0 of 6"
    assert by_id["rerun-record"].state == FAIL
    assert verdict.rerun["data"] == "fresh.jsonl"
    run = next(call for call in docker.called if call[0] == "run")
    assert run[run.index("--dataset") + 1] == "/data/fresh.jsonl"


def test_loading_a_packed_image_moves_no_name(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin/docker"
    script.parent.mkdir()
    script.write_text(
        f"""#!{sys.executable}
import pathlib, sys
here, said = pathlib.Path(__file__).parent, sys.argv[1:]
with open(here / "called", "a") as file:
    print(*said, file=file)
loaded = (here / "loaded").exists()
if said[0] == "load":
    (here / "loaded").touch()
if said[0] == "images":
    print("ours:latest sha256:" + ("2" if loaded else "1") * 64)
    print("other:latest sha256:" + "3" * 64)
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    rerun_process._load(tmp_path / "image.tar")
    called = (script.parent / "called").read_text().splitlines()
    assert called[-1] == f"tag sha256:{'1' * 64} ours:latest"
    assert sum(line.startswith("tag") for line in called) == 1


@pytest.mark.parametrize(("image", "state"), [(None, UNKNOWN), ("--privileged", UNKNOWN), ("blue/phi3:1", UNKNOWN)])
def test_an_image_that_cannot_be_named_is_not_run(
    image: str | None, state: str, docker: Docker, ground: Ground, tmp_path: Path
) -> None:
    draft = Draft.of(ground.light)
    draft.submission |= {"image": {"reference": image, "digest": None}, "rehearsal": True}
    draft.make_papers()
    verdict = again(ground, tmp_path, tar=draft.pack(tmp_path / "dist"))
    assert "rerun-image" in in_state(verdict, state)
    assert verdict.state == CANNOT_TELL
    assert not any("--privileged" in call for call in docker.called)


def test_an_image_that_is_handed_in_is_loaded(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.light)
    layers = io.BytesIO()
    with tarfile.open(fileobj=layers, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("manifest.json"))
    draft.files["image.tar"] = layers.getvalue()
    assert again(ground, tmp_path, tar=draft.pack(tmp_path / "dist")).state == VALID
    (load,) = [call for call in docker.called if call[0] == "load"]
    assert load[-1].endswith("/image.tar")


def test_a_container_that_does_not_end_is_ended(
    docker: Docker, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerun, "LEAST_LIMIT_S", 0.5)
    monkeypatch.setattr(rerun, "MOST_LIMIT_S", 0.5)
    docker.tells(sleep_s=60)
    verdict = again(ground, tmp_path)
    assert in_state(verdict, FAIL) == {"rerun"}
    assert "no end within 0.5 s" in verdict.reasons[0]
    name = next(call[call.index("--name") + 1] for call in docker.called if call[0] == "run")
    assert ["rm", "--force", name] in docker.called


def test_what_is_invalid_already_is_not_run(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.light)
    draft.manifest["code"]["dirty"] = True
    verdict = again(ground, tmp_path, tar=draft.pack(tmp_path / "dist"))
    assert (verdict.state, verdict.rerun) == (INVALID, None)
    assert not any(call[0] == "run" for call in docker.called)


def test_without_the_organisers_model_nothing_is_run(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    verdict = verify.verify(ground.light, Organiser(ground.data), Request(1, here=False), tmp_path / "verdict")
    assert "rerun" in in_state(verdict, UNKNOWN)
    assert not any(call[0] == "run" for call in docker.called)


def test_without_docker_nothing_is_begun(
    docker: Docker, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.tells(info=1)
    monkeypatch.setenv("PATH", str(docker.folder))  # no podman either
    with pytest.raises(EnvironmentProblem) as caught:
        again(ground, tmp_path)
    assert caught.value.code == "E612"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem) as caught:
        again(ground, tmp_path)
    assert caught.value.code == "E611"
    assert not (tmp_path / "verdict").exists()


@pytest.mark.parametrize("times", [None, 0, -1, 101])
def test_how_often_is_a_small_number(times: int | None) -> None:
    with pytest.raises(UsageError) as caught:
        rerun.request(times, here=True)
    assert caught.value.code == "U612"


def test_no_runtime_of_nvidia_where_there_is_none(tmp_path: Path) -> None:
    command = container.stranger(
        Host(tmp_path), "i", [], container.Walls(1 << 30),
        name="n", id_file="/i", read=[], runs="/r", volumes=[], nvidia=False,
    )  # fmt: skip

    assert "--runtime" not in command


# For real


@pytest.mark.slow
def test_the_source_is_run_again_here(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verdict = verify.verify(ground.tar, ground.organiser, Request(1, here=True), Path("verdict"))
    assert verdict.rerun["runs"][0]["status"] in {0, 8}, verdict.rerun
    assert verdict.rerun["differing"] == []
    assert not in_state(verdict, FAIL)
    assert {path.name for path in (tmp_path / "verdict").iterdir()} == {"verdict.json", "verdict.html", "rerun"}


@pytest.mark.slow
def test_a_source_that_answers_otherwise_is_shown_by_running_it(ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.tar)
    row = draft.row(2)
    ids = [token for token in row["token_ids"] if token % 8]
    tokenizer = ground.organiser.model("").tokenizer
    draft.say(2, tokenizer.decode(ids[:1], skip_special_tokens=True), [ids[0], 8])
    draft.manifest["score"]["correct"] -= 1
    draft.settle()
    without_reference = verify.Organiser(ground.data, None, str(ground.model), ground.clone.path)
    tar = draft.pack(tmp_path / "dist")
    verdict = verify.verify(tar, without_reference, Request(1, here=True), tmp_path / "verdict")
    assert in_state(verdict, FAIL) == {"rerun-outputs"}
    assert verdict.rerun["differing"] == [2]
