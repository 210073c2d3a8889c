"""Submissions run again: in a docker that writes down how it was called and hands out a prepared run, and for real."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.audited import DIGEST, Ground, in_state
from support.drafts_of_submissions import Draft

from pipeline.check import FAIL, HUMAN, UNKNOWN
from pipeline.contest.verify import rerun, verify
from pipeline.contest.verify.rerun import Request
from pipeline.contest.verify.verify import CANNOT_TELL, INVALID, VALID, Verdict
from pipeline.device.host import Host
from pipeline.errors import EnvironmentProblem, UsageError
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
    print(told["id"], json.dumps(told["digests"]))
    sys.exit(not told["id"])
if said[0] == "run":
    time.sleep(told["sleep_s"])
    runs = next(each for each in said if each.endswith(":/runs")).split(":")[0]
    number = pathlib.Path(runs).parent.name
    print("said to stdout")
    print("said to \\x1b[31mstderr", file=sys.stderr)
    if (here / "result").is_dir():
        made = shutil.copytree(here / "result", runs + "/20241006T120000-x")
        manifest = json.loads((pathlib.Path(made) / "manifest.json").read_text())
        manifest = json.loads((here / f"manifest-{{number}}").read_text()) if told["own"] else manifest
        (pathlib.Path(made) / "manifest.json").write_text(json.dumps(manifest))
    sys.exit(told["status"])
"""
TOLD = {
    "info": 0,
    "id": f"sha256:{'1' * 64}",
    "digests": [f"blue/phi3@{DIGEST}"],
    "runtimes": ["runc", "nvidia"],
    "status": 0,
    "sleep_s": 0,
    "own": False,
}


