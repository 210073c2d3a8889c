"""`invoke judge` whole, with real containers of podman, on this machine or on a real Slurm cluster of three nodes.

    python tests/cluster/judged.py local slurm      one of them, or both; as root; .ci/cluster installs what it needs

Three runs each of submissions that are good, that crash, hang, take all memory, answer in another form or otherwise,
replay kept answers or look for a way out; a run's folder of a tiny model stands for what a model would compute.
Meanwhile the judge is killed three times at random moments and its shared folder, a file system of its own, is full for
a while; on the cluster slurmctld is killed 2 s after the first submissions and 12 s later again, one node crashes whole
while it runs one, one is drained. Afterwards: as many results as planned, each of its class, none twice, no attempt of
a settled run begun later, each verdict as it must be, no container left. The board is a folder; where the machine has
no memory controller, the hog is left out and that is said.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from containers import buildah, busybox, limited, made_folder, no_container_left, podman_of
from loopback import NODES, answers, cluster_of, order, resume_what_a_crash_drained, say, scontrol, wait

from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.judge import judge, plan, references
from pipeline.contest.ranking import leaderboard, page
from pipeline.contest.verify.again import checks as rerun_checks
from pipeline.errors import PipelineError
from pipeline.queues import attempts, slurm

# torch and what imports it are for the packing alone: a judge that is started again needs neither.
if TYPE_CHECKING:
    from support.audited import Ground

BEHAVE = Path(__file__).with_name("behave.sh")
REPEAT, LIMIT_S, BOARD_KB, SHARED = 3, 12.0, 400_000, "64m"
KINDS = {
    "good": "ok",
    "nosy": "ok",
    "crash": "did not start",
    "hang": "timeout",
    "hog": "out of memory",
    "form": "wrong form",
    "answers": "ok",
    "replay": "wrong answers",
}
FULL_S, CONTROLLER_S, SECOND_S = 8.0, 2.0, 12.0
"""For how long the judge's folder is full; when slurmctld is killed after the first submissions, and then again."""


def main(*kinds: str) -> None:
    assert kinds
    assert set(kinds) <= {"local", "slurm"}, kinds
    import torch
    from support import audited, fake_board

    # Not below /tmp/judge-…: those are the runs' own.
    with tempfile.TemporaryDirectory(prefix="judged-") as made:
        place = Path(made)
        with podman_of(place) as programs:
            os.environ |= {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(made_folder(place / "tmp"))}
            torch.set_num_threads(1)
            ground = audited.build(tiny(place / "tiny"), made_folder(place / "ground"))
            say("a good submission is made")
            behaviours = [each for each in KINDS if each != "hog" or limited()]
            packed = folder_of(ground, place, behaviours)
            say(f"{len(behaviours)} submissions are packed, with their images")
            board = fake_board.make(place / "board", mode="MAXN")
            board.lock_clocks()
            meminfo = board.root / "proc/meminfo"
            meminfo.write_text(f"MemTotal:       {BOARD_KB} kB\nMemAvailable:   {BOARD_KB} kB\n")
            os.environ["PIPELINE_HOST"] = str(board.root)
            # Both at once: most of either is waiting.
            with ThreadPoolExecutor() as both:
                done = [both.submit(judged, on, ground, packed, place, behaviours) for on in kinds]
            for each in done:
                each.result()
            no_container_left()


def judged(on: str, ground: Ground, packed: Path, place: Path, behaviours: list[str]) -> None:
    with shared(place / on) as received, cluster_of(place / "cluster") if on == "slurm" else nothing():
        shutil.copytree(packed, received, dirs_exist_ok=True)
        judging = Judging(on, ground, received, place)
        try:
            judging.run()
        except BaseException as error:
            say(f"{on} failed: {type(error).__name__}: {error}")
            print(judging.log.read_text()[-5000:], flush=True)
            raise
        finally:
            judging.process.kill()
            judging.process.wait()
        check(received, behaviours)
    say(f"passed on {on}")


