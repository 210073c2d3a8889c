"""A submission run again, several times, each in a process of its own: do the same answers come, in the same time?

In a container of the submission's own image, behind walls (`container.stranger`), or, where that is asked for, from its
source on this machine: then only a fresh process and folder lie between a stranger's code and the organiser's files.

When times count as different follows MLPerf's audit, which calls a result materially different from 2 % on
(mlcommons/inference_policies, audit rules); more between the runs of one image, and nothing can be said.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline import container, paths
from pipeline.device import host as hosts
from pipeline.errors import EnvironmentProblem, UsageError
from pipeline.submission import claims as claiming
from pipeline.submission import pack
from pipeline.submission.answers import SAME_SHARE
from pipeline.submission.checks import ACCURACY, HUMAN, INTEGRITY, INVALID_RUN, Check, check, listed, plain, unknown
from pipeline.submission.claims import Answer, Claims, Manifest
from pipeline.submission.organiser import Organiser
from pipeline.submission.unpack import Unpacked

DIFFERENT = 0.02
MOST_TIMES = 100
LEAST_LIMIT_S, LIMIT_FACTOR = 1800.0, 10.0
"""How long one run may take: so many times what the submission says of loading, warming up and answering."""
TAIL_BYTES = 4096
REFERENCE = re.compile(r"[a-z0-9][\w.:/@-]{0,250}")
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "OMP_NUM_THREADS", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "PIPELINE_HOST")
"""Of this environment, to a stranger's source that is run here: nothing that could be a secret."""


@dataclass(frozen=True)
class Asked:
    times: int
    here: bool
    """From the source, without a container."""


@dataclass(frozen=True)
class One:
    """One run, done again."""

    status: int | None
    """None: it did not end in time."""
    elapsed_s: float | None
    """Of its timed section."""
    folder: Path
    stdout_tail: str
    stderr_tail: str
    manifest: Manifest | None
    answers: tuple[Answer, ...] | None

    def as_json(self) -> dict[str, Any]:
        told = {"status": self.status, "elapsed_s": self.elapsed_s, "folder": self.folder.name}
        return {**told, "stdout_tail": self.stdout_tail, "stderr_tail": self.stderr_tail}


@dataclass(frozen=True)
class Rerun:
    how: str
    command: str
    """As it was called the first time."""
    claimed_s: float
    runs: tuple[One, ...]
    differing: tuple[int, ...]
    """Rows that any of the runs answered otherwise."""
    checks: tuple[Check, ...]

    @property
    def elapsed_s(self) -> list[float]:
        return [one.elapsed_s for one in self.runs if one.elapsed_s is not None]

    def as_json(self) -> dict[str, Any]:
        times = self.elapsed_s
        return {
            "how": self.how,
            "command": self.command,
            "times": len(self.runs),
            "elapsed_s": times,
            "median_s": median(times) if times else None,
            "spread": (max(times) - min(times)) / median(times) if times else None,
            "claimed_s": self.claimed_s,
            "ratio": median(times) / self.claimed_s if times else None,
            "differing": list(self.differing),
            "runs": [one.as_json() for one in self.runs],
        }


def asked(times: int | None, here: bool) -> Asked:
    """Raises UsageError (U612)."""
    if not times or not 1 <= times <= MOST_TIMES:
        raise UsageError(
            "U612", "--times is how often to run it again", expected=f"1 to {MOST_TIMES}", actual=times, fix="give 3"
        )
    return Asked(times, here)


def check_possible(asked: Asked) -> None:
    """Raises EnvironmentProblem: E611 there is no docker, E612 its daemon does not answer."""
    if asked.here:
        return
    if shutil.which("docker") is None:
        raise EnvironmentProblem(
            "E611",
            "there is no docker here to run the submission's image with",
            where=os.environ.get("PATH"),
            fix="install it; or, if you trust the team, --rerun-here runs its source on this machine",
        )
    if _docker("info") is None:
        raise EnvironmentProblem(
            "E612", "docker does not answer", where="docker info", fix="start its daemon: sudo systemctl start docker"
        )


