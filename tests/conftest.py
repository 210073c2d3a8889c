"""What several test files share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fake_board
import pytest
import torch
from fake_board import FakeBoard
from hypothesis import HealthCheck, settings
from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

from pipeline import paths
from pipeline.engine.kernels import build
from pipeline.model import fetch as setup
from pipeline.model import lock

if TYPE_CHECKING:
    from audited import Ground
    from submissions import Clone

# What a host draws, packs and compares with the packages of requirements/host.lock, which an image does not have.
OF_THE_HOST = ["test_browser.py", "test_report.py", "test_similarity.py", "test_submit.py"]
collect_ignore = OF_THE_HOST if paths.in_image() else []

# The same examples in every run, so that a red test is red for everybody. To look for new ones:
# pytest --hypothesis-profile=explore
SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile("explore", deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.load_profile("fixed")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tiny models: waking a second thread costs more than it brings, the more so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def standin() -> Path:
    """The folder of the stand-in checkpoint."""
    return setup.ensure("standin", lambda _: None)


def random_model(folder: Path, standin: Path, context: int, layers: int = 2, shard_size: str = "1GB") -> Path:
    """A random Phi-3 with the stand-in's tokenizer: loads and answers in no time."""
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        original_max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.4,
    )
    Phi3ForCausalLM(config).save_pretrained(folder, max_shard_size=shard_size)
    AutoTokenizer.from_pretrained(standin).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a context of 96 tokens, without a lock."""
    return random_model(tmp_path_factory.mktemp("small"), standin, context=96)


@pytest.fixture(scope="session")
def tiny(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with room for a run's warm-up chat, locked: a checkpoint to name on the command line."""
    folder = random_model(tmp_path_factory.mktemp("tiny"), standin, context=512)
    lock.verify(folder)
    return folder


@pytest.fixture(scope="session")
def deep(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 40 layers in shards, locked: more of it lies in layers than its longest context needs."""
    folder = random_model(tmp_path_factory.mktemp("deep"), standin, context=512, layers=40, shard_size="500KB")
    lock.verify(folder)
    return folder


@pytest.fixture(scope="session")
def original(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone of this checkout with a run of a tiny model on the public set in it. Not to be changed."""
    from submissions import clone

    made = clone(tmp_path_factory.mktemp("clone") / "checkout")
    done = made.invoke("run", "--model", tiny, "--max-new-tokens", 8)
    assert done.returncode == 0, done.stderr
    return made


def heeding_interrupts(command: list[str]) -> list[str]:
    """A shell starts what it puts into the background deaf to Ctrl-C, and children inherit that: not this one."""
    heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", heed, *command]


def invoke_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "invoke", *map(str, arguments)]


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


def flip_a_bit(tensor: torch.Tensor, index: int, bit: int) -> None:
    """In the memory where it lies."""
    raw = tensor.view(-1).view(torch.uint8)
    raw[index * tensor.element_size() + bit // 8] ^= 1 << (bit % 8)


def write_rows(path: Path, count: int) -> Path:
    """A file in the organiser's form whose prompts share a beginning and list choices."""
    lines = [
        {
            "message": [
                {"role": "user", "content": f"Read and answer.\nquestion: What is {i}?\nchoices: ['one', '{i} two']\n"}
            ],
            "answer": "one",
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    """An Orin 32GB as it is after flashing, in the place of this machine."""
    made = fake_board.make(tmp_path)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(build, "find_nvcc", lambda: None)  # the board's, not this machine's
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    return made


@pytest.fixture(scope="session")
def ground(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A good submission and all that an organiser has to verify it with."""
    import audited

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return audited.build(tiny, tmp_path_factory.mktemp("ground"))
    finally:
        torch.set_num_threads(threads)
