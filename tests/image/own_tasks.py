"""`invoke image`, `shell` and `reproduce --image` on podman, offline, as on a machine where no docker answers.

    python tests/image/own_tasks.py IMAGE HOSTILE BASE RUN

RUN is the name of a run made outside, in the folder that PIPELINE_RUNS names. check.sh makes the images and sets the
environment. HOSTILE tries what these three must withstand, whoever made the image: to reach a network.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline import paths

BUILT = "localhost/built-by-invoke"
HOLES = ("a network", "an interface")
"""What hostile.sh prints where a wall has a hole."""


def invoke(*arguments: str, root: Path = paths.ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "invoke", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=300)


def image(base: str, folder: Path) -> None:
    """A checkout is built as often as it is committed, and the image's label is the last commit.

    Of Dockerfile.l4t only what depends on the commit: packages are fetched, and check.sh builds the whole."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=paths.ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(paths.ROOT / name, folder / name)
    dockerfile = folder / "Dockerfile.l4t"
    of_the_commit = dockerfile.read_text().split("\nARG COMMIT=\n")[1].split("USER pipeline")[0]
    dockerfile.write_text(f"FROM {base}\nARG COMMIT=\n{of_the_commit}")
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    for message in ("First", "Second"):
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", message], check=True)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        done = invoke("image", "--name", BUILT, root=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        wanted = '{{index .Labels "org.opencontainers.image.revision"}}'
        asked = ["podman", "image", "inspect", "--format", wanted, BUILT]
        label = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        assert label == commit, (label, commit)
    subprocess.run(["podman", "rmi", "--force", BUILT], capture_output=True, check=True)


def shell(name: str) -> None:
    """A task in the image, whose status is handed on; and a shell of one's own in a terminal."""
    done = invoke("shell", "--image", name, "--task", "data --list")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "obqa" in done.stdout, done.stdout
    wrong = invoke("shell", "--image", name, "--task", "run --dataset nowhere.jsonl")
    assert wrong.returncode == 3, wrong.stdout + wrong.stderr
    assert "U111" in wrong.stdout + wrong.stderr
    assert "E322" in wrong.stderr
    assert typed(name, "echo answer-$((6 * 7)); ls /sys/class/net; exit\n") == (0, ["answer-42", "lo"])


def typed(name: str, text: str) -> tuple[int, list[str]]:
    """Status of `invoke shell` in a terminal in which this is typed, and the awaited lines that it printed."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(paths.ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "invoke", "shell", "--image", name])
    seen, sent = b"", False
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the terminal's other end is closed
            break
        seen += part
        if not part:
            break
        if not sent and seen.rstrip().endswith((b"$", b"#")):
            os.write(terminal, text.encode())
            sent = True
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    lines = [line.strip() for line in seen.decode(errors="replace").splitlines()]
    return status, [line for line in lines if line in {"answer-42", "lo"} or line.startswith(("eth", "enp", "tap"))]


def reproduce(name: str, run: str) -> None:
    done = invoke("reproduce", "--run", run, "--image", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 of 30 are the same, to the token" in done.stdout, done.stdout
    assert list(paths.runs().glob("*/reproduction.json"))


def no_way_out(hostile: str, data: str) -> None:
    """An image that wants one reaches no network."""
    done = invoke("shell", "--image", hostile, "--task", f"run --dataset {data} --max-new-tokens 6")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(hole in done.stdout for hole in HOLES), done.stdout


def main() -> None:
    name, hostile, base, run = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for title, check in (
            ("invoke image", lambda: image(base, Path(folder))),
            ("invoke shell", lambda: shell(name)),
            ("invoke reproduce --image", lambda: reproduce(name, run)),
            ("no way out", lambda: no_way_out(hostile, "/data/sets/obqa.jsonl")),
        ):
            start_s = time.monotonic()
            check()
            print(f"{title}: as it should be, {time.monotonic() - start_s:.0f} s", flush=True)


if __name__ == "__main__":
    main()
