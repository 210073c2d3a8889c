"""The docker commands of Dockerfile.l4t, in full, so that they can be read, pasted and run without this program.

Where podman is what there is, or all that answers, they are podman's, which has the same words.

A run has no network and sees of the host what its record needs: `/models`, `/data` and `/runs`, and on a Jetson, read
only, the release, the module and the power mode. It is the user who calls, in the groups that a board gives its GPU to.
Only `whole_host` mounts everything and is root, for set-up and doctor: power mode and clocks are root's. Only `network`
lets a set-up fetch a model.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import paths
from pipeline.device import board
from pipeline.device.host import Host
from pipeline.errors import EnvironmentProblem
from pipeline.process import answering_program
from pipeline.record import provenance

IMAGE = "phi3-pipeline"
DOCKERFILE = "Dockerfile.l4t"

SEEN_OF_THE_HOST = {
    "etc/nv_tegra_release": "/etc/nv_tegra_release",
    "etc/nvpmodel.conf": "/etc/nvpmodel.conf",
    "var/lib/nvpmodel": "/var/lib/nvpmodel",
    "sys/firmware/devicetree/base": board.SHOWN_DEVICE_TREE,
}
"""Files of the host that verdicts need and a container's own root lacks: the host's path to the container's."""


LIMITS = {"docker": ("memlock=-1", "stack=67108864"), "podman": ("host",)}
"""By program. Podman gives only what its caller has: asked for more, or for one of them alone, it starts nothing."""

GPU_GROUPS = ("video", "render")
"""The host's groups that may use its GPU. Handed on by number: a container has its own names."""


def build(image: str, torch_sha256: str = "") -> list[str]:
    """The build, with the commit as a label. An empty hash leaves NVIDIA's wheel unpinned, which the build says."""
    code = provenance.commit()
    commit = f"{code['commit'] or 'unknown'}{'-dirty' * bool(code['dirty'])}"
    arguments = [f"COMMIT={commit}", *([f"TORCH_SHA256={torch_sha256}"] if torch_sha256 else [])]
    options = [part for argument in arguments for part in ("--build-arg", argument)]
    return [answering_program(), "build", "-f", DOCKERFILE, *options, "-t", image, "."]


def run(
    host: Host,
    image: str,
    arguments: Sequence[str],
    *,
    shell: bool = False,
    whole_host: bool = False,
    network: bool = False,
) -> list[str]:
    """One task of the image, or a shell in it. Folders are this checkout's, or those that PIPELINE_… names."""
    volumes = [(str(paths.models()), "/models"), (str(paths.data()), "/data"), (str(paths.runs()), "/runs")]
    volumes += [(f"/{name}", f"{shown}:ro") for name, shown in SEEN_OF_THE_HOST.items() if host.path(name).exists()]
    if whole_host:
        volumes.append(("/", "/host"))
    options = [part for source, target in volumes for part in ("-v", f"{source}:{target}")]
    options += ["--user", "0:0", "--privileged", "--pid=host"] if whole_host else _user(host)
    options += ["-it", "--entrypoint", "bash"] if shell else []
    program = answering_program()
    limits = [part for limit in LIMITS.get(program, ()) for part in ("--ulimit", limit)]
    reach = ["--network", "host", "-e", "HF_HUB_OFFLINE=0"] if network else ["--network", "none"]
    fixed = ["--rm", "--runtime", "nvidia", *reach, "--ipc", "host", *limits]
    return [program, "run", *fixed, *options, image, *arguments]


def _user(host: Host) -> list[str]:
    """docker's --user and GPU group options, so that files written belong to the caller."""
    entries = [line.split(":") for line in (host.read("etc/group") or "").splitlines()]
    numbers = [entry[2] for entry in entries if len(entry) > 2 and entry[0] in GPU_GROUPS]
    return ["--user", f"{os.getuid()}:{os.getgid()}", *(part for number in numbers for part in ("--group-add", number))]


@dataclass(frozen=True)
class Walls:
    """Caps of a container that is somebody else's."""

    memory_bytes: int
    processes: int = 1024
    file_bytes: int = 1 << 30
    """Largest file that it may write, wherever."""


STRANGER = "phi3-pipeline=verify"
"""The label of every container that a verification starts, by which an organiser finds what a power cut left."""


def stranger(
    host: Host,
    image: str,
    arguments: Sequence[str],
    walls: Walls,
    *,
    name: str,
    id_file: str,
    read: Sequence[tuple[str, str]],
    runs: str,
    volumes: Sequence[str],
    nvidia: bool,
) -> list[str]:
    """Somebody else's image, with nothing but what a run needs: no network, no capability, nothing to write to but
    `/runs`, a `/tmp` and a `/dev/shm` of its own. `read` are host's to container's paths, read only; `volumes` are what
    the image declares, which would be writable places on the disk. Its id is written to `id_file`."""
    seen = [(f"/{path}", shown) for path, shown in SEEN_OF_THE_HOST.items() if host.path(path).exists()]
    mounted = [part for source, target in [*read, *seen] for part in ("-v", f"{source}:{target}:ro")]
    taken = {"/runs", "/tmp", *(target for _, target in read)}
    small = [part for path in volumes if path not in taken for part in ("--tmpfs", f"{path}:rw,size=64m")]
    closed = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    memory = ["--memory", f"{walls.memory_bytes}", "--memory-swap", f"{walls.memory_bytes}"]
    # Podman, given one of these, would raise the others to more than a host may allow.
    bounds = (f"fsize={walls.file_bytes}:{walls.file_bytes}", "nofile=1024:1024", "nproc=8192:8192")
    bounded = [part for bound in bounds for part in ("--ulimit", bound)]
    limits = ["--pids-limit", f"{walls.processes}", *bounded, *memory]
    own = ["--tmpfs", "/tmp:rw,size=4g", "--ipc", "private", "--shm-size", "1g"]
    runtime = ["--runtime", "nvidia"] if nvidia else []
    fixed = [
        "--rm",
        "--name",
        name,
        "--label",
        STRANGER,
        "--cidfile",
        id_file,
        "--pull",
        "never",
        "--log-driver",
        "none",
    ]
    options = [*fixed, *runtime, *closed, *limits, *own, *small, *mounted, "-v", f"{runs}:/runs", "-e", "HOME=/tmp"]
    return [answering_program(), "run", *options, image, *arguments]


def text(command: Sequence[str]) -> str:
    """A command as one line, quoted for a shell."""
    return " ".join(map(shlex.quote, command))


def call(command: Sequence[str]) -> None:
    """Show a command and run it. Raises EnvironmentProblem: E321 there is no docker, E322 it failed."""
    print(text(command), flush=True)
    if shutil.which(command[0]) is None:
        raise EnvironmentProblem(
            "E321",
            "there is no docker here",
            where=os.environ.get("PATH"),
            fix="run the command on a machine that has docker",
        )
    for folder in (paths.models(), paths.data(), paths.runs()):
        folder.mkdir(parents=True, exist_ok=True)  # docker would make them root's
    sys.stdout.flush()
    status = subprocess.run(command, cwd=paths.ROOT, check=False).returncode
    if status:
        raise EnvironmentProblem(
            "E322",
            "docker ended with an error",
            where=text(command),
            actual=f"status {status}",
            fix="its output is above; invoke doctor looks at docker and its runtime",
        )
