"""`invoke run --shards` and `invoke evaluate --shards` on a real Slurm of three nodes: the bytes of one process.

    python tests/cluster/shards.py      as root; .ci/cluster installs what it needs

A random model of two layers answers. The node of one shard is crashed while it answers: another attempt, on another
node, keeps its whole answers. Then what came of it is spoilt in each way that is to be refused. What goes through Slurm
is started by the commands that a user calls, but for shorter waits between two looks at it; all else in this process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loopback import NODES, cluster_of, order, say, scontrol, wait
from support.checkpoints import random_model
from support.rows import write_rows

from pipeline import paths
from pipeline.errors import IntegrityError
from pipeline.model import fetch, lock
from pipeline.queues import attempts, slurm
from pipeline.record.outputs import ANSWERS, NAME
from pipeline.runs import evaluate, resume, timed
from pipeline.runs.evaluate import Evaluation
from pipeline.runs.request import Request, begin
from pipeline.runs.shards import merge, plan, sharded
from pipeline.runs.shards.sharded import How

ROWS, LIMIT, TOKENS, KEPT = 1500, 40, 4, 40
SETS = ("obqa", "gsm8k-test")
COMMAND = """
import sys
from invoke import main
from pipeline.queues import slurm
from pipeline.runs.shards import drive
slurm.HANDED_ON += ("TMPDIR",)  # all that jobs leave lies in the test's own folder
drive.PERIOD_S, drive.GRACE_S = {"slurm": 0.5}, {"slurm": 4.0}
sys.argv = ["invoke", *sys.argv[1:]]
main.program.run()
"""


def invoked(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)], cwd=paths.ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def only(pattern: str) -> Path:
    (found,) = paths.runs().glob(pattern)
    return found


def begun(pattern: str, rows: int) -> Path | None:
    """The attempt of a first shard that has so many whole answers."""
    found = [path for path in paths.runs().glob(pattern) if path.read_bytes().count(b"\n") >= rows]
    return found[0].parents[1] if found else None


def crash_one(process: subprocess.Popen[str], folder: Path, pattern: str, rows: int) -> str:
    """Crash the node of an attempt that has begun to answer, and bring it up again, as its owner would."""
    wait(lambda: begun(pattern, rows) or process.poll() is not None, 60, "answers of a shard")
    attempt = begun(pattern, rows)
    assert attempt is not None, ended(process)
    told = attempts.read(attempt / attempts.STARTED)
    assert told is not None
    order("crash", folder, told["node"])
    assert attempts.read(attempt / attempts.OUTCOME) is None, "it had ended before: more rows are needed"
    say(f"{told['node']} crashed while it answered {attempt.parent.name}")
    order("daemon", folder, told["node"])
    return str(told["node"])


def all_idle() -> None:
    for node in NODES:
        if "State=DOWN" in scontrol("show", "node", node):
            scontrol("update", f"nodename={node}", "state=resume")
    wait(lambda: all("State=IDLE " in scontrol("show", "node", each) for each in NODES), 30, "three idle nodes")


def a_run(model: Path, folder: Path, place: Path) -> tuple[Path, bytes]:
    """The run's folder, and its manifest as it was before the shards were merged."""
    data = write_rows(place / "many.jsonl", ROWS)
    alone = timed.run(Request(str(data), str(model), max_new_tokens=TOKENS), lambda _: None).folder
    say(f"{ROWS} rows answered by one process")
    options = ["--dataset", data, "--model", model, "--max-new-tokens", TOKENS]
    process = invoked("run", *options, "--shards", 3, "--on", "slurm", "--partition", "orin")
    node = crash_one(process, folder, "*-shards/shards/runs/s*/attempt-1/*/outputs.jsonl", KEPT)
    begun_as = only("*-shards/manifest.json").read_bytes()
    said = ended(process)
    assert "no time that counts" in said, said
    assert "answers kept" in said, said
    whole = only("*-shards")
    assert (whole / ANSWERS).read_bytes() == (alone / ANSWERS).read_bytes()
    told = json.loads((whole / "manifest.json").read_text())
    kept = [each["kept"] for each in told["shards"]["each"]]
    assert max(kept) >= KEPT, kept
    ran_on = {each: [one.node for one in attempts.of_run(whole / f"shards/runs/s{each}-t1")] for each in (1, 2, 3)}
    (twice,) = (nodes for nodes in ran_on.values() if len(nodes) > 1)
    assert twice[0] == node, ran_on
    assert twice[1] != node, ran_on
    say(f"answered in 3 shards by {ran_on}: the same bytes, {sum(kept)} answers kept")
    return whole, begun_as


