"""The checks of what runs on the board: torch and its CUDA, our kernels, room for the model, locks, packages."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline import paths, requirements_lock, settings
from pipeline.check import FAIL, OK, WARN, CheckResult, State
from pipeline.dataset import fetch
from pipeline.device.board import TARGET_CAPABILITY, Board
from pipeline.engine import free_memory, memory
from pipeline.engine.kernels import build, cpu_build
from pipeline.engine.shape import Shape
from pipeline.errors import PipelineError
from pipeline.files import nearest, sha256_of
from pipeline.model import config, lock
from pipeline.model import fetch as model_setup
from pipeline.prepare import torch_facts
from pipeline.prepare.board_checks import one_line
from pipeline.prepare.torch_facts import TorchFacts
from pipeline.schemas import HubModelConfig
from pipeline.table import Say

READ_BYTES, READ_S = 256 << 20, 0.3
"""Of a weight file, to see how fast the disk is: so many bytes, or what comes in so long."""

SLOW_BYTES_PER_S = 150e6
"""Below it, loading 28 GB takes more than three minutes."""

WEIGHTS_BYTES_FREE = 60e9
"""For the model with an image and its layers: what `docs/jetson.md` asks for."""


def software_results(board: Board, model: str, dataset: str, say: Say) -> Iterator[CheckResult]:
    """Every check of this module, in the order in which one would mend them."""
    facts = torch_facts.look()
    yield _torch(board, facts)
    yield _cuda(board, facts)
    yield _kernels(board, facts)
    yield _attention(facts)
    yield _versions(board)
    yield _disk()
    yield _runs()
    yield _disk_speed(model)
    yield _model(model, say)
    yield _memory(model, facts)
    yield _dataset(dataset, say)


def _torch(board: Board, facts: TorchFacts) -> CheckResult:
    expected = "NVIDIA's own build, 2.4 with nv in its version" if board.is_jetson else "2.4 or newer"
    if board.is_jetson and ".nv" not in facts.version:
        fix = "use the image: pip has put another torch in its place"
        return CheckResult("torch", FAIL, expected, facts.version, fix)
    if facts.trouble:
        fix = "make run installs it anew once .venv is deleted; what is named may also be missing from the system"
        return CheckResult("torch", FAIL, expected, f"{facts.version} does not load: {one_line(facts.trouble)}", fix)
    return CheckResult("torch", OK, expected, facts.version)


def _cuda(board: Board, facts: TorchFacts) -> CheckResult:
    built = facts.built_for
    found = f"{'not visible' if facts.gpu is None else 'visible'}, torch is built for {built or 'CPUs only'}"
    if facts.gpu is not None:
        return CheckResult("CUDA", OK, "visible", f"{facts.gpu}, {found}")
    if not board.is_jetson:
        return CheckResult("CUDA", OK, "not needed here", found)
    fix = "docker run --runtime nvidia …" if built else "use the image: this torch has no CUDA"
    return CheckResult("CUDA", FAIL, "visible", found, fix)


def _kernels(board: Board, facts: TorchFacts) -> CheckResult:
    if facts.gpu is None and not board.is_jetson:
        return CheckResult("kernels", OK, "not needed on CPUs", _cpu_kernels())
    capability = facts.capability or TARGET_CAPABILITY
    name = build.library_name(capability)
    if (build.BUILT / name).exists():
        return CheckResult("kernels", OK, name, name)
    fix = f"python3 -m pipeline.engine.kernels.build {capability[0]}.{capability[1]}"
    return CheckResult(
        "kernels",
        WARN,
        name,
        f"not built ({build.find_nvcc() or 'no nvcc'})",
        fix,
        mend=lambda: build.build(capability),
    )


def _cpu_kernels() -> str:
    try:
        found = cpu_build.built()
    except build.CannotBuild as trouble:
        return f"torch's own are used: {trouble}"
    if found is not None:
        return found.name
    compiler = cpu_build.find_compiler()
    return "built when a model is loaded" if compiler else "torch's own are used: no C++ compiler"


def _attention(facts: TorchFacts) -> CheckResult:
    """The attention and ops that the engine chooses for the contest model's shape, by its own probing on a GPU."""
    if facts.gpu is None:
        return CheckResult("attention", OK, "any", "tried when a model is loaded on cpu")
    import torch  # noqa: PLC0415 - imported already where it sees a GPU

    from pipeline.engine import backend  # noqa: PLC0415

    device = torch.device("cuda")
    chosen = backend.choose(_shape("phi3-medium"), torch.bfloat16, device)
    passed_over = "; ".join(f"{name}: {one_line(why)}" for name, why in chosen.passed_over.items())
    found = f"{chosen.attention_name}, {chosen.ops_name} on {device}"
    state: State = OK if not passed_over else WARN
    return CheckResult(
        "attention",
        state,
        "paged with our kernels",
        f"{found}; {passed_over}".rstrip("; "),
        passed_over and "see kernels",
    )


def _versions(board: Board) -> CheckResult:
    """Installed packages against the lock that belongs to this machine."""
    if not paths.CHECKOUT:
        fix = "the locks are in the repository, in requirements/"
        return CheckResult("packages", WARN, "as locked", "as the wheel requires", fix)
    usual = "jetpack6.lock" if board.is_jetson else "cpu.lock"
    path = paths.ROOT / "requirements" / os.environ.get("PIPELINE_LOCK", usual)  # an image says what it was built from
    differing = []
    for name, expected in requirements_lock.pins(path.read_text(encoding="utf-8")):
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "missing"
        if found != expected:
            differing.append(f"{name} {found}, not {expected}")
    if not differing:
        return CheckResult("packages", OK, "as locked", f"as in {path.name}")
    found = "; ".join(differing[:3]) + f"; {len(differing) - 3} more" * (len(differing) > 3)
    return CheckResult(
        "packages", WARN, "as locked", found, f"pip install --require-hashes -r requirements/{path.name}"
    )


