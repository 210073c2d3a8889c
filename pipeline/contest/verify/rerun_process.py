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
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import paths
from pipeline.check import INTEGRITY, CheckResult, decided, listed, unknown
from pipeline.contest.archive.unpack import Unpacked
from pipeline.contest.format import IMAGE, SOURCE
from pipeline.contest.verify.submitted import Manifest, Submitted
from pipeline.device import host as hosts
from pipeline.errors import EnvironmentProblem
from pipeline.prepare import container
from pipeline.process import docker_output, end_group

RUNS = "runs"
"""Name of the folder, in that of one rerun, that its run's folder is written to."""
REFERENCE = re.compile(r"[a-z0-9][\w.:/@-]{0,250}")
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "OMP_NUM_THREADS", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "PIPELINE_HOST")
"""Environment variables that a stranger's source gets when it runs here: none that could hold a secret."""


def check_docker() -> None:
    """Raise EnvironmentProblem if there is no docker (E611) or its daemon does not answer (E612)."""
    if shutil.which("docker") is None:
        raise EnvironmentProblem(
            "E611",
            "there is no docker here to run the submission's image with",
            where=os.environ.get("PATH"),
            fix="install it; or, if you trust the team, --rerun-here runs its source on this machine",
        )
    if docker_output("info") is None:
        raise EnvironmentProblem(
            "E612", "docker does not answer", where="docker info", fix="start its daemon: sudo systemctl start docker"
        )


def image(submitted: Submitted, unpacked: Unpacked) -> tuple[str | None, CheckResult]:
    """The image's id, with the check of its digest; None if it is not here or has another digest."""
    claimed, expected = (
        submitted.submission.image,
        "the image with the digest that submission.json names, on this machine",
    )
    if claimed.reference is None or not REFERENCE.fullmatch(claimed.reference):
        return None, unknown("rerun-image", INTEGRITY, f"it names {claimed.reference!r}", expected)
    packed = unpacked.folder / IMAGE
    if packed.is_file():
        docker_output("load", "--quiet", "--input", str(packed))
    inspected = docker_output("image", "inspect", "--format", "{{.Id}} {{json .RepoDigests}}", claimed.reference)
    try:
        own, _, digests = (inspected or "").strip().partition(" ")
        known = {own, *(each.rpartition("@")[2] for each in json.loads(digests) or [])}
    except (ValueError, AttributeError, TypeError):
        fix = f"docker pull {claimed.reference} while there is a network"
        return None, unknown("rerun-image", INTEGRITY, f"{claimed.reference} is not here: {fix}", expected)
    if claimed.digest is None:
        return own, unknown("rerun-image", INTEGRITY, f"{claimed.reference}, {own[:19]}…: it names no digest", expected)
    fine = claimed.digest in known
    return (own if fine else None), decided("rerun-image", INTEGRITY, fine, f"{listed(sorted(known))}", claimed.digest)


Start = Callable[[Path, float], "int | None"]
"""Runs the process, given a folder for its output and a limit in seconds: its exit status, None at the limit."""


def contained(submitted: Submitted, image: str, data: Path, model: Path, folder: Path) -> tuple[list[str], Start]:
    (folder / RUNS).chmod(0o777)  # inside, root has lost the right to write where it is not the owner
    known = submitted.manifest.model.name if model.parent == paths.models() else f"/models/{model.name}"
    read = [(str(model.resolve()), f"/models/{model.name}"), (str(data.resolve()), f"/data/{data.name}")]
    name = f"verify-{secrets.token_hex(6)}"
    command = container.stranger(
        hosts.current(),
        image,
        _arguments(submitted.manifest, f"/data/{data.name}", known),
        name=name,
        read=read,
        runs=str((folder / RUNS).resolve()),
        nvidia='"nvidia"' in (docker_output("info", "--format", "{{json .Runtimes}}") or ""),
    )

    def start(into: Path, limit_s: float) -> int | None:
        status = _run(command, into, limit_s, dict(os.environ), paths.ROOT)
        if status is None:
            docker_output("rm", "--force", name)
        return status

    return command, start


def here(submitted: Submitted, unpacked: Unpacked, data: Path, model: Path, folder: Path) -> tuple[list[str], Start]:
    source = unpacked.folder.with_name(f"{unpacked.folder.name}-source-{folder.name}")
    with tarfile.open(unpacked.folder / SOURCE) as archive:  # looked through by the check of the source
        for member in archive:
            if (content := archive.extractfile(member)) is not None and member.isreg():
                target = source / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
    arguments = _arguments(submitted.manifest, str(data.resolve()), str(model.resolve()))
    command = [sys.executable, "-m", "invoke", *arguments]
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    ours = {
        "PIPELINE_RUNS": folder / RUNS,
        "PIPELINE_MODELS": paths.models(),
        "PIPELINE_DATA": paths.data(),
        "HOME": folder / "home",
    }
    fixed = {"PYTHONPATH": source, "PIPELINE_COMMIT": submitted.submission.commit, "HF_HUB_OFFLINE": "1"}
    environment = {**kept, **{name: str(value) for name, value in (ours | fixed).items()}}

    def start(into: Path, limit_s: float) -> int | None:
        try:
            return _run(command, into, limit_s, environment, source)
        finally:
            shutil.rmtree(source, ignore_errors=True)

    return command, start


def _arguments(manifest: Manifest, data: str, model: str) -> list[str]:
    """The arguments of the claimed run, for one timed section on the organiser's files."""
    request, most = manifest.request, manifest.arguments.get("max_new_tokens")
    optional = {"--engine": manifest.engine.name, "--limit": request.limit, "--batch-size": request.batch_size}
    optional |= {"--dtype": request.dtype, "--device": request.device, "--max-new-tokens": most}
    given = [part for key, value in optional.items() if value is not None for part in (key, f"{value}")]
    return ["run", "--dataset", data, "--model", model, *given]


def _run(command: Sequence[str], into: Path, limit_s: float, environment: dict[str, str], folder: Path) -> int | None:
    """Run to the end or the limit, stdout and stderr to files: a stranger may write more than fits into memory."""
    with (into / "stdout").open("wb") as out, (into / "stderr").open("wb") as err:
        process = subprocess.Popen(
            list(command), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end_group(process)
