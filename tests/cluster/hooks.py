"""The hooks of configs/slurm, run by a real slurmd: prolog, epilog, health check; a folder stands for each board.

    python tests/cluster/hooks.py      as root; .ci/cluster installs what it needs

What a board's tools say is made up (tests/support/fake_board.py); full disk, containers and the kernel's lines on
memory are real ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from containers import buildah, busybox, limited, no_container_left, podman_of, script
from loopback import NODES, cluster_of, say, scontrol, wait
from support import fake_board
from support.fake_board import FakeBoard

from pipeline import paths
from pipeline.queues import attempts, slurm
from pipeline.queues.attempts import Attempt
from pipeline.queues.driver import Driver, Wanted
from pipeline.queues.slurm import Slurm

SCENARIO = Path(__file__).with_name("scenario.py")
HOOKS = paths.ROOT / "configs/slurm"
TOOLS = {"docker": "exit 1", "timedatectl": 'cat "$PIPELINE_HOST/synchronized"'}
IMAGE = "localhost/walls:1"
HOG = """
group=$(mktemp -d {folder}/judge-hooks-XXXXXX)
{limits}
( echo 0 > $group/{processes}; exec tail /dev/zero ) ; status=$?
rmdir $group
exit $status
"""
ONE = Path("/sys/fs/cgroup/memory")


def board_of(folder: Path, node: str, programs: Path) -> FakeBoard:
    board = fake_board.make(folder / node, mode="MAXN")
    board.write("synchronized", "yes")
    board.write("proc/sys/vm/drop_caches", 0)
    board.write("etc/slurm/wall-image", IMAGE)
    board.write("var/tmp/placeholder", "")
    for name, text in TOOLS.items():
        script(board.root / "usr/bin" / name, f"#!/bin/sh\n{text}\n")
    (board.root / "usr/bin/podman").write_text((programs / "podman").read_text())
    (board.root / "usr/bin/podman").chmod(0o755)
    return board


def put_hooks(cluster: Path, boards: Path) -> None:
    (cluster / "hooks").mkdir(parents=True)
    for name in ("prolog", "epilog", "health"):
        script(
            cluster / "hooks" / name,
            f'#!/bin/sh\nexport PIPELINE_HOST="{boards}/$SLURMD_NODENAME/board"\n'
            f'export FAKE_ROOT="$PIPELINE_HOST"\nexec {HOOKS}/{name}.sh\n',
        )
    idle_only = "HealthCheckNodeState=IDLE\n"  # as in configs/slurm/slurm.conf, and not ANY
    assert idle_only in (HOOKS / "slurm.conf").read_text()
    (cluster / "extra.conf").write_text(idle_only)


def state(node: str) -> str:
    """Its state and the reason."""
    told = scontrol("--oneliner", "show", "node", node)
    return told.partition("State=")[2].split(" ")[0] + " " + told.partition(" Reason=")[2].partition(" [")[0]


def resume(*nodes: str) -> None:
    for node in nodes:
        scontrol("update", f"nodename={node}", "state=resume")
    wait(lambda: all(state(each) == "IDLE " for each in nodes), 20, f"idle nodes: {nodes}")


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        (folder / "filled").write_bytes(b"0" * 1_000_000)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def sbatch(folder: Path, name: str, script_text: str, *options: str) -> Path:
    """Where the job's outputs go: there as soon as it runs."""
    output = folder / f"{name}.log"
    command = ["sbatch", f"--job-name={name}", f"--output={output}", "--no-requeue", "--exclusive", *options]
    subprocess.run(command, input=f"#!/bin/sh\n{script_text}\n", text=True, check=True, capture_output=True, cwd=folder)
    return output


def number_of(output: Path, says: str) -> str:
    """The job's own number, which its script says first."""
    wait(lambda: output.exists() and says in output.read_text(), 30, f"{output.name}: {says}")
    return output.read_text().split()[0]


