"""`invoke judge` whole, with real containers of podman, on this machine or on a real Slurm cluster of three nodes.

    python tests/cluster/judged.py local slurm      one of them, or both; as root; .ci/cluster installs what it needs

Submissions that are good, that crash, hang, take all memory, answer in another form or otherwise, replay kept answers
or look for a way out; a run's folder of a tiny model stands for what a model would compute. Afterwards: each run of its
class, each verdict as it must be, nothing run twice, no container left. The board is a folder; where the machine has no
memory controller, the hog is left out and that is said.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from support import audited, fake_board
from support.audited import Ground
from support.checkpoints import random_model
from support.drafts_of_submissions import Draft

from pipeline.contest.judge import judge, plan, references
from pipeline.contest.ranking import leaderboard, page
from pipeline.contest.verify.again import checks as rerun_checks
from pipeline.model import fetch, lock
from pipeline.queues import attempts

CLUSTER, BEHAVE = (Path(__file__).with_name(name) for name in ("slurm-cluster.sh", "behave.sh"))
KINDS = {
    "good": ["ok", "ok"],
    "nosy": ["ok", "ok"],
    "crash": ["did not start", "did not start"],
    "hang": ["not run", "timeout"],
    "hog": ["out of memory", "out of memory"],
    "form": ["wrong form", "wrong form"],
    "answers": ["ok", "ok"],
    "replay": ["wrong answers", "wrong answers"],
}
REPEAT, LIMIT_S, BOARD_KB = 2, 8.0, 400_000
WRAPPER = """#!{python} -IS
import os, sys
os.environ |= {{"CONTAINERS_CONF": "{store}/containers.conf", "CONTAINERS_STORAGE_CONF": "{store}/storage.conf"}}
# A board's own files are in the folder that stands for it.
board = os.environ.get("PIPELINE_HOST", "")
def found(each):
    source, colon, rest = each.partition(":")
    if not (each.startswith("/") and colon) or os.path.lexists(source):
        return each
    source = board + source
    while os.path.islink(source):
        source = os.path.join(board + os.path.dirname(source[len(board):]), os.readlink(source))
        source = source if source.startswith(board) else board + source
    return source + colon + rest