def an_evaluation(model: Path) -> None:
    asked = Evaluation(SETS, model=str(model), limit=LIMIT, max_new_tokens=TOKENS)
    first = evaluate.begin(asked)
    results = evaluate.evaluate(asked, first, False, lambda _: None)
    say(f"{LIMIT} rows of {len(SETS)} sets answered by one process")
    all_idle()
    options = ["--sets", ",".join(SETS), "--model", model, "--limit", LIMIT, "--max-new-tokens", TOKENS]
    ended(invoked("evaluate", *options, "--shards", 3, "--on", "slurm"))
    (second,) = set(paths.runs().glob("*-evaluate-*")) - {first}
    for name in SETS:
        a, b = (each / f"{name}-ours" / ANSWERS for each in (first, second))
        assert a.read_bytes() == b.read_bytes(), name
    told = json.loads((second / "results.json").read_text())["results"]
    assert [each["correct"] for each in told] == [each.verdicts.correct for each in results], told
    say("the same in 3 shards: the same bytes")


# ---- what is refused


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def told_otherwise(key: str, inner: dict[str, Any]) -> Callable[[Path, Path], None]:
    def change(own: Path, other: Path) -> None:
        path = own / "manifest.json"
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, key: {**told[key], **inner}}))

    return change


def rows(change: Callable[[list[str], list[str]], list[str]]) -> Callable[[Path, Path], None]:
    def spoil(own: Path, other: Path) -> None:
        (own / NAME).write_text("".join(change(lines(own / NAME), lines(other / NAME))))

    return spoil


REFUSED = {
    "a row is missing": ("M742", rows(lambda own, other: own[:-1])),
    "a row is doubled": ("M741", rows(lambda own, other: [*own, own[0]])),
    "a row of another shard": ("M742", rows(lambda own, other: [*own, other[0]])),
    "a row of no shard": ("M742", rows(lambda own, other: [*own, own[0].replace('"index": ', '"index": 9000')])),
    "half a row": ("M741", rows(lambda own, other: [*own[:-1], own[-1][:-3]])),
    "another GPU": ("M743", told_otherwise("environment", {"gpu": "NVIDIA H100"})),
    "other packages": ("M743", told_otherwise("environment", {"packages": {"torch": "1.0"}})),
    "other weights": ("M743", told_otherwise("weights", {"lock_sha256": "0" * 64})),
    "another commit": ("M743", told_otherwise("code", {"commit": "0" * 40})),
}  # fmt: skip


def refusals(whole: Path, place: Path) -> None:
    for name, (code, spoil) in REFUSED.items():
        folder = shutil.copytree(whole / "shards", place / "spoilt")
        made = plan.read(folder)
        assert made is not None
        (part,) = made.parts
        places = []
        for number in (1, 2, 3):
            result = attempts.result(folder / f"runs/s{number}-t1")
            assert result is not None
            places.append(folder / f"runs/s{number}-t1" / result["attempt"] / part.name)
        merge.check(part, [merge.read(each, number) for number, each in enumerate(places, 1)])
        spoil(places[1], places[0])
        with pytest.raises(IntegrityError) as caught:
            merge.check(part, [merge.read(each, number) for number, each in enumerate(places, 1)])
        assert caught.value.code == code, (name, caught.value)
        shutil.rmtree(folder)
    say(f"refused: {', '.join(REFUSED)}")


def gone_on_with(whole: Path, begun_as: bytes) -> None:
    """The same where a user meets it: a run whose merge is still to come, gone on with; and with it set right."""
    answers = (whole / ANSWERS).read_bytes()
    (whole / ANSWERS).unlink()
    (whole / NAME).unlink(missing_ok=True)
    (whole / "manifest.json").write_bytes(begun_as)
    result = attempts.result(whole / "shards/runs/s2-t1")
    assert result is not None
    manifest = whole / "shards/runs/s2-t1" / result["attempt"] / "many/manifest.json"
    before = manifest.read_bytes()
    told_otherwise("environment", {"gpu": "NVIDIA H100"})(manifest.parent, manifest.parent)
    unfinished = resume.find(whole.name, Request())
    looked = begin(unfinished.request)
    with pytest.raises(IntegrityError) as caught:
        sharded.run(unfinished.request, looked, How(None, "slurm"), lambda _: None, unfinished)
    assert caught.value.code == "M743", caught.value
    manifest.write_bytes(before)
    sharded.run(unfinished.request, looked, How(None, "slurm"), lambda _: None, unfinished)
    assert (whole / ANSWERS).read_bytes() == answers
    say("gone on with: refused while a shard is of another GPU, merged when it is not")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="shards-") as made:
        place = Path(made)
        os.environ |= {"PIPELINE_RUNS": str(place / "runs"), "OMP_NUM_THREADS": "1", "TMPDIR": made}
        slurm.HANDED_ON += ("TMPDIR",)
        torch.set_num_threads(1)
        model = random_model(place / "tiny", fetch.ensure("standin", lambda _: None), context=512)
        lock.verify(model)
        say("a random model is made")
        with cluster_of(place / "cluster"):
            whole, begun_as = a_run(model, place / "cluster", place)
            refusals(whole, place)
            gone_on_with(whole, begun_as)
            an_evaluation(model)


if __name__ == "__main__":
    main()