def driven(folder: Path, key: str) -> list[Attempt]:
    """A run that the judge's own driver brings to its result. Slurm cancels a job whose prolog failed, since it may not
    queue it again; the driver queues another attempt."""
    command = ("env", f"PYTHONPATH={paths.ROOT}", sys.executable, str(SCENARIO), "work")
    driver = Driver(Slurm(None), folder / "runs", "j-hooks", lambda each: (*command, str(each)), {"node": 3}, 1.0)
    until_s = time.monotonic() + 60
    while driver.look([Wanted(key, 60.0, avoid=("orin1",))], window=1)[0].result is None:
        assert time.monotonic() < until_s, attempts.of_run(folder / "runs" / key)
        time.sleep(0.5)
    return attempts.of_run(folder / "runs" / key)


def ended() -> bool:
    return not subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout.strip()


def example(cluster: Path, folder: Path) -> None:
    """The example of a slurm.conf, with the names filled in and places of this test, is one that slurmctld takes."""
    here, own = (
        subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip(),
        folder / "own",
    )
    (own / "state").mkdir(parents=True)
    shutil.copy(HOOKS / "cgroup.conf", own)
    text = (HOOKS / "slurm.conf").read_text()
    port = int(re.findall(r"^SlurmctldPort=(\d+)", (cluster / "slurm.conf").read_text(), re.MULTILINE)[0]) + 10
    for old, new in (
        ("SlurmctldHost=HEAD", f"SlurmctldHost={here}(127.0.0.1)"), ("SlurmUser=slurm", "SlurmUser=root"),
        ("/var/spool/slurmctld", f"{own}/state"), ("/var/log/slurm", f"{own}"), ("/etc/slurm", f"{HOOKS}"),
        ("NodeName=BOARD[1-4]", "NodeName=BOARD[1-4] NodeAddr=127.0.0.1"),
    ):  # fmt: skip
        assert old in text, old
        text = text.replace(old, new)
    more = f"SlurmctldPort={port}\nSlurmctldPidFile={own}/pid\nAuthInfo=socket={cluster}/run/munge.socket\n"
    (own / "slurm.conf").write_text(text + more)
    with (folder / "own.log").open("w") as log:
        process = subprocess.Popen(["slurmctld", "-D", "-f", own / "slurm.conf"], stdout=log, stderr=log)
    try:
        known = {"SLURM_CONF": str(own / "slurm.conf")}
        ask = ["scontrol", "show", "config"]
        wait(lambda: subprocess.run(ask, env=os.environ | known, capture_output=True, check=False).returncode == 0, 10,
             "a controller of the example")  # fmt: skip
        told = subprocess.run(ask, env=os.environ | known, capture_output=True, text=True, check=True).stdout
        for name in ("prolog", "epilog", "health"):
            assert f"= {HOOKS}/{name}.sh\n" in told, told
            assert os.access(HOOKS / f"{name}.sh", os.X_OK)
        assert "Unable to parse" not in (folder / "own.log").read_text()
    finally:
        process.terminate()
        process.wait(timeout=20)
    say("the example of a slurm.conf starts a controller")


def health(boards: dict[str, FakeBoard]) -> None:
    """Each node drains itself for another reason, and stays so until a person resumes it."""
    one, two, three = (boards[node] for node in NODES)
    podman_of_one = one.root / "usr/bin/podman"
    kept = podman_of_one.read_text()
    script(podman_of_one, "#!/bin/sh\nexit 1\n")
    two.write("synchronized", "no")
    with full(three.root / "var/tmp"):
        drained = {"orin1": "IDLE+DRAIN containers", "orin2": "IDLE+DRAIN clock", "orin3": "IDLE+DRAIN disk"}
        wait(lambda: {each: state(each) for each in NODES} == drained, 20, f"nodes that drain themselves: {drained}")
    say(f"the health check drained {drained}")
    script(podman_of_one, kept)
    two.write("synchronized", "yes")
    resume(*NODES)


