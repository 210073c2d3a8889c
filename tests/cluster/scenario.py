"""The queues on a real Slurm cluster, and on this machine: the same runs, while nodes, controller, drivers are killed.

    python tests/cluster/scenario.py local|slurm      as root; slurm needs Debian's packages: .ci/cluster installs them

What runs is a small stand-in for a container. Afterwards: as many results as planned, each of its class, none twice,
and no attempt of a settled run begun later. Memory is not among the classes: what the kernel ends for want of it is
tried with real containers by tests/image/rerun.py. Nor is a shared folder over NFS tried.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from loopback import NODES, SCRIPT, answers, cluster_of, order, resume_what_a_crash_drained, say, scontrol, wait

from pipeline import paths
from pipeline.errors import EnvironmentProblem, UsageError
from pipeline.queues import attempts, boards, job, slurm
from pipeline.queues.driver import Driver, Wanted
from pipeline.queues.local import Local
from pipeline.queues.owner import only_one
from pipeline.queues.queue import Queue, QueueSilent
from pipeline.queues.slurm import Slurm

CLASSES = {
    "good1": "ok",
    "good2": "ok",
    "good3": "ok",
    "crash": "did not start",
    "hang": "timeout",
    "wrong": "wrong answers",
}
ROUNDS = (1, 2) if "local" in sys.argv else (1, 2, 3)  # one board takes them one by one
KEYS = [f"{name}-r{number}" for number in ROUNDS for name in CLASSES]
ALLOWED = {"node": 3, "did not start": 2}
RUN_S, LIMIT_S = (1.0, 2.0) if "SLURM_JOB_ID" in os.environ else (0.4, 1.5)
CODE = {"crash": "raise SystemExit(1)", "hang": "import time; time.sleep(600)"}
PYTHON = ("env", f"PYTHONPATH={paths.ROOT}", sys.executable)


def work(attempt: Path) -> dict[str, Any]:
    """In the place of a container: a process that is watched from outside."""
    name = attempt.parent.name.partition("-")[0]
    code = CODE.get(name, f"import time; time.sleep({RUN_S})")
    try:
        status = subprocess.run([sys.executable, "-S", "-c", code], check=False, timeout=LIMIT_S).returncode
    except subprocess.TimeoutExpired:
        return {"kind": "timeout"}
    return {"kind": "did not start" if status else CLASSES[name]}


def queue_of(kind: str, place: Path) -> Queue:
    return Slurm(None) if kind == "slurm" else Local(place / "queue")


def drive(kind: str, place: Path) -> None:
    """Until all is settled, or killed."""
    slurm.HANDED_ON += ("TMPDIR",)  # all that jobs leave lies in the test's own folder
    slurm.PATIENCE_S = 5.0  # a controller that was killed while it answered leaves squeue waiting
    with only_one(place) as owner:
        command = (*PYTHON, __file__, "work")
        driver = Driver(
            queue_of(kind, place), place / "runs", "j-test", lambda each: (*command, each), ALLOWED, 5.0, 10.0
        )
        while True:
            owner.touch()
            try:
                found = driver.look([Wanted(key, 60.0) for key in KEYS], window=7)
                if all(each.result for each in found):
                    return
            except QueueSilent as error:
                print(f"  waiting: {error}", flush=True)
            time.sleep(0.5)


def started(kind: str, place: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "drive", kind, str(place)]
    for _ in range(40):  # the controller may not answer when it begins
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(paths.ROOT)})
        time.sleep(1.5)
        if process.poll() in (None, 0):
            return process
    raise AssertionError("no driver of 40 that were started goes on")


def settled(place: Path) -> int:
    return len(list(place.glob("runs/*/result.json")))


def trouble(place: Path, folder: Path) -> None:
    """On the cluster: its controller, a whole node and one that is drained."""
    controller_is(folder, down=True)
    say("slurmctld killed 2 s after the submissions")
    controller_is(folder, down=False)
    scontrol("update", "nodename=orin3", "state=drain", "reason=test")
    found: list[str] = []
    # Either may have had a job that the killed controller knows nothing of: that drains it.
    rest = ("orin1", "orin2")
    wait(
        lambda: resume_what_a_crash_drained(*rest) or found.extend(running_on(place, *rest)) or found, 60,
        "a run on a node that is not drained",
    )  # fmt: skip
    victim = found[0]
    order("crash", folder, victim)
    say(f"{victim} crashed while it ran one, orin3 drained")
    time.sleep(6)
    order("daemon", folder, victim)
    scontrol("update", "nodename=orin3", "state=resume")
    controller_is(folder, down=True)
    controller_is(folder, down=False)
    say(f"{victim} is back, orin3 resumed, slurmctld killed again")


def after_looking(kind: str) -> None:
    """At the farm, as its organiser does meanwhile."""
    if kind == "slurm":
        resume_what_a_crash_drained(*NODES)
    time.sleep(1)


def running_on(place: Path, *nodes: str) -> list[str]:
    """Those of the nodes on which a run has begun and not ended."""
    found = [each.node for run in place.glob("runs/*") for each in attempts.of_run(run)
             if each.started and not each.outcome]  # fmt: skip
    return [node for node in nodes if node in found]


def controller_is(folder: Path, down: bool) -> None:
    order("kill" if down else "daemon", folder, "slurmctld")
    if not down:
        wait(answers, 20, "the controller")


def look_at_the_farm(place: Path, folder: Path) -> None:
    """What is refused before anything is queued, by real jobs on real nodes."""
    import pytest

    from pipeline.contest.judge import farm

    docker = folder / "bin/docker"
    docker.parent.mkdir()
    for each in (docker, docker.with_name("podman")):
        each.touch()
        each.chmod(0o755)
    path = os.environ["PATH"]
    for status, code in (("1", "E637"), ("0", None)):
        for each in (docker, docker.with_name("podman")):
            each.write_text(f"#!/bin/sh\nexit {status}\n")
        os.environ["PATH"] = f"{docker.parent}:{path}"
        if code is None:
            assert farm.check(Slurm(None), place, PYTHON, print) == ["orin1", "orin2", "orin3"]
            continue
        with pytest.raises(EnvironmentProblem) as caught:
            farm.check(Slurm(None), place, PYTHON, print)
        assert caught.value.code == code, caught.value
    os.environ["PATH"] = path
    with pytest.raises(UsageError, match="no such partition"):
        Slurm("nowhere")
    # A node that has another folder under the path of the shared one.
    order("kill", folder, "orin3")
    apart = f'mount -t tmpfs none "{place}" && exec bash "{SCRIPT}" daemon "{folder}" orin3'
    subprocess.run(["unshare", "--mount", "sh", "-c", apart], check=True)
    boards.PATIENCE_S = 8.0
    with pytest.raises(EnvironmentProblem) as caught:
        farm.check(Slurm(None), place, PYTHON, print)
    assert (caught.value.code, caught.value.where) == ("E634", "orin3"), caught.value
    order("kill", folder, "orin3")
    order("daemon", folder, "orin3")
    wait(lambda: all(each.up for each in Slurm(None).nodes()), 20, "three nodes that are up")
    print(
        "  refused before anything is queued: no containers, no such partition, a folder that is not shared", flush=True
    )


def scenario(kind: str, place: Path, folder: Path) -> None:
    chance = random.Random(17)
    driver = started(kind, place)
    second = subprocess.run([sys.executable, __file__, "drive", kind, str(place)], capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(paths.ROOT)}, check=False)  # fmt: skip
    assert "another process works on this folder already" in second.stderr, second.stderr
    say("a second driver was refused")
    if kind == "slurm":
        trouble(place, folder)
    for _ in range(3):
        time.sleep(chance.uniform(0.3, 2.0))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        say(f"the driver killed, {settled(place)} of {len(KEYS)} settled")
        driver = started(kind, place)
    wait(lambda: after_looking(kind) or driver.poll() is not None, 120, "the end of the driver")
    assert driver.returncode == 0
    say("all settled")
    check(place)


def check(place: Path) -> None:
    runs = {run.name: run for run in place.glob("runs/*")}
    assert sorted(runs) == sorted(KEYS), sorted(runs)
    kinds, begun, ended = {}, 0, 0
    for key, run in runs.items():
        result, made = attempts.result(run), attempts.of_run(run)
        kinds[key] = result["kind"]
        assert (run / "result.json").stat().st_ino in {(each.folder / "outcome.json").stat().st_ino
                                                       for each in made if each.outcome}, key  # fmt: skip
        settled_s = (run / "result.json").stat().st_mtime
        begun += sum(each.started is not None for each in made)
        ended += sum(each.outcome is not None for each in made)
        assert all(each.started["at_s"] <= settled_s for each in made if each.started), (
            f"{key} began when it was settled"
        )
    assert kinds == {key: CLASSES[key.partition("-")[0]] for key in KEYS}, kinds
    attempted = sum(len(attempts.of_run(run)) for run in runs.values())
    counted = ", ".join(f"{count} {kind}" for kind, count in Counter(kinds.values()).items())
    print(f"{len(kinds)} results of {attempted} attempts, {begun} begun, {ended} ended: {counted}")


def main(kind: str) -> None:
    with tempfile.TemporaryDirectory(prefix="farm-") as made:
        place, folder = Path(made) / "judge", Path(made) / "cluster"
        place.mkdir()
        os.environ["TMPDIR"] = made
        slurm.HANDED_ON += ("TMPDIR",)
        if kind == "local":
            return scenario(kind, place, folder)
        with cluster_of(folder):
            look_at_the_farm(place, folder)
            try:
                scenario(kind, place, folder)
            except BaseException:
                for run in sorted(place.glob("runs/*")):
                    print(run.name, [(each.number, each.started, each.outcome) for each in attempts.of_run(run)])
                raise


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work", attempt]:
            print(json.dumps(job.run(Path(attempt), work, ALLOWED)))
        case ["drive", kind, place]:
            try:
                drive(kind, Path(place))
            except (UsageError, EnvironmentProblem) as error:
                sys.exit(str(error))
        case [kind]:
            main(kind)
