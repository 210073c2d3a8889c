"""`invoke verify --rerun` on real containers of podman, offline: an honest image, and one that cheats in ten ways.

    python tests/image/rerun.py IMAGE HOSTILE RUN DATA MODEL

RUN is a good run's folder on DATA and MODEL, made outside. check.sh makes the images and says where they are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.contest.checks import read_submitted
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.submitted import Submission, Submitted
from pipeline.contest.rerun.measure import Caps
from pipeline.contest.verify import rerun
from pipeline.contest.verify.again import process as rerun_process
from pipeline.process import answering_program, docker_output

TRICKS = {
    1: ("a kept run", "rerun-clock", "were measured"),
    2: ("placeholders first", "rerun", "written over"),
    3: ("state between repeats", "rerun-clock", "were measured"),
    4: ("opens the pipe twice", "rerun-clock", "were measured"),
    5: ("writes into the pipe", "rerun-clock", "were measured"),
    6: ("opens the network", "rerun-clock", "were measured"),
    7: ("fills the disk", "rerun", "filled /runs"),
    8: ("never ends", "rerun", "of its last answer"),
    9: ("forks without end", "rerun", "no end within"),
    10: ("takes all memory", "rerun", "out of memory"),
}
"""Number in hostile.sh to its name, the check that must fail, and a part of what it says."""
HARMLESS = {3: "state of an earlier run", 4: "opened twice", 6: "a network", 7: "an interface"}
"""What hostile.sh would print if a wall had a hole."""


def claims(run: Path, image: str, **arguments: Any) -> Submitted:
    """The claims of a submission of this run with this image."""
    manifest, answers = read_submitted.read_manifest(run)[0], read_submitted.read_answers(run)[0]
    digest = (docker_output("image", "inspect", "--format", "{{.Id}}", image) or "").strip()
    digest = digest if digest.startswith("sha256:") else f"sha256:{digest}"
    commit = docker_output(
        "image", "inspect", "--format", '{{index .Labels "org.opencontainers.image.revision"}}', image
    )
    told = {
        "schema": 1, "rehearsal": True, "team": {"name": "Blue", "members": []}, "run": run.name,
        "commit": (commit or "").strip() or "0" * 40, "model": manifest.model.model_dump(),
        "dataset": manifest.dataset.model_dump(), "image": {"reference": image, "digest": digest},
        "declarations": {}, "files": {},
    }  # fmt: skip
    manifest = manifest.model_copy(update={"arguments": {**manifest.arguments, **arguments}})
    return Submitted(run, Submission.model_validate(told), manifest, answers)


def again(told: Submitted, organiser: Organiser, out: Path, times: int) -> rerun.Rerun:
    unpacked: Any = SimpleNamespace(folder=out)
    return rerun.rerun(told, unpacked, organiser, rerun.Request(times, here=False), out)


def main(image: str, hostile: str, run: Path, data: Path, model: Path) -> None:
    assert answering_program() == "podman"
    organiser = Organiser(data, None, str(model))
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        done = again(claims(run, image), organiser, Path(folder), times=3)
        states = {each.id: (each.state, each.found) for each in done.checks}
        print(json.dumps({**states, "elapsed_s": done.elapsed_s, "took_s": time.monotonic() - began}, indent=1))
        assert len(done.elapsed_s) == 3, done.as_json()
        assert {id for id, (state, _) in states.items() if state != "ok"} == {
            "rerun-time"
        }  # not on the contest's board
        assert states["rerun-time"][0] == "human"
        fresh = Path(folder) / "fresh.jsonl"
        fresh.write_text("".join(reversed(data.read_text().splitlines(keepends=True)[:3])))
        done = again(claims(run, image), Organiser(fresh, None, str(model)), Path(folder), times=1)
        assert {each.id for each in done.checks if each.state != "ok"} == set(), done.checks
        print("fresh data:", next(each.found for each in done.checks if each.id == "rerun-time"))
    rerun.Caps = lambda limit_s: Caps(limit_s=20.0, end_s=3.0, runs_bytes=64 << 20)  # type: ignore[assignment,misc]
    rerun_process.memory_bytes = lambda host: 256 << 20
    for trick, (name, check, why) in TRICKS.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            told = claims(run, hostile, max_new_tokens=trick)
            told = replace(told, submission=told.submission.model_copy(update={"commit": told.manifest.code.commit}))
            done = again(told, organiser, Path(folder), times=2 if trick == 3 else 1)
            failed = {each.id: each.found for each in done.checks if each.state == "fail"}
            print(f"{trick} {name}: {time.monotonic() - began:.1f} s: {failed}")
            assert why in failed.get(check, ""), (done.as_json(), list(done.checks))
            said = "".join(one.stdout_tail for one in done.runs)
            assert not any(hole in said for hole in HARMLESS.values()), said
        left = subprocess.run(["podman", "ps", "-aq"], capture_output=True, text=True, check=True).stdout
        assert not left.strip(), f"left after {name}: {left}"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