class Docker:
    """One whose answers a test sets, first on the PATH."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder = folder
        shutil.copytree(run, folder / "result")
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        self.tells()

    def tells(self, **told: Any) -> None:
        (self.folder / "docker.json").write_text(json.dumps({**TOLD, **told}))

    def edit_outputs(self, old: str, new: str) -> None:
        path = self.folder / "result" / "outputs.jsonl"
        path.write_text(path.read_text().replace(old, new, 1))

    @property
    def called(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "called").read_text().splitlines()]

    def manifest(self, change: Callable[[dict[str, Any]], object], number: int | None = None) -> None:
        """Of what it hands out; with a number only for that run."""
        path = self.folder / "result" / "manifest.json"
        told = json.loads(path.read_text())
        change(told)
        (path if number is None else self.folder / f"manifest-{number}").write_text(json.dumps(told))


@pytest.fixture
def docker(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker(tmp_path / "docker", ground.run)
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
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
    assert f" -v {ground.data}:/data/rows.jsonl:ro " in told
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
    assert (told["elapsed_s"], told["claimed_s"], told["ratio"]) == ([claimed_s] * 2, claimed_s, 1.0)
    assert told["runs"][0]["stdout_tail"] == "said to stdout\n"
    assert told["runs"][0]["stderr_tail"] == "said to ·[31mstderr\n"
    page = (tmp_path / "verdict" / "verdict.html").read_text()
    assert "Run again" in page
    assert "said to stdout" in page


def slower(share: float) -> Callable[[dict[str, Any]], object]:
    def change(told: dict[str, Any]) -> None:
        told["elapsed_s"] *= 1 + share

    return change


LIES: dict[str, tuple[Callable[[Docker], object], str, set[str]]] = {
    "another image": (lambda docker: docker.tells(digests=["blue/phi3@sha256:" + "cd" * 32]), FAIL, {"rerun-image"}),
    "an image that is not here": (lambda docker: docker.tells(id=""), UNKNOWN, {"rerun-image", "rerun"}),
    "it fails": (lambda docker: docker.tells(status=1), FAIL, {"rerun"}),
    "it writes nothing": (lambda docker: shutil.rmtree(docker.folder / "result"), FAIL, {"rerun"}),
    "it writes half a run": (lambda docker: (docker.folder / "result/outputs.jsonl").write_text("{"), FAIL, {"rerun"}),
    "it answers other data": (
        lambda docker: docker.manifest(lambda told: told["dataset"].update(sha256="0" * 64)),
        FAIL,
        {"rerun"},
    ),
    "it runs another model": (
        lambda docker: docker.manifest(lambda told: told["model"].update(lock_sha256="0" * 64)),
        FAIL,
        {"rerun"},
    ),
    "other answers": (
        lambda docker: (docker.folder / "result/outputs.jsonl").write_text(
            (docker.folder / "result/outputs.jsonl")
            .read_text()
            .replace('"generated_text": "', '"generated_text": "x', 1)
        ),
        FAIL,
        {"rerun-outputs"},
    ),
    "a time that it does not reach": (lambda docker: docker.manifest(slower(0.03)), FAIL, {"rerun-time"}),
    "a board that is held back": (
        lambda docker: docker.manifest(lambda told: told["verdict"].update(state="INVALID")),
        UNKNOWN,
        {"rerun-time"},
    ),
    "another device": (
        lambda docker: docker.manifest(lambda told: told["board"]["before"]["board"].update(module="p3701-0005")),
        HUMAN,
        {"rerun-time"},
    ),
}


@pytest.mark.parametrize("case", LIES)
def test_running_it_again_shows_the_lie(case: str, docker: Docker, ground: Ground, tmp_path: Path) -> None:
    lie, state, ids = LIES[case]
    lie(docker)
    verdict = again(ground, tmp_path)
    found = {name for name in in_state(verdict, state) if name.startswith("rerun")}
    assert found == ids, verdict.reasons
    assert verdict.state == {FAIL: INVALID, UNKNOWN: CANNOT_TELL, HUMAN: VALID}[state]


def test_a_little_slower_is_the_same(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    docker.manifest(slower(0.015))
    assert again(ground, tmp_path).state == VALID


def test_runs_that_differ_among_themselves_tell_nothing_of_time(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    docker.tells(own=True)
    for number, share in ((1, 0.0), (2, 0.1), (3, 0.2)):
        docker.manifest(slower(share), number)
    verdict = again(ground, tmp_path, times=3)
    assert (verdict.state, in_state(verdict, UNKNOWN)) == (CANNOT_TELL, {"rerun-time"})


@pytest.mark.parametrize(("image", "state"), [(None, UNKNOWN), ("--privileged", UNKNOWN), ("blue/phi3:1", UNKNOWN)])
def test_an_image_that_cannot_be_named_is_not_run(
    image: str | None, state: str, docker: Docker, ground: Ground, tmp_path: Path
) -> None:
    draft = Draft.of(ground.light)
    draft.submission |= {"image": {"reference": image, "digest": None}, "rehearsal": True}
    verdict = again(ground, tmp_path, tar=draft.pack(tmp_path / "dist"))
    assert "rerun-image" in in_state(verdict, state)
    assert verdict.state == CANNOT_TELL
    assert not any("--privileged" in call for call in docker.called)


def test_an_image_that_is_handed_in_is_loaded(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.light)
    draft.files["image.tar"] = b"layers"
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
    assert "no end in time" in verdict.reasons[0]
    name = next(call[call.index("--name") + 1] for call in docker.called if call[0] == "run")
    assert ["rm", "--force", name] in docker.called


def test_what_is_invalid_already_is_not_run(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.light)
    draft.manifest["code"]["dirty"] = True
    verdict = again(ground, tmp_path, tar=draft.pack(tmp_path / "dist"))
    assert (verdict.state, verdict.rerun) == (INVALID, None)
    assert not any(call[0] == "run" for call in docker.called)


def test_without_the_organisers_model_nothing_is_run(docker: Docker, ground: Ground, tmp_path: Path) -> None:
    from pipeline.contest.verify.organiser import Organiser

    verdict = verify.verify(ground.light, Organiser(ground.data), Request(1, here=False), tmp_path / "verdict")
    assert "rerun" in in_state(verdict, UNKNOWN)
    assert not any(call[0] == "run" for call in docker.called)


def test_without_docker_nothing_is_begun(
    docker: Docker, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.tells(info=1)
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
    command = container.stranger(Host(tmp_path), "i", [], name="n", read=[], runs="/r", nvidia=False)
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
    draft.settle()
    draft.manifest["score"]["correct"] -= 1
    without_reference = verify.Organiser(ground.data, None, str(ground.model), ground.clone.path)
    tar = draft.pack(tmp_path / "dist")
    verdict = verify.verify(tar, without_reference, Request(1, here=True), tmp_path / "verdict")
    assert in_state(verdict, FAIL) == {"rerun-outputs"}
    assert verdict.rerun["differing"] == [2]