os.execv("{program}", ["{program}", *map(found, sys.argv[1:])])
"""
MEMORY = "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cgroup.controllers"


def main(*kinds: str) -> None:
    began_s = time.monotonic()
    assert kinds
    assert set(kinds) <= {"local", "slurm"}, kinds
    # Not below /tmp/judge-…: those are the runs' own.
    with tempfile.TemporaryDirectory(prefix="judged-") as made:
        place = Path(made)
        os.environ["PATH"] = f"{podman(place)}:{os.environ['PATH']}"
        torch.set_num_threads(1)
        ground = audited.build(tiny(place / "tiny"), made_folder(place / "ground"))
        say(began_s, "a good submission is made")
        behaviours = [each for each in KINDS if each != "hog" or limited()]
        packed = folder_of(ground, place, behaviours)
        say(began_s, f"{len(behaviours)} submissions are packed, with their images")
        board = fake_board.make(place / "board", mode="MAXN")
        board.lock_clocks()
        meminfo = board.root / "proc/meminfo"
        meminfo.write_text(f"MemTotal:       {BOARD_KB} kB\nMemAvailable:   {BOARD_KB} kB\n")
        os.environ["PIPELINE_HOST"] = str(board.root)
        for on in kinds:
            received = shutil.copytree(packed, place / on)
            with cluster_of(place / "cluster") if on == "slurm" else contextlib.nullcontext():
                judged(on, ground, received, behaviours, place / "own.tar")
            left = subprocess.run(["podman", "ps", "-aq"], capture_output=True, text=True, check=True).stdout
            assert not left.strip(), f"containers left: {left}"
            check(received, behaviours)
            say(began_s, f"passed on {on}")
        subprocess.run(["podman", "rmi", "--all", "--force"], check=True, capture_output=True)


@contextlib.contextmanager
def cluster_of(folder: Path) -> Iterator[None]:
    try:
        subprocess.run(["bash", CLUSTER, "start", folder], check=True)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        yield
    finally:
        subprocess.run(["bash", CLUSTER, "stop", folder], check=True)


def say(began_s: float, text: str) -> None:
    print(f"{time.monotonic() - began_s:5.1f} s  {text}", flush=True)


def made_folder(path: Path) -> Path:
    path.mkdir()
    return path


def limited() -> bool:
    """Whether this machine can hold a container to so much memory."""
    controllers = Path(MEMORY[1])
    if Path(MEMORY[0]).is_dir() or (controllers.exists() and "memory" in controllers.read_text().split()):
        return True
    print("NOT TESTED: this machine has no memory controller, so no container can be held to its memory", flush=True)
    return False


def podman(place: Path) -> Path:
    """A podman with a store of its own in `place`, for jobs too, which get the PATH and little else."""
    store, settings = made_folder(place / "store"), place / "store/containers.conf"
    settings.write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
        '[engine.runtimes]\nrunc = ["/usr/sbin/runc"]\nnvidia = ["/usr/sbin/runc"]\n'
    )
    (store / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{store}/images"\nrunroot = "{store}/run"\n'
    )
    folder = made_folder(place / "bin")
    for name in ("podman", "buildah"):
        program = shutil.which(name)
        assert program is not None, f"no {name} here: apt-get install podman buildah runc busybox-static"
        (folder / name).write_text(WRAPPER.format(python=sys.executable, store=store, program=program))
        (folder / name).chmod(0o755)
    # A docker without a daemon would be asked at every turn.
    (folder / "docker").write_text("#!/bin/sh\nexit 1\n")
    (folder / "docker").chmod(0o755)
    return folder


def tiny(folder: Path) -> Path:
    random_model(folder, fetch.ensure("standin", lambda _: None), context=512)
    lock.verify(folder)
    return folder


def folder_of(ground: Ground, place: Path, behaviours: list[str]) -> Path:
    """A folder of archives, each with an image of its own here."""
    kept = shutil.copytree(ground.run, place / "kept")
    told = json.loads((kept / "manifest.json").read_text())
    told["code"]["commit"] = ground.light_organiser_commit
    (kept / "manifest.json").write_text(json.dumps(told))
    wrong = shutil.copytree(kept, place / "kept-wrong")
    outputs = (kept / "outputs.jsonl").read_text()
    (wrong / "outputs.jsonl").write_text(outputs.replace('"generated_text": "', '"generated_text": "x', 1))
    base = image_of(kept, wrong)
    received = made_folder(place / "received")
    for behaviour in [*behaviours, "own"]:
        name = f"localhost/{behaviour}:1"
        variables = [f"BEHAVIOUR={'good' if behaviour == 'own' else behaviour}", f"TOOK_S={told['elapsed_s']:.3f}"]
        buildah("config", *(part for each in variables for part in ("--env", each)), base)
        buildah("commit", "-q", base, name)
        digest = subprocess.run(["podman", "image", "inspect", "--format", "{{.Id}}", name], capture_output=True,
                                text=True, check=True).stdout.strip()  # fmt: skip
        draft = Draft.of(ground.light)
        draft.submission["team"] = {"name": f"Team {behaviour}", "members": [f"{behaviour} one"]}
        draft.submission["image"] = {"reference": name, "digest": f"sha256:{digest}"}
        packed = draft.pack(made_folder(place / f"packed-{behaviour}"))
        shutil.move(packed, place / "own.tar" if behaviour == "own" else received / f"{behaviour}.tar")
    return received


def image_of(kept: Path, wrong: Path) -> str:
    """A container to commit images from: busybox, the program, runs to hand out."""
    base = buildah("from", "scratch")
    busybox = shutil.which("busybox")
    assert busybox is not None, "no busybox here: apt-get install busybox-static"
    applets = ("sh", "cat", "sleep", "cp", "awk", "ls", "mkdir")
    for name in applets:
        buildah("copy", "-q", base, busybox, f"/bin/{name}")
    buildah("copy", "-q", base, str(BEHAVE), "/behave.sh")
    buildah("copy", "-q", base, str(kept), "/kept")
    buildah("copy", "-q", base, str(wrong), "/kept-wrong")
    buildah("config", "--entrypoint", '["/bin/sh", "/behave.sh"]', "--cmd", "", "--env", "PATH=/bin", base)
    return base


def buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout.strip()


def judged(on: str, ground: Ground, received: Path, behaviours: list[str], own: Path) -> None:
    slow = mock.patch.multiple(plan, LIMIT_FACTOR=0.0, LIMIT_MORE_S=LIMIT_S)
    # A busy machine is late by more than a tiny run takes.
    late = mock.patch.multiple(rerun_checks, CLOCK_S=3.0, DIFFERENT=30.0)
    with slow, late, mock.patch.object(references, "DRIFT", 30.0):
        asked = judge.request(received, ground.data, REPEAT, on, "", own if on == "slurm" else None, "")
        asked = judge.Request(**{**vars(asked), "period_s": 0.5, "grace_s": 3.0})
        verdicts = judge.judge(asked, ground.light_organiser, lambda line: print(f"  {line}", flush=True))
    assert len(verdicts) == len(behaviours)


def check(received: Path, behaviours: list[str]) -> None:
    place = received / "judge"
    made = plan.read(place)
    assert made is not None
    kinds: dict[str, list[str]] = {}
    begun: Counter[str] = Counter()
    for key in made.order:
        name = Path(made.entry(key).file).stem
        result = attempts.result(place / "runs" / key)
        assert result is not None, key
        kinds.setdefault(name, []).append(result["kind"])
        begun[name] += sum(each.started is not None for each in attempts.of_run(place / "runs" / key))
    expected = {name: KINDS[name] for name in behaviours}
    if kinds.get("hang") == ["timeout"] * REPEAT:  # on two boards at once
        expected["hang"], twice = kinds["hang"], {"crash": 2 * REPEAT}
    else:
        twice = {"crash": 2 * REPEAT, "hang": 1}
    why = [(path.parent.parent.name, path.read_text()[-300:]) for path in sorted(place.glob("runs/*/attempt-*/stderr"))]
    assert {name: sorted(each) for name, each in kinds.items()} == expected, (kinds, why)
    assert begun == {name: twice.get(name, REPEAT) for name in behaviours}, begun
    told = {name: json.loads((received / f"{name}.verdict/verdict.json").read_text()) for name in behaviours}
    found = {name: (each["verdict"], each["reasons"]) for name, each in told.items()}
    valid = {name for name, (verdict, _) in found.items() if verdict == "VALID"}
    assert valid == {"good", "nosy"} & set(behaviours), found
    assert {verdict for name, (verdict, _) in found.items() if name not in valid} == {"INVALID"}, found
    assert "a hole" not in "".join(path.read_text() for path in place.glob("runs/*/attempt-*/stdout"))
    ranked = leaderboard.make(received)
    (table,) = ranked.tables
    assert {entry.ranked.team for entry in table.entries} == {f"Team {name}" for name in valid}
    print(page.text(ranked), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