def rerun(told: Claims, unpacked: Unpacked, organiser: Organiser, asked: Asked, out: Path) -> Rerun:
    """Run it `asked.times` times and hold it against what the submission claims. Folders stay in `out`/rerun."""
    manifest = told.manifest
    data, model = organiser.data(manifest.dataset.name), organiser.model(manifest.model.name)
    claimed_s, how = manifest.elapsed_s, "source" if asked.here else "container"
    wanted = f"{asked.times} runs that end well"
    if data is None or model is None or model.folder is None:
        missing = listed(["data"] * (data is None) + ["model"] * (model is None or model.folder is None))
        stopped = unknown("rerun", INVALID_RUN, f"the organiser's {missing} is not on this disk", wanted)
        return Rerun(how, "", claimed_s, (), (), (stopped,))
    image, found = (None, None) if asked.here else _image(told, unpacked)
    if found is not None and image is None:
        return Rerun(how, "", claimed_s, (), (), (found, unknown("rerun", INVALID_RUN, "no image to run", wanted)))
    place = out / "rerun"
    shutil.rmtree(place, ignore_errors=True)  # of an earlier verification
    limit_s = max(LEAST_LIMIT_S, LIMIT_FACTOR * (manifest.phases_s.load + manifest.phases_s.warm_up + claimed_s))
    first, runs = "", []
    for number in range(1, asked.times + 1):
        folder = place / str(number)
        folder.mkdir(parents=True)
        if image is None:
            command, start = _here(told, unpacked, data.path, model.folder, folder)
        else:
            command, start = _contained(told, image, data.path, model.folder, folder)
        first = first or container.text(command)
        runs.append(_one(start, folder, limit_s))
    differing = sorted({index for one in runs if one.answers is not None for index in _differing(told, one.answers)})
    ended = _ended(runs, told, wanted, asked.here)
    checks = [*([found] if found else []), ended, _outputs(told, runs, differing), _times(told, runs)]
    return Rerun(how, plain(first), claimed_s, tuple(runs), tuple(differing), tuple(checks))


def _arguments(manifest: Manifest, data: str, model: str) -> list[str]:
    """The claimed run's, one timed section, on the organiser's files."""
    asked, most = manifest.request, manifest.arguments.get("max_new_tokens")
    optional = {"--engine": manifest.engine.name, "--limit": asked.limit, "--batch-size": asked.batch_size}
    optional |= {"--dtype": asked.dtype, "--device": asked.device, "--max-new-tokens": most}
    given = [part for key, value in optional.items() if value is not None for part in (key, f"{value}")]
    return ["run", "--dataset", data, "--model", model, *given]


def _image(told: Claims, unpacked: Unpacked) -> tuple[str | None, Check]:
    """The image's own id, if it is here and is the one that the submission names by its digest."""
    claimed, wanted = told.submission.image, "the image with the digest that submission.json names, on this machine"
    if claimed.reference is None or not REFERENCE.fullmatch(claimed.reference):
        return None, unknown("rerun-image", INTEGRITY, f"it names {claimed.reference!r}", wanted)
    packed = unpacked.folder / pack.IMAGE
    if packed.is_file():
        _docker("load", "--quiet", "--input", str(packed))
    said = _docker("image", "inspect", "--format", "{{.Id}} {{json .RepoDigests}}", claimed.reference)
    try:
        own, _, digests = (said or "").strip().partition(" ")
        known = {own, *(each.rpartition("@")[2] for each in json.loads(digests) or [])}
    except (ValueError, AttributeError, TypeError):
        fix = f"docker pull {claimed.reference} while there is a network"
        return None, unknown("rerun-image", INTEGRITY, f"{claimed.reference} is not here: {fix}", wanted)
    if claimed.digest is None:
        return own, unknown("rerun-image", INTEGRITY, f"{claimed.reference}, {own[:19]}…: it names no digest", wanted)
    fine = claimed.digest in known
    return (own if fine else None), check("rerun-image", INTEGRITY, fine, f"{listed(sorted(known))}", claimed.digest)


Start = Callable[[Path, float], "int | None"]
"""Given a folder for its outputs and a limit: the exit status, None when it was ended at the limit."""


def _contained(told: Claims, image: str, data: Path, model: Path, folder: Path) -> tuple[list[str], Start]:
    folder.chmod(0o777)  # inside, root has lost the right to write where it is not the owner
    known = told.manifest.model.name if model.parent == paths.models() else f"/models/{model.name}"
    read = [(str(model.resolve()), f"/models/{model.name}"), (str(data.resolve()), f"/data/{data.name}")]
    name = f"verify-{secrets.token_hex(6)}"
    command = container.stranger(
        hosts.current(),
        image,
        _arguments(told.manifest, f"/data/{data.name}", known),
        name=name,
        read=read,
        runs=str(folder.resolve()),
        nvidia='"nvidia"' in (_docker("info", "--format", "{{json .Runtimes}}") or ""),
    )

    def start(into: Path, limit_s: float) -> int | None:
        status = _run(command, into, limit_s, dict(os.environ), paths.ROOT)
        if status is None:
            _docker("rm", "--force", name)
        return status

    return command, start


def _here(told: Claims, unpacked: Unpacked, data: Path, model: Path, folder: Path) -> tuple[list[str], Start]:
    source = folder / "source"
    with tarfile.open(unpacked.folder / pack.SOURCE) as archive:  # looked through by the check of the source
        for member in archive:
            if member.isreg():
                target = source / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    arguments = _arguments(told.manifest, str(data.resolve()), str(model.resolve()))
    command = [sys.executable, "-m", "invoke", *arguments]
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    ours = {"PIPELINE_RUNS": folder, "PIPELINE_MODELS": paths.models(), "PIPELINE_DATA": paths.data(), "HOME": folder}
    fixed = {"PYTHONPATH": source, "PIPELINE_COMMIT": told.submission.commit, "HF_HUB_OFFLINE": "1"}
    environment = {**kept, **{name: str(value) for name, value in (ours | fixed).items()}}
    return command, lambda into, limit_s: _run(command, into, limit_s, environment, source)


