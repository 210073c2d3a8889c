"""What several test files share."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from support import fork_server
from support.commands import invoke_command

from pipeline import paths

# torch, and all that imports it, only where it is needed: pytest-xdist's first process, for which the others wait,
# reads this file and runs no test.
if TYPE_CHECKING:
    from support.audited import Ground
    from support.fake_board import FakeBoard
    from support.submissions import Clone

# What a host draws, packs and compares with the packages of requirements/host.lock, which an image does not have.
OF_THE_HOST = [f"report/test_{name}.py" for name in ("browser", "report", "bench_picture")]
OF_THE_HOST += [
    f"contest/test_{name}.py" for name in ("method_pdf", "sbom", "similarity", "submit", "submit_verifies", "signed")
]
OF_THE_HOST += [f"contest/forgeries/test_{name}.py" for name in ("bombs", "forged_citations")]
collect_ignore = OF_THE_HOST if paths.in_image() else []

# The same examples in every run, so that a red test is red for everybody. To look for new ones:
# pytest --hypothesis-profile=explore
SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile("explore", deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.load_profile("fixed")


# Bytecode is kept, whatever the machine is set to: hundreds of commands would each compile all of pipeline/ again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
fork_server.install()


LONGEST_FIRST = "test_slow_exactness.py"
"""Minutes each: begun last, one worker of pytest-xdist would do them while the others have nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != LONGEST_FIRST)


@pytest.fixture(autouse=True)
def begun_in_the_usual_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that look at times and memory get commands that import all by themselves."""
    if request.node.get_closest_marker("alone"):
        monkeypatch.setattr(fork_server.ForkingPopen, "enabled", False)


Made = TypeVar("Made")
Once = Callable[[str, Callable[[Path], Made]], Made]


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Builds something in a folder of its own, once in a session: the workers of pytest-xdist share what is built.

    `once(name, build)` calls `build(folder)` in the first worker that asks for `name`; the others wait for it and get
    a copy of what it returned. What lies in the folder is not to be changed.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base

    def build_once(name: str, build: Callable[[Path], Made]) -> Made:
        folder, result = shared / name, shared / f"{name}.pickle"
        with FileLock(shared / f"{name}.lock"):
            if not result.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed half-way
                folder.mkdir()
                part = shared / f"{name}.part"
                part.write_bytes(pickle.dumps(build(folder)))
                part.rename(result)
            return pickle.loads(result.read_bytes())

    return build_once


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tiny models: waking a second thread costs more than it brings, the more so on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def in_place() -> Iterator[None]:
    """Verifications without processes of their own, for the many."""
    from support.in_place import in_place

    with in_place():
        yield


@pytest.fixture
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs whose cost curve matters nothing: passes of three sizes are timed, once each, not of seventeen."""
    from pipeline.engine import calibration, cost

    monkeypatch.setattr(calibration, "SIZES", (1, 64, 512))
    monkeypatch.setattr(cost, "ROUNDS", 1)
    monkeypatch.setattr(cost, "ROUND_S", 0.001)


@pytest.fixture(scope="session")
def standin() -> Path:
    """The folder of the stand-in checkpoint."""
    from pipeline.model import fetch

    return fetch.ensure("standin", lambda _: None)


@pytest.fixture(scope="session")
def small(standin: Path, once: Once[Path]) -> Path:
    """A random model with a context of 96 tokens, without a lock."""
    from support.checkpoints import random_model

    return once("small", lambda folder: random_model(folder, standin, context=96))


@pytest.fixture(scope="session")
def tiny(standin: Path, once: Once[Path]) -> Path:
    """A random model with room for a run's warm-up chat, locked: a checkpoint to name on the command line."""
    from support.checkpoints import random_model

    return once("tiny", lambda folder: _locked(random_model(folder, standin, context=512)))


@pytest.fixture(scope="session")
def deep(standin: Path, once: Once[Path]) -> Path:
    """A random model of 40 layers in shards, locked: more of it lies in layers than its longest context needs."""
    from support.checkpoints import random_model

    forty = {"context": 512, "layers": 40, "shard_size": "500KB"}
    return once("deep", lambda folder: _locked(random_model(folder, standin, **forty)))


def _locked(folder: Path) -> Path:
    from pipeline.model import lock

    lock.verify(folder)
    return folder


@pytest.fixture(scope="session")
def original(tiny: Path, once: Once[Clone]) -> Clone:
    """A clone of this checkout with a run of a tiny model on the public set in it. Not to be changed."""
    from support.submissions import clone

    def build(folder: Path) -> Clone:
        made = clone(folder / "checkout")
        done = made.invoke("run", "--model", tiny, "--max-new-tokens", 8)
        assert done.returncode == 0, done.stderr
        return made

    return once("clone", build)


@pytest.fixture
def invoke(runs: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """invoke as a user calls it: its own process, in the checkout unless `folder` says otherwise."""

    def call(*arguments: object, folder: Path = paths.ROOT, **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            invoke_command(*arguments), cwd=folder, capture_output=True, text=True, check=False, timeout=120, **how
        )

    return call


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs of this test go."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("PIPELINE_RUNS", str(folder))
    return folder


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[..., str]:
    """Runs lines of Python in `tmp_path` as a user without any rights there, also where the tests run as root.

    The rights go after the imports, and names below the working folder are relative: neither the checkout nor what
    lies above `tmp_path` has to be open to others. Returns what was printed.
    """

    def call(imports: str, body: str, **environment: str) -> str:
        drop = "import os; os.geteuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534))"
        done = subprocess.run(
            [sys.executable, "-c", f"{imports}\n{drop}\n{body}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(paths.ROOT), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    """An Orin 32GB as it is after flashing, in the place of this machine."""
    from support import fake_board

    from pipeline.engine.kernels import build

    made = fake_board.make(tmp_path)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(build, "find_nvcc", lambda: None)  # the board's, not this machine's
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


@pytest.fixture(scope="session")
def ground(tiny: Path, once: Once[Ground]) -> Ground:
    """A good submission and all that an organiser has to verify it with."""
    import torch
    from support import audited

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return once("ground", lambda folder: audited.build(tiny, folder))
    finally:
        torch.set_num_threads(threads)
