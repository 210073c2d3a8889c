"""A folder of submissions to judge, good ones and bad ones, and a docker in which each does what it is told.

The docker is a script first on the PATH: it knows an image by its name's tag and hands out a prepared run, or does not.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.audited import DIGEST, Ground
from support.drafts_of_submissions import Draft

DOCKER = f"""#!{sys.executable}
import json, pathlib, shutil, sys, time
here, said = pathlib.Path(__file__).parent, sys.argv[1:]
images = json.loads((here / "images.json").read_text())
if said[0] == "info":
    print("{{}}")
if said[:2] == ["image", "inspect"]:
    behaviour = said[-1].rpartition(":")[2]
    if behaviour not in images:
        sys.exit(1)
    print("sha256:" + images[behaviour] * 64, json.dumps(["x@{DIGEST}"]), "null")
if said[0] == "run":
    id = next(each for each in said if each.startswith("sha256:"))
    behaviour = next(name for name, digit in images.items() if id == "sha256:" + digit * 64)
    runs = pathlib.Path(next(each for each in said if each.endswith(":/runs")).split(":")[0])
    handed = next(each for each in said if each.endswith(":/data:ro")).split(":")[0]
    data = pathlib.Path(handed) / pathlib.Path(said[said.index("--dataset") + 1]).name
    with open(here / "called", "a") as file:
        file.write(behaviour + "\\n")
    if behaviour == "crash":
        sys.exit("it fell over")
    if behaviour == "hang":
        time.sleep(60)
    if behaviour == "replay":
        shutil.copytree(here / "result", runs / "20241006T120000-x")
        time.sleep(0.1)
    data.read_bytes()
    time.sleep(json.loads((here / "took_s").read_text()))
    if behaviour != "replay":
        other = here / f"result-{{behaviour}}"
        shutil.copytree(other if other.exists() else here / "result", runs / "20241006T120000-x")
"""
BEHAVIOURS = {name: str(digit) for digit, name in enumerate(["good", "better", "crash", "hang", "form", "answers",
                                                               "replay"], 1)}  # fmt: skip


@dataclass(frozen=True)
class Folder:
    path: Path
    docker: Path
    files: dict[str, str]
    """Behaviour to the name of its tar file."""

    @property
    def called(self) -> list[str]:
        path = self.docker / "called"
        return path.read_text().split() if path.exists() else []

    def verdict(self, behaviour: str) -> dict[str, Any]:
        folder = self.path / f"{self.files[behaviour].removesuffix('.tar')}.verdict"
        return json.loads((folder / "verdict.json").read_text())


def build(ground: Ground, path: Path, *behaviours: str) -> Folder:
    docker, received = path / "docker", path / "received"
    docker.mkdir(parents=True)
    received.mkdir()
    shutil.copytree(ground.run, docker / "result")
    manifest = json.loads((docker / "result/manifest.json").read_text())
    manifest["code"]["commit"] = ground.light_organiser_commit
    (docker / "result/manifest.json").write_text(json.dumps(manifest))
    outputs = (docker / "result/outputs.jsonl").read_text()
    others = {"form": "nothing that pipe() returns",
              "answers": outputs.replace('"generated_text": "', '"generated_text": "x', 1)}  # fmt: skip
    for behaviour, content in others.items():
        shutil.copytree(docker / "result", docker / f"result-{behaviour}")
        (docker / f"result-{behaviour}/outputs.jsonl").write_text(content)
    (docker / "took_s").write_text(json.dumps(manifest["elapsed_s"]))
    (docker / "images.json").write_text(json.dumps(BEHAVIOURS))
    (docker / "docker").write_text(DOCKER)
    (docker / "docker").chmod(0o755)
    files = {}
    for behaviour in behaviours:
        draft = Draft.of(ground.light)
        draft.submission["team"] = {"name": f"Team {behaviour}", "members": [f"{behaviour} one"]}
        draft.submission["image"]["reference"] = f"blue/phi3:{behaviour}"
        draft.make_papers()
        packed = draft.pack(path / "packed" / behaviour)
        files[behaviour] = f"{behaviour}-{packed.name}"
        shutil.move(packed, received / files[behaviour])
    return Folder(received, docker, files)