def prolog(boards: dict[str, FakeBoard], folder: Path) -> None:
    """A hot board keeps its job waiting; one in another power mode, or without walls, drains, and its job goes on."""
    hot = boards["orin1"]
    hot.write("sys/class/thermal/thermal_zone1/temp", 71500)
    waits = sbatch(folder, "waits", "echo $SLURM_JOB_ID runs", "--nodelist=orin1")
    log = hot.root / "var/log/slurm/prolog.log"
    walls = hot.root / "run/judge-walls-tried"
    wait(walls.exists, 20, "the walls of a container, tried")
    boards["orin2"].boot_into("MODE_30W")
    moved = driven(folder, "good1-r1")
    assert [(each.number, each.node) for each in moved] == [(1, None), (2, "orin3")], moved
    assert state("orin2") == "IDLE+DRAIN Prolog error", state("orin2")
    assert not waits.exists(), "it ran on a board of 71 degrees"
    hot.write("sys/class/thermal/thermal_zone1/temp", 51500)
    number_of(waits, "runs")
    told = log.read_text()
    assert "NV Power Mode: MAXN" in told, told
    assert "--show" in (hot.root / "jetson_clocks.log").read_text()
    assert (hot.root / "proc/sys/vm/drop_caches").read_text() == "1\n"
    say("the prolog waited for 60 degrees, recorded mode and clocks, dropped caches; another mode drained orin2")
    boards["orin2"].boot_into("MAXN")
    three = boards["orin3"].root
    (three / "run/judge-walls-tried").unlink()  # as a boot does
    kept = (three / "usr/bin/podman").read_text()
    writable = '[each for each in sys.argv[1:] if each != "--read-only"]'
    assert "[*map(found, sys.argv[1:])]" in kept
    script(three / "usr/bin/podman", kept.replace("[*map(found, sys.argv[1:])]", writable))
    wait(ended, 20, "the end of all jobs")
    resume("orin2")
    sbatch(folder, "no-walls", "echo $SLURM_JOB_ID runs", "--nodelist=orin3")
    wait(lambda: state("orin3") == "IDLE+DRAIN Prolog error", 20, "a node without walls that drains")
    assert "no walls" in (three / "var/log/slurm/prolog.log").read_text()
    assert not (folder / "no-walls.log").exists()
    subprocess.run(["scancel", "--name=no-walls"], check=True)
    script(three / "usr/bin/podman", kept)
    say("containers that could be written to drained orin3")
    wait(ended, 20, "the end of all jobs")
    resume("orin3")


def epilog(boards: dict[str, FakeBoard], folder: Path) -> None:
    """What the kernel says of a job that takes all its memory is kept with its number, and of no other job."""
    if not limited():
        return
    lines = {"memory.limit_in_bytes": 32 << 20} if ONE.is_dir() else {"memory.max": 32 << 20, "memory.swap.max": 0}
    limits = "\n".join(f"echo {value} > $group/{name}" for name, value in lines.items())
    hog = HOG.format(folder=ONE if ONE.is_dir() else ONE.parent, limits=limits, processes="cgroup.procs")
    memory = boards["orin1"].root / "var/log/slurm/memory.log"
    for name, text in (("before", "true"), ("hog", hog), ("behind", "true")):
        number = number_of(sbatch(folder, name, f"echo $SLURM_JOB_ID runs\n{text}", "--nodelist=orin1"), "runs")
        wait(ended, 30, "the end of all jobs")
        told = memory.read_text()
        if name == "hog":
            kept, hogs = told, number
            assert f"job {number} [" in told, told
            assert "Killed process" in told, told
    assert told == kept, told
    assert {line.split()[1] for line in told.splitlines()} == {hogs}, told
    say(f"the epilog kept {len(told.splitlines())} lines of the kernel on job {hogs}, and none on the others")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hooks-") as made:
        place = Path(made)
        os.environ["TMPDIR"] = made
        slurm.HANDED_ON += ("TMPDIR",)
        with podman_of(place) as programs:
            os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
            buildah("commit", "-q", busybox("sh", "sed", "touch"), IMAGE)
            boards = {node: board_of(place / "boards", node, programs) for node in NODES}
            put_hooks(place / "cluster", place / "boards")
            os.environ["HEALTH_S"] = "2"
            with cluster_of(place / "cluster"):
                wait(lambda: all(state(each) == "IDLE " for each in NODES), 20, "idle nodes")
                example(place / "cluster", place)
                health(boards)
                prolog(boards, place)
                epilog(boards, place)
            for node, board in boards.items():
                shown = (board.root / "var/log/slurm/prolog.log").read_text()
                print(
                    f"  {node}: {shlex.quote(shown[-200:])}" if "not found" in shown else f"  {node}: well", flush=True
                )
                assert "not found" not in shown, shown
            no_container_left()


if __name__ == "__main__":
    main()
