"""Processes that run a submission again: from its image behind walls, or from its source in a folder of its own.

The command is `invoke run` as the submission's own manifest tells it, with one timed section, on the organiser's files.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.check import INTEGRITY, CheckResult, decided, listed, unknown
from pipeline.contest.archive.unpack import Unpacked
from pipeline.contest.checks.submitted import Manifest, Submitted
from pipeline.contest.format import IMAGE, SOURCE
from pipeline.contest.rerun.measure import Launch
from pipeline.device import host as hosts
from pipeline.errors import EnvironmentProblem
from pipeline.prepare import container
from pipeline.process import answering_program, docker_output

RUNS, DATA = "runs", "data"
"""Names of the folders, in that of one rerun, that its run's folder is written to, and its data come from."""
REFERENCE = re.compile(r"[a-z0-9][\w.:/@-]{0,250}")
DIGEST, PLACE = re.compile(r"sha256:[0-9a-f]{64}"), re.compile(r"/[\w./-]{1,200}")
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "OMP_NUM_THREADS", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "PIPELINE_HOST")
"""Environment variables that a stranger's source gets when it runs here: none that could hold a secret."""


def check_docker() -> None:
    """Raise EnvironmentProblem if there is neither docker nor podman (E611) or none of them answers (E612)."""
    program = answering_program()
    if shutil.which(program) is None:
        raise EnvironmentProblem(
            "E611",
            "there is no docker or podman here to run the submission's image with",
            where=os.environ.get("PATH"),
            fix="install one; or, if you trust the team, --rerun-here runs its source on this machine",
        )
    if docker_output("info") is None:
        raise EnvironmentProblem(
            "E612",
            f"{program} does not answer",
            where=f"{program} info",
            fix="start docker's daemon: sudo systemctl start docker",
        )


@dataclass(frozen=True)
class Image:
    id: str
    volumes: tuple[str, ...]
    """Paths that the image declares as places of their own, which would be writable."""


def image(told: Submitted, unpacked: Unpacked) -> tuple[Image | None, CheckResult]:
    """The image, with the check of its digest; None if it is not here or has another digest.

    Only the digest counts. Names that loading a packed image has moved to it are moved back.
    """
    claimed, wanted = told.submission.image, "the image with the digest that submission.json names, on this machine"
    if claimed.reference is None or not REFERENCE.fullmatch(claimed.reference):
        return None, unknown("rerun-image", INTEGRITY, f"it names {claimed.reference!r}", wanted)
    packed = unpacked.folder / IMAGE
    if packed.is_file():
        _load(packed)
    by_digest = claimed.digest if claimed.digest and DIGEST.fullmatch(claimed.digest) else None
    for name in filter(None, (claimed.reference, by_digest)):
        found = _inspect(name)
        if found is not None and (by_digest is None or claimed.digest in found[1]):
            break
    if found is None:
        fix = f"docker pull {claimed.reference} while there is a network"
        return None, unknown("rerun-image", INTEGRITY, f"{claimed.reference} is not here: {fix}", wanted)
    made, known = found
    if claimed.digest is None:
        return made, unknown(
            "rerun-image", INTEGRITY, f"{claimed.reference}, {made.id[:19]}…: it names no digest", wanted
        )
    fine = claimed.digest in known
    return (made if fine else None), decided("rerun-image", INTEGRITY, fine, f"{listed(sorted(known))}", claimed.digest)


def _inspect(name: str) -> tuple[Image, set[str]] | None:
    """The image of a name or digest, and all digests that are its own."""
    form = "{{.Id}} {{json .RepoDigests}} {{json .Config.Volumes}}"
    said = docker_output("image", "inspect", "--format", form, name)
    try:
        own, digests, volumes = (said or "").strip().split(" ", 2)
        own = own if ":" in own else f"sha256:{own}"  # podman leaves the algorithm out
        known = {own, *(each.rpartition("@")[2] for each in json.loads(digests) or [])}
        paths_of_volumes = tuple(sorted(path for path in json.loads(volumes) or {} if PLACE.fullmatch(path)))
    except (ValueError, AttributeError, TypeError):
        return None
    return Image(own, paths_of_volumes), known


