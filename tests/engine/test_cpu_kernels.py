"""Our C++ code for CPUs: right, with bits that depend on the row alone, or passed over with a reason in one line."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine import backend, self_test
from pipeline.engine.attention import pool
from pipeline.engine.kernels import build, cpu, cpu_build
from pipeline.engine.ops import TorchOps
from pipeline.engine.segment import Segment, pack
from pipeline.engine.shape import Shape

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SHAPE = Shape(
    vocab=5, hidden=64, layers=1, heads=6, kv_heads=2, head_dim=16, intermediate=48, norm_eps=1e-5, rope_theta=1e4,
    max_positions=900, window=None, tied=True,
)  # fmt: skip
SHAPES = st.builds(
    lambda head_dim, kv_heads, group, window, hidden, intermediate: replace(
        SHAPE, head_dim=head_dim, kv_heads=kv_heads, heads=kv_heads * group, window=window, hidden=hidden,
        intermediate=intermediate,
    ),
    st.sampled_from([16, 48, 64, 96, 128]), st.integers(1, 3), st.integers(1, 9), st.sampled_from([None, 1, 7, 40]),
    st.sampled_from([8, 56, 576]), st.sampled_from([8, 72, 1536]),
)  # fmt: skip
LENGTHS = st.lists(st.tuples(st.integers(0, 150), st.integers(1, 40)), min_size=1, max_size=6).map(tuple)


@pytest.fixture(scope="module")
def kernels() -> cpu.CpuKernels:
    if cpu_build.find_compiler() is None and cpu_build.built() is None:
        pytest.skip("there is no C++ compiler")
    return cpu.load()


@settings(max_examples=25, deadline=None)
@given(SHAPES, LENGTHS, st.integers(0, 9))
def test_attention_is_that_of_float64(
    kernels: cpu.CpuKernels, shape: Shape, lengths: tuple[tuple[int, int], ...], seed: int
) -> None:
    off = self_test.attention_error(pool.planner(kernels), shape, torch.float32, CPU, lengths, seed)
    assert off < 1e-6


@settings(max_examples=15, deadline=None)
@given(SHAPES, st.integers(1, 40), st.integers(0, 9))
def test_the_steps_are_those_of_float64(kernels: cpu.CpuKernels, shape: Shape, rows: int, seed: int) -> None:
    assert self_test.ops_error(kernels, shape, torch.float32, CPU, rows, seed) < 1e-6


@settings(max_examples=15, deadline=None)
@given(SHAPES, st.integers(1, 90), st.integers(0, 99))
def test_a_row_has_the_same_bits_whatever_comes_beside_it(
    kernels: cpu.CpuKernels, shape: Shape, length: int, seed: int
) -> None:
    """Its prompt cut anywhere, in any order, K/V anywhere in the pool, one thread or two."""
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    query = torch.randn(length, shape.heads, shape.head_dim, generator=generator) * 2
    kv = torch.randn(length, 2 * shape.kv_heads, shape.head_dim, generator=generator)

    def attended(parts: list[tuple[int, int]], threads: int) -> list[torch.Tensor]:
        slots = rng.permutation(3 * length)[:length]
        layer = torch.full((3 * length, *kv.shape[1:]), float("nan"))
        layer[torch.from_numpy(slots)] = kv
        segments = [Segment(np.ones(end - first, dtype=np.int64), first, slots[:end], 0) for first, end in parts]
        q = torch.cat([query[first:end] for first, end in parts])
        qkv = torch.cat([q, torch.full((len(q), *kv.shape[1:]), float("nan"))], 1)
        torch.set_num_threads(threads)
        found = pool.planner(kernels)(pack(segments, CPU), shape, torch.float32)(qkv, layer)
        return list(found.split([end - first for first, end in parts]))

    (whole,) = attended([(0, length)], 1)
    cuts = np.unique([0, length, *rng.integers(0, length, rng.integers(1, 9))]).tolist()
    parts = [*itertools.pairwise(cuts)]
    rng.shuffle(parts)
    for (first, end), rows in zip(parts, attended([tuple(part) for part in parts], 2), strict=True):
        assert torch.equal(rows, whole[first:end])


def test_the_steps_of_a_row_have_the_same_bits_beside_others(kernels: cpu.CpuKernels) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, delta = (torch.randn(300, 576, generator=generator) for _ in range(2))
    weight, gate_up = torch.randn(576, generator=generator), torch.randn(300, 3072, generator=generator) * 30
    normed, inner = kernels.add_norm(hidden.clone(), delta, weight, 1e-5), kernels.swiglu(gate_up)
    for threads, rows in ((1, slice(0, 1)), (2, slice(17, 18)), (2, slice(100, 300))):
        torch.set_num_threads(threads)  # `one_thread` sets it back
        assert torch.equal(kernels.add_norm(hidden[rows].clone(), delta[rows], weight, 1e-5), normed[rows])
        assert torch.equal(kernels.swiglu(gate_up[rows]), inner[rows])
    expected = TorchOps().swiglu(gate_up.double())
    assert torch.allclose(inner.double(), expected, rtol=1e-6, atol=1e-30)


def test_what_is_not_finite_stays_so(kernels: cpu.CpuKernels) -> None:
    """A model that computes NaN is not to look as if it answered."""
    gate_up = torch.zeros(1, 32)
    gate_up[0, 3] = float("nan")
    assert kernels.swiglu(gate_up)[0].isnan().tolist() == [index == 3 for index in range(16)]
    normed = kernels.add_norm(torch.full((1, 8), float("nan")), None, torch.ones(8), 1e-5)
    assert normed.isnan().all()


def test_they_are_chosen_where_they_fit_and_passed_over_with_a_reason(kernels: cpu.CpuKernels) -> None:
    chosen = backend.choose(SHAPE, torch.float32, CPU)
    assert (chosen.ops_name, chosen.attention_name, chosen.passed_over) == (backend.COMPILED, "pool", {})
    left_out = backend.choose(SHAPE, torch.float32, CPU, without=frozenset(["kernels"]))
    assert (left_out.ops_name, left_out.attention_name, left_out.passed_over) == ("torch", "buckets", {})
    odd = backend.choose(replace(SHAPE, head_dim=24), torch.float32, CPU)
    assert (odd.ops_name, odd.passed_over[backend.COMPILED][:12]) == ("torch", "head size 24")
    coarse = backend.choose(SHAPE, torch.bfloat16, CPU)
    assert coarse.passed_over == {backend.COMPILED: "it is for float32, this is bfloat16"}


class Wrong(TorchOps):
    """Stands for code that a compiler got wrong."""

    def swiglu(self, gate_up: torch.Tensor) -> torch.Tensor:
        return super().swiglu(gate_up) * 1.01


def test_a_library_that_computes_wrongly_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "load", Wrong)
    chosen = backend.choose(SHAPE, torch.float32, CPU)
    assert chosen.ops_name == "torch"
    assert chosen.passed_over[backend.COMPILED].endswith("off float64")


@pytest.fixture
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for module in (build, cpu_build):
        monkeypatch.setattr(module, "BUILT", tmp_path / "built")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cpu.load.cache_clear()
    yield tmp_path
    cpu.load.cache_clear()


def test_without_a_compiler_plain_torch_is_taken(nothing_built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(nothing_built))
    monkeypatch.delenv("CXX", raising=False)
    chosen = backend.choose(SHAPE, torch.float32, CPU)
    assert (chosen.ops_name, chosen.attention_name) == ("torch", "buckets")
    assert chosen.passed_over == {backend.COMPILED: "no C++ compiler on the PATH or in CXX"}


def test_a_compiler_that_refuses_is_a_reason(nothing_built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = nothing_built / "refuses"
    compiler.write_text("#!/bin/sh\necho 'cpu.cpp:1: error: no such processor' >&2\nexit 1\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    chosen = backend.choose(SHAPE, torch.float32, CPU)
    assert "failed with 1: 'cpu.cpp:1: error: no such processor'" in chosen.passed_over[backend.COMPILED]


def test_a_library_is_built_once_for_each_processor(
    kernels: cpu.CpuKernels, nothing_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another processor's features, and a changed source, never meet an old binary."""
    path = cpu_build.build()
    assert path == cpu_build.built() == nothing_built / "built" / cpu_build.library_name()
    stamp = path.stat().st_mtime_ns
    assert cpu_build.build().stat().st_mtime_ns == stamp
    names = {path.name}
    monkeypatch.setattr(cpu_build, "_features", lambda: ["flags : another"])
    names.add(cpu_build.library_name())
    monkeypatch.setattr(cpu_build, "FLAGS", (*cpu_build.FLAGS, "-g"))
    names.add(cpu_build.library_name())
    assert len(names) == 3
    assert cpu_build.built() is None


def test_its_threads_are_torchs(kernels: cpu.CpuKernels) -> None:
    """One OpenMP runtime in the process: a second one's threads would compete for the cores."""
    names = {path.resolve() for path in cpu_build._loaded() if path.name.startswith(cpu_build.RUNTIMES)}
    assert len(names) == 1, names
