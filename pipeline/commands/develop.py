"""Tasks for who works on this project: tests, style, benchmark, locks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from invoke import Context, Exit, task

from pipeline import paths
from pipeline.commands.common import call, guarded, on_checkout, whole
from pipeline.commands.next_step import then

MOST_WORKERS = 8
"""Each of them holds torch and a few models."""

NO_TESTS = 5
"""pytest's exit status when none was chosen."""


@task(
    help={
        "slow": "run the slow tests instead (exactness on hundreds of rows)",
        "gpu": "run those that need a CUDA device instead",
        "browser": "run those of pages in Chromium instead; .ci/browser installs what they need",
        "only": "a file or a test, as pytest names it",
        "match": "pytest's -k",
    }
)
@guarded
@on_checkout
def test(
    _context: Context, slow: bool = False, gpu: bool = False, browser: bool = False, only: str = "", match: str = ""
) -> None:
    """Run the fast tests, or instead the slow ones, those in a browser or those for a GPU."""
    kinds = {"slow": slow, "gpu": gpu, "browser": browser}
    chosen = next((kind for kind, asked in kinds.items() if asked), " and ".join(f"not {kind}" for kind in kinds))
    chosen += " and not checkout" * paths.in_image()
    choice = [*([only] if only else []), *(["-k", match] if match else [])]
    _pytest(chosen, choice, at_once=not (only or gpu or browser))
    then("test")


def _pytest(chosen: str, choice: list[str], at_once: bool) -> None:
    """The chosen tests; with `at_once` on all cores, but for those that look at the machine, which come after."""
    _need("pytest")
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    if not at_once or workers == 1 or importlib.util.find_spec("xdist") is None:
        call([sys.executable, "-m", "pytest", "-m", chosen, *choice])
        return
    parts = {
        f"({chosen}) and not alone": ["-n", str(workers), "--dist", "worksteal"],
        f"({chosen}) and alone": ["-p", "no:xdist", *_files_with("alone")],
    }
    statuses = []
    for marked, how in parts.items():
        try:
            # One thread a worker, and a command that a test calls: more only take the cores from each other.
            call([sys.executable, "-m", "pytest", "-m", marked, *how, *choice], OMP_NUM_THREADS="1")
        except Exit as failed:
            statuses.append(failed.code)
        else:
            statuses.append(0)
    status = next((status for status in statuses if status not in (0, NO_TESTS)), min(statuses))
    if status:
        raise Exit(code=status)


def _files_with(marker: str) -> list[str]:
    """The test files in which it stands: to collect all others takes longer than these tests."""
    files = sorted((paths.ROOT / "tests").rglob("test_*.py"))
    return [str(file) for file in files if f"pytest.mark.{marker}" in file.read_text(encoding="utf-8")]


def _need(package: str) -> None:
    """Check that a package of the tests is installed.

    Raises ModuleNotFoundError, which becomes E332, where the tests' packages are not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(name=package)


@task(help={"torch": "this torch instead of the locked one: 2.4.1 is the floor (a download of 3 GB on x86)"})
@guarded
@on_checkout
def test_oldest(_context: Context, torch: str = "") -> None:
    """Run the equality tests on the oldest transformers that we support, in a virtual environment of its own."""
    folder = paths.ROOT / f".venv-oldest{torch and '-torch-'}{torch}"
    python = folder / "bin" / "python"
    locks = [paths.ROOT / "requirements" / name for name in ("oldest.lock", "torch.txt")]
    ready = folder / ".ready"
    if not ready.exists() or any(lock.stat().st_mtime > ready.stat().st_mtime for lock in locks):
        print(f"Making {folder.name}")
        call([sys.executable, "-m", "venv", str(folder)])
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        call([*install, "--require-hashes", "-r", str(locks[0])])
        call([*install, *([f"torch=={torch}"] if torch else ["-r", str(locks[1])])])
        ready.touch()
    equality = [
        "tests/engine/test_exactness.py",
        "tests/test_text_generation.py",
        "tests/text",
        "tests/model/test_config.py",
        "tests/model/test_loader.py",
        "tests/model/test_attest.py",
    ]
    call([str(python), "-m", "pytest", "-m", "not slow and not gpu", *equality])
    then("test-oldest")


@task
@guarded
@on_checkout
def lint(_context: Context) -> None:
    """Check style, imports, types, and that nothing needs more than Python 3.10."""
    _need("ruff")
    call([sys.executable, "-m", "ruff", "check", "."])
    call([sys.executable, "-m", "ruff", "format", "--check", "."])
    call([sys.executable, "-m", "mypy"])
    then("lint")


@task(
    help={
        "model": "a name under configs/models",
        "rows": "rows of obqa-validation",
        "max-new-tokens": "the most tokens of an answer",
    }
)
@guarded
@on_checkout
def bench(_context: Context, model: str = "standin", rows: str = "100", max_new_tokens: str = "48") -> None:
    """Time ours and transformers' pipe() side by side on this CPU: a table, JSON, and a picture."""
    from pipeline import settings
    from pipeline.errors import UsageError
    from pipeline.record import run_folder

    counts = {"rows": whole("rows", rows), "max-new-tokens": whole("max-new-tokens", max_new_tokens)}
    sizes = [each for option, count in counts.items() if count is not None for each in (f"--{option}", str(count))]
    for option, count in counts.items():
        if count is not None and count < 1:
            raise UsageError("U409", f"--{option} must be at least 1", actual=count, fix="give 1 or more")
    if not Path(model).is_dir():
        settings.model(model)  # by name, before seconds of importing
    folder = run_folder.make_stamped(paths.runs(), f"bench-{Path(model).name[:60]}")
    try:
        call([sys.executable, str(paths.ROOT / "benchmarks" / "cpu.py"), "--model", model, "--to", str(folder), *sizes])
    finally:
        with contextlib.suppress(OSError):  # there is something in it
            folder.rmdir()
    then("bench", picture=paths.shown(folder / "bench.png"))


@task
@guarded
@on_checkout
def lock(_context: Context) -> None:
    """Compile requirements/*.in into locked files with hashes."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    for name in ("cpu", "host", "dev", "browser", "nvcc", "oldest", "jetpack6"):
        flags = ["--universal", "--python-version", "3.10", "--generate-hashes", "--no-header", "--quiet"]
        call([uv, "pip", "compile", *flags, "-o", f"{name}.lock", f"{name}.in"], folder=paths.ROOT / "requirements")
    then("lock")