def nothing() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[Path]:
    """A file system of its own, small enough to be filled."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SHARED}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


# ---- what is judged


def tiny(folder: Path) -> Path:
    from support.checkpoints import random_model

    from pipeline.model import fetch, lock

    random_model(folder, fetch.ensure("standin", lambda _: None), context=512)
    lock.verify(folder)
    return folder


def folder_of(ground: Ground, place: Path, behaviours: list[str]) -> Path:
    """A folder of archives, each with an image of its own here."""
    from support.drafts_of_submissions import Draft

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
        draft.make_papers()
        packed = draft.pack(made_folder(place / f"packed-{behaviour}"))
        shutil.move(packed, place / "own.tar" if behaviour == "own" else received / f"{behaviour}.tar")
    return received


def image_of(kept: Path, wrong: Path) -> str:
    """A container to commit images from: busybox, the program, runs to hand out."""
    base = busybox("sh", "cat", "sleep", "cp", "awk", "ls", "mkdir")
    buildah("copy", "-q", base, str(BEHAVE), "/behave.sh")
    buildah("copy", "-q", base, str(kept), "/kept")
    buildah("copy", "-q", base, str(wrong), "/kept-wrong")
    buildah("config", "--entrypoint", '["/bin/sh", "/behave.sh"]', "--cmd", "", base)
    return base


# ---- the judge, and what befalls it


def drive(told: dict[str, Any]) -> None:
    """One judge, as `invoke judge` calls it, with shorter limits and waits."""
    slurm.PATIENCE_S = 5.0  # a controller that was killed while it answered leaves squeue waiting
    slurm.HANDED_ON += ("TMPDIR",)  # all that jobs leave lies in the test's own folder
    on, received = told["on"], Path(told["received"])
    organiser = Organiser(Path(told["data"]), Path(told["reference"]), told["model"], Path(told["checkout"]))
    quick = mock.patch.multiple(plan, LIMIT_FACTOR=0.0, LIMIT_MORE_S=LIMIT_S)
    # A busy machine is late by more than a tiny run takes.
    late = mock.patch.multiple(rerun_checks, CLOCK_S=3.0, DIFFERENT=30.0)
    with quick, late, mock.patch.object(references, "DRIFT", 30.0):
        own = Path(told["own"]) if on == "slurm" else None
        asked = judge.request(received, Path(told["data"]), REPEAT, on, "", own, "")
        asked = judge.Request(**{**vars(asked), "period_s": 0.4, "grace_s": 4.0})
        verdicts = judge.judge(asked, organiser, lambda line: print(f"  {line}", flush=True))
    assert len(verdicts) == len(list(received.glob("*.tar")))


class Judging:
    """A judge that is started again whenever it was killed, and the troubles of its farm, each at its moment."""

    def __init__(self, on: str, ground: Ground, received: Path, place: Path) -> None:
        self.on, self.received, self.cluster = on, received, place / "cluster"
        self.log = place / f"{on}.log"
        told = {
            "on": on, "received": received, "data": ground.data, "reference": ground.reference, "model": ground.model,
            "checkout": ground.light_organiser.checkout, "own": place / "own.tar",
        }  # fmt: skip
        self.told = json.dumps({name: str(value) for name, value in told.items()})
        self.chance = random.Random(17)
        self.process = self.started()

    def started(self) -> subprocess.Popen[bytes]:
        """Once it goes on: a controller that was just killed may refuse it, and then it is called again."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, "drive", self.told], stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return process

    def say(self, text: str) -> None:
        say(f"{self.on}: {text}")

    def run(self) -> None:
        self.refuse_a_second()
        wait(lambda: self.submitted() or self.has_failed(), 120, "the first submissions")
        with ThreadPoolExecutor() as beside:
            farm = beside.submit(self.trouble_the_farm if self.on == "slurm" else lambda: None)
            for trouble in (self.kill, self.kill, self.fill, self.kill):
                time.sleep(self.chance.uniform(1.0, 5.0))
                trouble()
            wait(lambda: self.has_ended() and farm.done(), 300, "the end of the judge")
            farm.result()

    def trouble_the_farm(self) -> None:
        began_s = time.monotonic()
        for at_s in (CONTROLLER_S, CONTROLLER_S + SECOND_S):
            time.sleep(max(0.0, began_s + at_s - time.monotonic()))
            order("kill", self.cluster, "slurmctld")
            order("daemon", self.cluster, "slurmctld")
            wait(answers, 20, "the controller")
            self.say(f"slurmctld killed {at_s:g} s after the first submissions, and started again")
        self.crash_a_node()

    def submitted(self) -> bool:
        return any(self.received.glob(f"judge/runs/*/attempt-*/{attempts.INTENT}"))

    def has_failed(self) -> bool:
        assert self.process.poll() in (None, 0), self.log.read_text()[-3000:]
        return False

    def has_ended(self) -> bool:
        """Looks after judge and farm meanwhile, as people do."""
        if self.on == "slurm":
            resume_what_a_crash_drained(*NODES)
        status = self.process.poll()
        if status not in (None, 0):
            said = self.log.read_text()[-3000:]
            assert re.search(r"^(E632|E633|E634|R\d{3}) ", said, re.MULTILINE), said
            time.sleep(1)
            self.process = self.started()
        return status == 0

    def refuse_a_second(self) -> None:
        wait((self.received / "judge/owner.json").exists, 60, "the first judge")
        second = subprocess.run(
            [sys.executable, __file__, "drive", self.told], capture_output=True, text=True, check=False
        )
        assert second.returncode == 1, second
        assert "U732" in second.stderr, second
        self.say("a second judge was refused")

    def settled(self) -> int:
        return len(list(self.received.glob("judge/runs/*/result.json")))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.say(f"the judge killed, {self.settled()} settled")
        self.process = self.started()

    def fill(self) -> None:
        """Not a byte is left on the shared folder for as long as several runs take, and then there is room again."""
        filling, outcomes = self.received / "filling", []
        until_s = time.monotonic() + FULL_S
        with filling.open("wb", buffering=0) as file:
            while time.monotonic() < until_s:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"0" * 4096)
                outcomes.append(len(list(self.received.glob(f"judge/runs/*/attempt-*/{attempts.OUTCOME}"))))
                time.sleep(0.1)
        filling.unlink()
        self.say(
            f"the shared folder was full for {FULL_S:g} s, {outcomes[-1] - outcomes[10]} outcomes written meanwhile"
        )
        assert outcomes[-1] == outcomes[10], "it was not full"

    def crash_a_node(self) -> None:
        """With its containers, as a power cut would, while one of its runs goes on; another is drained meanwhile."""
        found: list[tuple[Path, str]] = []
        for _ in range(8):
            found.clear()
            wait(
                lambda: resume_what_a_crash_drained(*NODES) or found.extend(self.going_on()) or found,
                90,
                "a run that goes on",
            )
            attempt, node = found[0]
            order("crash", self.cluster, node)
            hit = end_containers(node) and not (attempt / attempts.OUTCOME).exists()
            if hit:
                break
            order("daemon", self.cluster, node)
        assert hit, "no crash met a container"
        drained = next(each for each in NODES if each != node)
        scontrol("update", f"nodename={drained}", "state=drain", "reason=test")
        self.say(f"{node} crashed while it ran {attempt.parent.name}, {drained} drained")
        time.sleep(3)
        end_containers(node)  # one that was being made
        order("daemon", self.cluster, node)
        scontrol("update", f"nodename={drained}", "state=resume")

    def going_on(self) -> list[tuple[Path, str]]:
        """Attempts without an outcome, with their nodes, where a container runs."""
        tried = [each for run in self.received.glob("judge/runs/*") for each in attempts.of_run(run)]
        found = [(each.folder, each.started) for each in tried if each.started and not each.outcome]
        return [(folder, told["node"]) for folder, told in found if containers_on(told["node"])]


