"""Tasks around the image for JetPack 6.0; each prints the docker command that it calls."""

from __future__ import annotations

import os
import sys

from invoke import Context, task

from pipeline import paths
from pipeline.commands.common import call, guarded, on_checkout
from pipeline.commands.next_step import then
from pipeline.commands.prepare import setup

IN_THE_IMAGE = """\
Answer a file of chat prompts with Phi-3: exactly, within memory, in the least time.

  docker run --rm --runtime nvidia --network none --ipc host \\
    --user $(id -u):$(id -g) $(getent group video render | awk -F: '{print "--group-add", $3}') \\
    -v $PWD/models:/models -v $PWD/data:/data -v $PWD/runs:/runs IMAGE TASK

(make the three folders first; without --user the image is user 1000.) TASK is one of

  setup                                      fetch the embedded stand-in model and the contest's public set: with a
                                             network, so --network host -e HF_HUB_OFFLINE=0 instead of --network none
  setup --model phi3-medium                  the contest's model, 28 GB
  doctor --model phi3-medium                 look at all that can spoil a run, with remedies
  run --dataset obqa --model phi3-medium     answer the public set under the clock
  run --dataset /data/mine.jsonl             a file of your own in data/, in the organiser's form
  reproduce --run NAME                       do a recorded run again and compare
  test                                       run the tests, on what setup has fetched
  --list, --help run                         every task; every option of one

docs/jetson.md of the repository goes from a flashed board to a submitted result.
"""


@task(
    help={
        "name": "the image's name",
        "torch-sha256": "the hash of NVIDIA's wheel, as an earlier build printed it",
        "show": "only print the command",
    }
)
@guarded
@on_checkout
def image(_context: Context, name: str = "phi3-pipeline", torch_sha256: str = "", show: bool = False) -> None:
    """Build the image for JetPack 6.0 from Dockerfile.l4t; prints the docker command."""
    from pipeline.prepare import container

    command = container.build(name, torch_sha256)
    print(container.text(command)) if show else container.call(command)
    then("image", quiet=show, image=name)


@task(
    help={
        "image": "its name",
        "task": "a task and its options in quotes, as 'run --dataset obqa'; left out, a shell",
        "host": "mount the whole host at /host, which set-up and doctor need on a board",
        "network": "allow the network, which set-up needs to fetch a model",
        "show": "only print the command",
    }
)
@guarded
def shell(
    _context: Context,
    image: str = "phi3-pipeline",
    task: str = "",
    host: bool = False,
    network: bool = False,
    show: bool = False,
) -> None:
    """Open a shell in the image, or run one task there, without a network. Prints the docker command."""
    from shlex import split

    from pipeline.device import host as device_host
    from pipeline.prepare import container

    command = container.run(device_host.current(), image, split(task), shell=not task, whole_host=host, network=network)
    print(container.text(command)) if show else container.call(command)


@task(help={"arch": "amd64, or arm64 under qemu; left out, as ARCH in the environment says"})
@guarded
@on_checkout
def image_test(_context: Context, arch: str = "") -> None:
    """Build Dockerfile.l4t on a stand-in for its base, without Docker, and run the image offline. Root on Debian."""
    setup(_context)
    os.environ["PYTHON"] = sys.executable
    call([str(paths.ROOT / "tests" / "image" / "check.sh"), arch or os.environ.get("ARCH", "amd64")])
    then("image-test")