def _one(start: Start, folder: Path, limit_s: float) -> One:
    status = start(folder, limit_s)
    shutil.rmtree(folder / "source", ignore_errors=True)
    made = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    manifest = answers = None
    if len(made) == 1 and all(
        (made[0] / name).is_file() and not (made[0] / name).is_symlink() for name in ("manifest.json", "outputs.jsonl")
    ):
        manifest, answers = claiming.read_manifest(made[0])[0], claiming.read_answers(made[0])[0]
    elapsed_s = None if manifest is None else manifest.elapsed_s
    return One(status, elapsed_s, folder, _tail(folder / "stdout"), _tail(folder / "stderr"), manifest, answers)


def _ended(runs: Sequence[One], told: Claims, wanted: str, here: bool) -> Check:
    """A run on a busy board ends with status 8, and has its answers all the same."""
    bad = [one for one in runs if one.status not in {0, 8} or one.manifest is None or one.answers is None]
    if bad:
        last = (bad[0].stderr_tail.strip() or bad[0].stdout_tail.strip() or "no word").splitlines()[-1]
        status = "no end in time" if bad[0].status is None else f"status {bad[0].status}"
        # Without the image, what is missing may be this machine's.
        fine = None if here and bad[0].status in {3, 5} else False
        return check("rerun", INVALID_RUN, fine, f"{len(bad)} of {len(runs)} failed: {status}: {last}", wanted)
    same = all(
        (one.manifest.dataset.sha256, one.manifest.model.lock_sha256)
        == (told.manifest.dataset.sha256, told.manifest.model.lock_sha256)
        for one in runs
    )
    return check("rerun", INVALID_RUN, same, f"{len(runs)} ended{', on other data or weights' * (not same)}", wanted)


def _differing(told: Claims, again: Sequence[Answer]) -> list[int]:
    was = {answer.index: (answer.text, answer.token_ids) for answer in told.answers}
    now = {answer.index: (answer.text, answer.token_ids) for answer in again}
    return [index for index in was.keys() | now.keys() if was.get(index) != now.get(index)]


def _outputs(told: Claims, runs: Sequence[One], differing: Sequence[int]) -> Check:
    most = SAME_SHARE.get(told.manifest.dtype, 0.0)
    wanted = f"the submission's answers, but for rounding: {most:.1%} of rows"
    if not any(one.answers for one in runs):
        return unknown("rerun-outputs", ACCURACY, "no run answered", wanted)
    share = len(differing) / max(1, len(told.answers))
    found = f"{len(differing)} of {len(told.answers)} rows differ" + f": {listed(differing)}" * bool(differing)
    return check("rerun-outputs", ACCURACY, share <= most, found, wanted)


def _times(told: Claims, runs: Sequence[One]) -> Check:
    """Slower than claimed by more than what is materially different. Only on the same kind of device, undisturbed."""
    claimed_s, wanted = told.manifest.elapsed_s, f"at most {DIFFERENT:.0%} slower than claimed"
    done = [one.manifest for one in runs if one.manifest is not None]
    if not done:
        return unknown("rerun-time", INVALID_RUN, "no run has a time", wanted)
    times = [each.elapsed_s for each in done]
    middle = median(times)
    found = f"{listed(f'{t:.3f}' for t in times)} s, claimed {claimed_s:.3f}: {middle / claimed_s - 1:+.1%}"
    other = [each for each in done if _device(each) != _device(told.manifest)]
    if other or not told.manifest.board.before.board.is_jetson:
        return Check("rerun-time", HUMAN, f"{found}; not both on the contest's kind of device", wanted, INVALID_RUN)
    if any(each.verdict.state == "INVALID" for each in done):
        return unknown("rerun-time", INVALID_RUN, f"{found}; this board was held back", wanted)
    if max(times) - min(times) > DIFFERENT * middle:
        return unknown("rerun-time", INVALID_RUN, f"{found}; the runs themselves are further apart", wanted)
    return check("rerun-time", INVALID_RUN, middle <= (1 + DIFFERENT) * claimed_s, found, wanted)


def _device(told: Manifest) -> tuple[object, ...]:
    seen = told.board.before.board
    return (seen.module, seen.l4t, told.environment.gpu, told.environment.processor, told.device, told.dtype)


def _run(command: Sequence[str], into: Path, limit_s: float, environment: dict[str, str], folder: Path) -> int | None:
    """Its outputs go to files: a stranger may say more than fits into memory."""
    with (into / "stdout").open("wb") as said, (into / "stderr").open("wb") as complained:
        process = subprocess.Popen(
            list(command), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=complained,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started."""
    for wish in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, wish)
        except ProcessLookupError:
            break
        time.sleep(0.2)
    process.wait()


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return "".join(each if each.isprintable() or each == "\n" else "·" for each in text)


def _docker(*arguments: str) -> str | None:
    """What docker says; None when it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, errors="replace", check=False)
    return done.stdout if done.returncode == 0 else None