def containers_on(node: str, *options: str) -> list[str]:
    ask = ["podman", "ps", "--quiet", "--filter", f"label=node={node}", *options]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()


def end_containers(node: str) -> int:
    """How many there were."""
    there = containers_on(node, "--all")
    for each in there:
        # Or it has gone meanwhile.
        subprocess.run(["podman", "rm", "--force", "--time=0", each], check=False, capture_output=True)
    return len(there)


# ---- afterwards


def check(received: Path, behaviours: list[str]) -> None:
    place = received / "judge"
    made = plan.read(place)
    assert made is not None
    kinds: dict[str, Counter[str]] = {}
    assert len(made.order) == REPEAT * len(behaviours)
    assert len(list(place.glob(f"runs/*-r?/{attempts.RESULT}"))) == len(made.order)
    begun = 0
    for key in made.order:
        run = place / "runs" / key
        result, tried = attempts.result(run), attempts.of_run(run)
        assert result is not None, key
        kinds.setdefault(Path(made.entry(key).file).stem, Counter())[result["kind"]] += 1
        told = (run / attempts.RESULT).stat()
        same = [path for path in run.glob(f"*/{attempts.OUTCOME}") if path.stat().st_ino == told.st_ino]
        assert len(same) == 1, f"{key} has no outcome that is its result"
        late = [each.number for each in tried if each.started and each.started["at_s"] > told.st_ctime]
        assert not late, f"attempts {late} of {key} began when it was settled"
        begun += sum(each.started is not None for each in tried)
    expected = {name: Counter({KINDS[name]: REPEAT}) for name in behaviours}
    hung = kinds["hang"]["timeout"]
    assert hung >= 1, kinds
    expected["hang"] = Counter({"timeout": hung}) + Counter({"not run": REPEAT - hung})
    why = [(path.parent.name, path.parent.parent.name, path.read_text()[-300:])
           for path in sorted(place.glob("runs/*/attempt-*/stderr"))]  # fmt: skip
    assert kinds == expected, (kinds, why)
    told_of = {name: json.loads((received / f"{name}.verdict/verdict.json").read_text()) for name in behaviours}
    found = {name: (each["verdict"], each["reasons"]) for name, each in told_of.items()}
    valid = {name for name, (verdict, _) in found.items() if verdict == "VALID"}
    assert valid == {"good", "nosy"} & set(behaviours), found
    assert {verdict for name, (verdict, _) in found.items() if name not in valid} == {"INVALID"}, found
    assert "a hole" not in "".join(path.read_text() for path in place.glob("runs/*/attempt-*/stdout"))
    ranked = leaderboard.make(received)
    (table,) = ranked.tables
    assert {entry.ranked.team for entry in table.entries} == {f"Team {name}" for name in valid}
    print(page.text(ranked), flush=True)
    counted = ", ".join(f"{name} {dict(each)}" for name, each in sorted(kinds.items()))
    say(f"{received.name}: {len(made.order)} results of {begun} attempts that began: {counted}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["drive", told]:
            try:
                drive(json.loads(told))
            except PipelineError as error:
                sys.exit(f"{error.code} {error}")
        case kinds:
            main(*kinds)
