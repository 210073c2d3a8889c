"""The docker commands that are printed and run, and a run that is reproduced. The image itself: tests/image."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import invoke_command
from support.fake_board import FakeBoard
from support.rows import write_rows

from pipeline import paths, process
from pipeline.device import board as boards
from pipeline.prepare import container
from pipeline.record import provenance

pytestmark = pytest.mark.usefixtures("one_thread")

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def dockers(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where docker is what answers."""
    monkeypatch.setattr(container, "answering_program", lambda: "docker")


@pytest.fixture
def docker(board: FakeBoard, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker that writes down how it was called; its folders, like the runs, are this test's."""
    for name in ("models", "data"):
        monkeypatch.setenv(f"PIPELINE_{name.upper()}", str(board.root.parent / name))
    script = board.write(
        "../bin/docker", '#!/bin/bash\n[ "$1" != info ] || exit 0\nprintf "%q " "$@" > "$0.called"\n[ ! -e "$0.fails" ]'
    )
    script.chmod(0o755)
    return script.with_name("docker.called")


def test_a_run_has_no_network_and_sees_little_of_the_host(board: FakeBoard) -> None:
    told = container.text(container.run(board.host, "img", ["run", "--dataset", "my set"]))
    assert told.startswith("docker run --rm --runtime nvidia --network none --ipc host ")
    assert told.endswith(" img run --dataset 'my set'")
    assert f"-v {paths.models()}:/models -v {paths.data()}:/data -v {paths.runs()}:/runs" in told
    assert "-v /etc/nvpmodel.conf:/etc/nvpmodel.conf:ro -v /var/lib/nvpmodel:/var/lib/nvpmodel:ro" in told
    assert f"--user {os.getuid()}:{os.getgid()} --group-add 44 --group-add 104 " in told
    assert "--privileged" not in told
    assert "/host" not in told


def test_the_whole_host_is_only_by_asking(board: FakeBoard) -> None:
    command = container.run(board.host, "img", [], shell=True, whole_host=True)
    assert {"--privileged", "--pid=host", "/:/host", "-it"} <= set(command)
    assert command[command.index("--user") + 1] == "0:0"
    assert command[-3:] == ["--entrypoint", "bash", "img"]


def test_a_set_up_may_have_a_network(board: FakeBoard) -> None:
    told = container.text(container.run(board.host, "img", ["setup"], network=True))
    assert "--network host -e HF_HUB_OFFLINE=0" in told


def test_a_container_that_is_shown_the_device_tree_knows_its_module(board: FakeBoard) -> None:
    (board.root / "proc/device-tree").rename(board.root / "run/device-tree")
    assert boards.look(board.host).module == "p3701-0004"
    board.remove("run/device-tree")
    (board.root / "sys/firmware/devicetree/base").mkdir(parents=True)
    assert "-v /sys/firmware/devicetree/base:/run/device-tree:ro" in container.text(container.run(board.host, "i", []))


def test_elsewhere_nothing_of_the_host_is_mounted(tmp_path: Path) -> None:
    from pipeline.device.host import Host

    told = container.text(container.run(Host(tmp_path), "img", []))
    assert "nvpmodel" not in told
    assert "--group-add" not in told


def test_the_build_is_labelled_with_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = provenance.commit()["commit"]
    told = container.text(container.build("img", "ab" * 32))
    assert f"COMMIT={commit}" in told
    assert f"TORCH_SHA256={'ab' * 32}" in told
    assert "-f Dockerfile.l4t" in told
    monkeypatch.setenv("PIPELINE_COMMIT", "abc-dirty")
    assert provenance.commit() == {"commit": "abc", "dirty": True, "changed": None}


@pytest.mark.parametrize(
    "command",
    [("image",), ("shell",), ("shell", "--task", "doctor --json"), ("reproduce", "--run", "x", "--image", "img")],
)
@pytest.mark.slow
def test_what_is_printed_is_what_is_called(docker: Path, invoke: Invoke, command: tuple[str, ...]) -> None:
    shown = invoke(*command, "--show")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert not docker.exists()
    done = invoke(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(shown.stdout)  # and then what people do next
    assert ["docker", *shlex.split(docker.read_text())] == shlex.split(shown.stdout)
    docker.with_name("docker.fails").touch()
    failed = invoke(*command)
    assert failed.returncode == 3
    assert "E322" in failed.stderr


@pytest.mark.checkout
def test_without_docker_the_command_is_there_to_paste(
    board: FakeBoard, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    git = tmp_path / "git-only"
    git.mkdir()
    (git / "git").symlink_to(shutil.which("git"))
    monkeypatch.setenv("PATH", str(git))
    done = invoke("image")
    assert done.returncode == 3
    assert "E321" in done.stderr
    assert done.stdout.startswith("docker build ")


# Reproducing


@pytest.fixture(scope="module")
def original(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, made once."""
    place = tmp_path_factory.mktemp("original")
    rows = write_rows(place / "rows.jsonl", 4)
    command = invoke_command("run", "--dataset", rows, "--model", tiny, "--max-new-tokens", "5")
    environment = {**os.environ, "PIPELINE_RUNS": str(place / "runs")}
    done = subprocess.run(command, cwd=paths.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = (place / "runs").iterdir()
    return folder


@pytest.fixture
def recorded(original: Path, runs: Path) -> Path:
    """The same to change."""
    return shutil.copytree(original, runs / original.name)


@pytest.mark.slow
def test_a_run_is_reproduced_and_the_verdict_written(recorded: Path, invoke: Invoke, runs: Path) -> None:
    done = invoke("reproduce", "--run", recorded.name)
    assert done.returncode == 0, done.stderr
    assert "\nREPRODUCED\n" in done.stdout
    assert "4 of 4 are the same, to the token" in done.stdout
    (again,) = set(runs.iterdir()) - {recorded}
    told = json.loads((again / "reproduction.json").read_text())
    assert (told["same"], told["differing"], told["rows"], told["folder"]) == (True, [], 4, again.name)


@pytest.mark.slow
def test_another_answer_is_another_run(recorded: Path, invoke: Invoke) -> None:
    lines = (recorded / "outputs.jsonl").read_text().splitlines()
    row = json.loads(lines[2])
    row["token_ids"][0] += 1
    (recorded / "outputs.jsonl").write_text("\n".join([*lines[:2], json.dumps(row), lines[3], ""]))
    done = invoke("reproduce", "--run", recorded)
    assert done.returncode == 7
    assert "NOT REPRODUCED" in done.stdout
    assert f"rows {row['index']}" in done.stderr


def edit(recorded: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = recorded / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


SPOILT = {
    "another model": (lambda m: m["model"].update(lock_sha256="0" * 64), 4, "M601"),
    "another file": (lambda m: m["dataset"].update(sha256="0" * 64), 4, "M602"),
    "a model that is not here": (lambda m: m["request"].update(model="not/here"), 4, "M601"),
    "a file that is not here": (lambda m: m["request"].update(dataset="not/here.jsonl"), 4, "M602"),
    "unfinished": (lambda m: m.update(state="failed"), 2, "U501"),
    "no manifest of ours": (lambda m: m.clear(), 2, "U501"),
    "no request": (lambda m: m.pop("request"), 2, "U501"),
    "an option of another version": (lambda m: m["request"].update(colour="red"), 2, "U503"),
}


@pytest.mark.parametrize("case", SPOILT)
@pytest.mark.slow
def test_what_cannot_be_reproduced_says_why_and_is_not_run(
    recorded: Path, invoke: Invoke, runs: Path, case: str
) -> None:
    change, status, code = SPOILT[case]
    edit(recorded, change)
    done = invoke("reproduce", "--run", recorded)
    assert done.returncode == status, done.stderr
    assert code in done.stderr
    assert list(runs.iterdir()) == [recorded]


def test_a_run_that_is_not_there(invoke: Invoke) -> None:
    done = invoke("reproduce", "--run", "nowhere")
    assert done.returncode == 2
    assert "U311" in done.stderr


def test_podman_runs_it_where_dockers_daemon_does_not_answer(
    board: FakeBoard, docker: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "answering_program", process.answering_program)
    docker.with_name("docker").write_text("#!/bin/bash\nexit 1")
    podman = board.write("../bin/podman", '#!/bin/bash\necho "podman was called: $*"')
    podman.chmod(0o755)
    container.call(container.run(board.host, "img", ["doctor"]))
    printed, called = capfd.readouterr().out.splitlines()
    assert printed.startswith("podman run --rm --runtime nvidia --network none --ipc host --ulimit host -v ")
    assert called == f"podman was called: {printed.removeprefix('podman ')}"
    assert container.build("img")[0] == "podman"
