"""One good submission, and the organiser's side to verify it with: what the audit starts from.

A tiny model stands where Phi-3-medium would, and a folder where the contest's board would; all else is real: a run made
by `invoke run` in a clone, the reference run, the packer.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import fake_board, papers
from support.drafts_of_submissions import Draft, source_of
from support.rows import write_rows
from support.submissions import Clone, change_manifest, clone

from pipeline import paths
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.rules import evidence, rules
from pipeline.contest.rules.evidence import Evidence
from pipeline.contest.source import sbom, third_party
from pipeline.contest.submit import pack, redact
from pipeline.contest.team import Team, TeamWords
from pipeline.contest.verify import run_figures, verify
from pipeline.contest.verify.verify import Verdict
from pipeline.model import lock
from pipeline.record import run_folder
from pipeline.record.outputs import read_outputs
from pipeline.runs import timed as running
from pipeline.runs.request import Request

ROWS = 6
WRONG = 4
"""A row whose answer in the file is another one."""
DIGEST = f"sha256:{'ab' * 32}"
DECLARED = {rule.id: True for rule in rules.load().rules if rule.by == "declaration"}
OF_THE_BOARD = {"machine": "aarch64", "processor": "ARMv8 Processor rev 1 (v8l)", "cores": 8}
NO_NETWORK = {"interfaces": [], "received_bytes": 0, "sent_bytes": 0}
"""As a run in our container sees it."""


METHOD = """# {{ team }}: how {{ prompts }} prompts are answered in {{ time_s }} s

Model {{ model }}, commit `{{ commit }}`: {{ right }} of {{ scored }}, {{ share }}, {{ peak_memory }}.

"""
METHOD += "Words of an explanation. " * 50
LIGHT_SOURCE = {
    "THIRD_PARTY.yaml": "code: []\nideas: []\nmodels: []\ndata: []\npackages:\n"
    "  - {name: numpy, licence: BSD-3-Clause, source: https://numpy.org, use: arrays, imports: [numpy]}\n",
    "tasks.py": "import json\nimport numpy\nfrom pipeline import inner\n",
    "pipeline/inner.py": '"""Ours."""\n',
    "pipeline/check.sh": "#!/bin/sh\n",
    "test_script.py": (paths.ROOT / "test_script.py").read_text(encoding="utf-8"),
    "docs/method.md": METHOD,
}
"""A source tree that is checked in no time, for the many that are no good."""


@dataclass(frozen=True)
class Ground:
    tar: Path
    """The good submission."""
    light: Path
    """The same with a source of a few lines: as good, and sooner verified."""
    light_organiser: Organiser
    organiser: Organiser
    data: Path
    model: Path
    reference: Path
    run: Path
    clone: Clone
    light_organiser_commit: str

    def organiser_of(self, checkout: Path) -> Organiser:
        """The organiser's data, model and reference, and another checkout."""
        return Organiser(self.data, self.reference, str(self.model), checkout)