def _load(packed: Path) -> None:
    """Load a packed image, whatever names it says it has: names that were here keep what they named."""
    form = ("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    before = dict(line.split(" ", 1) for line in (docker_output(*form) or "").splitlines() if " " in line)
    docker_output("load", "--quiet", "--input", str(packed))
    after = dict(line.split(" ", 1) for line in (docker_output(*form) or "").splitlines() if " " in line)
    for name, id in before.items():
        if "<none>" not in name and after.get(name, id) != id:
            docker_output("tag", id, name)


def contained(told: Submitted, image: Image, data: Path, model: Path, folder: Path) -> Launch:
    """The container of one run: `folder` gets what it reads its data from and writes to."""
    runs, handed = folder / RUNS, folder / DATA
    handed.mkdir()
    runs.chmod(0o777)  # inside, root has lost the right to write where it is not the owner
    known = told.manifest.model.name if model.parent == paths.models() else f"/models/{model.name}"
    read = [(str(model.resolve()), f"/models/{model.name}"), (str(handed.resolve()), "/data")]
    name, host = f"verify-{secrets.token_hex(6)}", hosts.current()
    command = container.stranger(
        host,
        image.id,
        _arguments(told.manifest, f"/data/{data.name}", known),
        container.Walls(memory_bytes(host)),
        name=name,
        id_file=str(folder / "container-id"),
        read=read,
        runs=str(runs.resolve()),
        volumes=image.volumes,
        nvidia='"nvidia"' in (docker_output("info", "--format", "{{json .Runtimes}}") or ""),
    )
    # Started in the run's own folder: podman's monitor leaves a file `oom` where it stands.
    return Launch(
        command, dict(os.environ), folder, handed / data.name, runs,
        id_file=folder / "container-id", kill=lambda: _removed(command[0], name),
    )  # fmt: skip


def _removed(program: str, name: str) -> None:
    """End a container by the program that started it, whichever answers now."""
    subprocess.run([program, "rm", "--force", name], capture_output=True, check=False)


def memory_bytes(host: hosts.Host) -> int:
    """The memory that a container may take: this machine's but for an eighth, which its owner needs."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", host.read("proc/meminfo") or "", re.MULTILINE)
    return (int(total[1]) * 1024 if total else 8 << 30) * 7 // 8


def here(told: Submitted, unpacked: Unpacked, data: Path, model: Path, folder: Path) -> Launch:
    """The call that runs a submission's source on this machine, without a container."""
    source, handed = unpacked.folder.with_name(f"{unpacked.folder.name}-source-{folder.name}"), folder / DATA
    handed.mkdir()
    with tarfile.open(unpacked.folder / SOURCE) as archive:  # looked through by the check of the source
        for member in archive:
            if (content := archive.extractfile(member)) is not None and member.isreg():
                target = source / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
    arguments = _arguments(told.manifest, str((handed / data.name).resolve()), str(model.resolve()))
    command = [sys.executable, "-m", "invoke", *arguments]
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    ours = {
        "PIPELINE_RUNS": folder / RUNS,
        "PIPELINE_MODELS": paths.models(),
        "PIPELINE_DATA": paths.data(),
        "HOME": folder / "home",
    }
    fixed = {"PYTHONPATH": source, "PIPELINE_COMMIT": told.submission.commit, "HF_HUB_OFFLINE": "1"}
    environment = {**kept, **{name: str(value) for name, value in (ours | fixed).items()}}
    return Launch(
        command, environment, source, handed / data.name, folder / RUNS,
        kill=lambda: shutil.rmtree(source, ignore_errors=True),
    )  # fmt: skip


def _arguments(manifest: Manifest, data: str, model: str) -> list[str]:
    """The arguments of the claimed run, for one timed section on the organiser's files."""
    asked, most = manifest.request, manifest.arguments.get("max_new_tokens")
    optional = {"--engine": manifest.engine.name, "--limit": asked.limit, "--batch-size": asked.batch_size}
    optional |= {"--dtype": asked.dtype, "--device": asked.device, "--max-new-tokens": most}
    given = [part for key, value in optional.items() if value is not None for part in (key, f"{value}")]
    return ["run", "--dataset", data, "--model", model, *given]