def _disk() -> CheckResult:
    folder = nearest(paths.models())
    free_bytes = shutil.disk_usage(folder).free
    there_bytes = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    fine = free_bytes + there_bytes >= WEIGHTS_BYTES_FREE
    found = f"{free_bytes / 1e9:.0f} GB free at {paths.shown(folder)}, weights there {there_bytes / 1e9:.1f} GB"
    fix = "" if fine else "mount a larger disk as /models (PIPELINE_MODELS names the folder)"
    return CheckResult("disk", OK if fine else WARN, f"{WEIGHTS_BYTES_FREE / 1e9:.0f} GB with the weights", found, fix)


def _runs() -> CheckResult:
    """Where a run's folder goes. Nothing is written: on a disk that is mounted read-only access is refused too."""
    folder = paths.runs()
    there = nearest(folder)
    expected, shown = "a folder that can be written to", paths.shown(folder)
    if not there.is_dir():
        return CheckResult("runs", FAIL, expected, f"{paths.shown(there)} is a file", "move it, or set PIPELINE_RUNS")
    if not os.access(there, os.W_OK | os.X_OK):
        fix = f"sudo chown $USER {paths.shown(there)}, or name another folder in PIPELINE_RUNS"
        return CheckResult("runs", FAIL, expected, f"{shown}: no permission, or a disk that is read-only", fix)
    return CheckResult("runs", OK, expected, shown)


def _disk_speed(model: str) -> CheckResult:
    """The first bytes of the largest weight file, past the page cache where the system heeds that."""
    expected = f"{SLOW_BYTES_PER_S / 1e6:.0f} MB/s or more"
    shards = sorted((paths.models() / model).glob("*.safetensors"), key=lambda path: path.stat().st_size)
    if not shards:
        return CheckResult("disk speed", OK, expected, "no weights to read yet")
    speed = _read_speed(shards[-1])
    found = f"{speed / 1e6:,.0f} MB/s: 28 GB in {27.9e9 / speed:.0f} s"
    if speed >= SLOW_BYTES_PER_S:
        return CheckResult("disk speed", OK, expected, found)
    return CheckResult(
        "disk speed", WARN, expected, found, "put the model onto a faster disk; only loading, which is not timed, gains"
    )


def _read_speed(path: Path) -> float:
    """Bytes a second."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, READ_BYTES, os.POSIX_FADV_DONTNEED)
        start, read_bytes, elapsed_s = time.perf_counter(), 0, 0.0
        while read_bytes < READ_BYTES and elapsed_s < READ_S and (piece := file.read(16 << 20)):
            read_bytes, elapsed_s = read_bytes + len(piece), time.perf_counter() - start
        return read_bytes / elapsed_s


def _model(name: str, say: Say) -> CheckResult:
    def mend() -> object:
        return model_setup.resolve(name, say)

    folder = paths.models() / name if name in settings.model_names() else Path(name)
    fix = f"invoke setup --model {name}"
    if not folder.is_dir():
        return CheckResult("model", FAIL, "as locked", "is not here", fix, mend=mend)
    try:
        lock.read(folder)
        root = lock.verify(folder).root
    except PipelineError as error:
        return CheckResult("model", FAIL, "as locked", f"{error.what} ({error.where})", fix, mend=mend)
    return CheckResult("model", OK, "as locked", f"{name}, root {root[:16]}…")


def _dataset(name: str, say: Say) -> CheckResult:
    name = settings.dataset(name).name
    expected, path = fetch.pinned_sha256(name), fetch.place(name)
    fix = f"invoke data --set {name}"
    if not path.exists() or expected is None:
        return CheckResult("data", FAIL, "as pinned", f"{name} is not here", fix, mend=lambda: fetch.ensure(name, say))
    if sha256_of(path) != expected:
        return CheckResult("data", FAIL, "as pinned", f"{name} is damaged", fix, mend=lambda: fetch.ensure(name, say))
    return CheckResult("data", OK, "as pinned", f"{name}, sha256 {expected[:16]}…")


def _memory(model: str, facts: TorchFacts) -> CheckResult:
    """The engine's own plan for the memory that is free now."""
    kind = memory.Kind(4, "cpu") if facts.gpu is None else memory.Kind(2, "cuda")  # float32, bfloat16
    try:
        shape = _shape(model)
    except PipelineError:
        return CheckResult("memory", WARN, "room for it", "the model is not here", f"invoke setup --model {model}")
    weights_bytes, free_bytes = shape.parameters * kind.itemsize, free_memory.free_bytes(kind)
    found = f"{free_bytes / 2**20:,.0f} MiB free, weights {weights_bytes / 2**20:,.0f}"
    try:
        limits = memory.plan(shape, kind, kind, max(0, free_bytes - weights_bytes)).limits
    except PipelineError as error:
        fix = "end other programs and the desktop; sync; echo 3 | sudo tee /proc/sys/vm/drop_caches"
        return CheckResult("memory", FAIL, error.expected or "room", f"{found}; {error.actual} left", fix)
    return CheckResult(
        "memory", OK, "room for it", f"{found}; passes of {limits.budget_rows:,} rows, {limits.slots:,} slots"
    )


def _shape(model: str) -> Shape:
    folder = paths.models() / model if model in settings.model_names() else Path(model)
    if model in settings.model_names() and not (folder / "config.json").exists():
        described = settings.model(model)
        if isinstance(described, HubModelConfig):
            return described.shape
    return config.read_shape(folder)