def build(tiny: Path, folder: Path) -> Ground:
    board = fake_board.make(folder / "place", mode="MAXN")
    board.lock_clocks()
    model = folder / "phi3-medium"
    shutil.copytree(tiny, model)
    (model / "lock.json").unlink()
    # Random answers end soon, each at another length, when every eighth token ends them.
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(0, 49152, 8))}))
    lock.verify(model)
    checkout = clone(folder / "checkout")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PIPELINE_RUNS", str(folder / "runs"))
        for name, value in board.environment().items():
            patched.setenv(name, value)
        data = write_rows(folder / "rows.jsonl", ROWS)
        answer(data, running.run(Request(str(data), str(model), "reference"), lambda _: None).folder)
        reference = running.run(Request(str(data), str(model), "reference"), lambda _: None).folder
        done = checkout.invoke("run", "--dataset", data, "--model", model, "--repeat", 2)
    assert done.returncode == 0, done.stderr
    told = run_folder.read_manifest(checkout.run)
    change_manifest(
        checkout.run,
        network=NO_NETWORK,
        environment={**told["environment"], **OF_THE_BOARD},
        telemetry={**told["telemetry"], "others_share": 0.01},
    )
    source = {name: (checkout.path / name).read_bytes() for name in (third_party.NAME, *sbom.LOCKS)}
    team = Team(name="Blue", members=("Kim", "Lee"), image="blue/phi3:1", declarations=DECLARED)
    told = run_folder.read_manifest(checkout.run)
    about = run_figures.About(team, checkout.run.name, told["code"]["commit"], 0, False, None, team.image)
    documents = papers.make(told, source, about)
    image = pack.Image("blue/phi3:1", DIGEST)
    packed = {"checkout": checkout.path, "image": image, "names": redact.Names(), "documents": documents}
    tar = pack.pack(checkout.run, team, folder / "dist", **packed)
    light_checkout = _light(folder / "light")
    draft = Draft.of(tar)
    commit = light_checkout.git("rev-parse", "HEAD")
    draft.submission["commit"] = draft.manifest["code"]["commit"] = commit
    archived = light_checkout.git("-c", "tar.umask=0022", "archive", "--format=tar", "--output=../light.tar", "HEAD")
    assert archived == ""
    draft.files["source.tar"] = (folder / "light.tar").read_bytes()
    source = {name: content for name, (_, content) in source_of(draft).items()}
    draft.files |= papers.make(draft.manifest, source, papers.about(draft.submission))
    return Ground(
        tar=tar,
        light=draft.pack(folder / "dist"),
        light_organiser=Organiser(data, reference, str(model), light_checkout.path),
        organiser=Organiser(data, reference, str(model), checkout.path),
        data=data,
        model=model,
        reference=reference,
        run=checkout.run,
        clone=checkout,
        light_organiser_commit=commit,
    )


def _light(folder: Path) -> Clone:
    for name, text in LIGHT_SOURCE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "pipeline/check.sh").chmod(0o755)
    made = Clone(folder)
    made.git("init", "--quiet", "--initial-branch=main")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "All")
    return made


def answer(data: Path, run: Path) -> None:
    """Make what the reference said the right answers, but for one row."""
    said = [row["output"][0]["generated_text"].lstrip().replace("\n", "") for row in read_outputs(run)]
    lines = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    for index, (line, text) in enumerate(zip(lines, said, strict=True)):
        line["answer"] = "another one" if index == WRONG else text or "nothing"
    data.write_text("".join(json.dumps(line) + os.linesep for line in lines), encoding="utf-8")


def verified(tar: Path, ground: Ground) -> Verdict:
    """By the light organiser, the verdict's folder beside the tar; no check may have failed itself."""
    verdict = verify.verify(tar, ground.light_organiser, out=tar.parent / "verdict")
    assert verdict.trouble == ""
    return verdict


def in_state(verdict: Verdict, state: str) -> set[str]:
    return {each.id for each in verdict.checks if each.state == state}


def evidence_of(
    draft: Draft, ground: Ground, folder: Path, *, rehearsal: bool = False, doubt: str | None = None
) -> Evidence:
    """A draft's run as its team's own `invoke rules` sees it, with what the light organiser has."""
    run = folder / "run"
    run.mkdir(parents=True)
    for name, content in draft.contents().items():
        if name.startswith("run/"):
            (folder / name).write_bytes(content)
    try:
        files = {name: content for name, (_, content) in source_of(draft).items()}
    except tarfile.TarError:
        files = {}
    told = draft.submission
    reference = told["image"]["reference"]
    team = TeamWords(told["team"]["name"], tuple(told["team"]["members"]), told["declarations"], reference)
    known = {"team": team, "image_digest": told["image"]["digest"], "arguments": evidence.arguments()}
    made = evidence.Made(files, doubt)
    return evidence.of_run(run, draft.manifest, made, team, rehearsal, ground.light_organiser, known)
