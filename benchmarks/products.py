"""Our matrix product beside the library's, on one CUDA device: correctness, bits and times.

    python benchmarks/products.py                     # about three minutes; needs nvcc
    python benchmarks/products.py --sizes 16 4096

For each weight shape of Phi-3-medium and each number of rows: torch's own product, cuBLASLt's first proposal without
split K, the fastest of its kernels that use Ampere's instructions (told apart by the kernels' names, which the profiler
gives: ampere_…, cutlass_80_…, …s16816…), and ours with each tiling. Times are medians of alternating rounds, in µs;
weights change from call to call, so that no product finds its own in the cache. The last line is JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.engine.kernels import cublaslt, library  # noqa: E402

SHAPES = {
    "qkv": (7680, 5120),
    "o": (5120, 5120),
    "gate_up": (35840, 5120),
    "down": (5120, 17920),
    "head": (32064, 5120),
}
SIZES = (1, 16, 32, 64, 128, 192, 256, 512, 1024, 2048, 4096, 8192)
ROUNDS = 5
AMPERE = ("ampere", "cutlass_80", "sm80", "16816")
BF16 = torch.bfloat16
DEVICE = torch.device("cuda")

Call = Callable[[Tensor, Tensor, Tensor], None]
"""(x, weight, y): writes y."""


def ours(kernels: library.Kernels, tiling: int) -> Call:
    return lambda x, weight, y: kernels.product(x, weight, y, tiling)


def torchs(x: Tensor, weight: Tensor, y: Tensor) -> None:
    torch.mm(x, weight.t(), out=y)


def by(blas: cublaslt.Library, algorithm: bytes) -> Call:
    return lambda x, weight, y: blas.product(x, weight, y, algorithm)


def check(kernels: library.Kernels) -> None:
    """Against float64 on odd sizes, poisoned outputs; equal bits over all tilings and row counts."""
    generator = torch.Generator(DEVICE).manual_seed(1)
    worst = 0.0
    for outputs, inputs in ((8, 8), (24, 40), (104, 72), (264, 1000), (520, 136), (5120, 576), (1000, 4104)):
        weight = torch.randn(outputs, inputs, device=DEVICE, generator=generator).to(BF16)
        whole = torch.randn(700, inputs + 8, device=DEVICE, generator=generator).to(BF16)[:, :inputs]
        exact = whole.double() @ weight.double().t()
        bits = None
        for tiling in range(len(library.TILING_ROWS)):
            for rows in (700, 1, 2, 15, 16, 17, 63, 65, 127, 128, 129, 255, 257, 511, 699):
                start = (rows * 37) % (700 - rows + 1)
                y = torch.full((rows + 1, outputs), float("nan"), device=DEVICE, dtype=BF16)
                kernels.product(whole[start : start + rows], weight, y[:rows], tiling)
                if bits is None:
                    bits = y[:rows].clone()
                assert y[rows].isnan().all(), "wrote behind the end"
                assert torch.equal(y[:rows], bits[start : start + rows]), (outputs, inputs, tiling, rows)
        off = ((bits.double() - exact).norm() / exact.norm()).item()
        worst = max(worst, off)
    print(
        f"ours: equal bits over {len(library.TILING_ROWS)} tilings and 15 row counts; at most {worst:.2e} off float64",
        flush=True,
    )


def times(calls: dict[str, Call], x: Tensor, weights: list[Tensor], y: Tensor) -> dict[str, float]:
    """Median µs of each, in alternating rounds."""
    repeats = max(2, min(20, int(2e13 / (2 * x.numel() * weights[0].shape[0]))))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for i in range(repeats):
                call(x, weights[i % len(weights)], y)
            end.record()
            end.synchronize()
            if turn:
                found[name].append(begin.elapsed_time(end) / repeats * 1e3)
    return {name: statistics.median(values) for name, values in found.items()}


# cuBLASLt's kernels with Ampere's instructions: every algorithm, tile and number of stages is tried


def every_algorithm(blas: cublaslt.Library, rows: int, weight: Tensor) -> list[bytes]:
    """All configurations without split K that the library accepts for this product."""
    lib, (outputs, inputs) = blas._library, weight.shape
    a, b, c = (
        blas._layout(inputs, outputs, inputs),
        blas._layout(inputs, rows, inputs),
        blas._layout(outputs, rows, outputs),
    )
    ids, count = (c_int * 200)(), c_int()
    bf, f32 = cublaslt.R_16BF, cublaslt.R_32F
    lib.cublasLtMatmulAlgoGetIds(blas._handle, cublaslt.COMPUTE_32F, f32, bf, bf, bf, bf, 200, ids, byref(count))
    found = []
    for number in ids[: count.value]:
        algorithm = ctypes.create_string_buffer(cublaslt.ALGORITHM_BYTES)
        if lib.cublasLtMatmulAlgoInit(blas._handle, cublaslt.COMPUTE_32F, f32, bf, bf, bf, bf, number, algorithm):
            continue
        for tile in _capability(lib, algorithm, 6):
            for stages in _capability(lib, algorithm, 13) or [0]:
                for swizzle in (0, 1):
                    for name, value in ((1, tile), (6, stages), (2, 1), (3, 0), (4, swizzle)):
                        lib.cublasLtMatmulAlgoConfigSetAttribute(algorithm, name, byref(c_int(value)), c_size_t(4))
                    result = cublaslt.HeuristicResult()
                    state = lib.cublasLtMatmulAlgoCheck(
                        blas._handle, blas._operation, a, b, c, c, algorithm, byref(result)
                    )
                    if state == 0 and result.state == 0 and result.workspace_bytes <= cublaslt.WORKSPACE_BYTES:
                        found.append(algorithm.raw)
    return found


def _capability(lib: ctypes.CDLL, algorithm: ctypes.Array, name: int) -> list[int]:
    values, written = (c_int * 1024)(), c_size_t()
    if lib.cublasLtMatmulAlgoCapGetAttribute(algorithm, name, values, c_size_t(ctypes.sizeof(values)), byref(written)):
        return []
    return list(values[: written.value // 4])


def kernel_names(call: Callable[[], None]) -> list[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return [event.key for event in profile.key_averages()]


def ampere_algorithms(blas: cublaslt.Library, x: Tensor, weight: Tensor, y: Tensor) -> dict[str, bytes]:
    """By kernel name; the fastest configuration of each name by one timing."""
    usable = []
    for algorithm in every_algorithm(blas, len(x), weight):
        try:
            blas.product(x, weight, y, algorithm)
            usable.append(algorithm)
        except RuntimeError:
            continue
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for algorithm in usable:
            blas.product(x, weight, y, algorithm)
        torch.cuda.synchronize()
    kernels = sorted(
        (event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA),
        key=lambda event: event.time_range.start,
    )
    if len(kernels) != len(usable):
        print(f"  {len(usable)} algorithms started {len(kernels)} kernels: not told apart")
        return {}
    best: dict[str, tuple[float, bytes]] = {}
    for event, algorithm in zip(kernels, usable, strict=True):
        took = event.time_range.elapsed_us()
        if any(mark in event.name for mark in AMPERE) and took < best.get(event.name, (float("inf"), b""))[0]:
            best[event.name] = (took, algorithm)
    print(f"  {len(usable)} algorithms, {len(best)} kernels of Ampere's kind", flush=True)
    fastest = sorted(best.items(), key=lambda item: item[1][0])[:2]
    return {name: algorithm for name, (_, algorithm) in fastest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--ampere", nargs="*", type=int, default=[256, 4096], help="sizes to look for its kernels at")
    options = parser.parse_args()
    kernels = library.load(torch.cuda.get_device_capability())
    blas = cublaslt.Library(DEVICE)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuBLASLt {blas.version}", flush=True)
    report: dict[str, dict] = {}
    with torch.inference_mode():
        check(kernels)
        for name in options.shapes:
            report[name] = one_shape(kernels, blas, name, options.sizes, options.ampere)
            torch.cuda.empty_cache()
    print(json.dumps(report))


def one_shape(
    kernels: library.Kernels, blas: cublaslt.Library, name: str, sizes: list[int], ampere: list[int]
) -> dict[int, dict[str, float | str]]:
    outputs, inputs = SHAPES[name]
    torch.manual_seed(0)
    whole = torch.randn(max(*sizes, 512), inputs, device=DEVICE, dtype=BF16)
    weights = [torch.randn(outputs, inputs, device=DEVICE, dtype=BF16) * 0.02 for _ in range(3)]
    print(f"\n{name} ({outputs}, {inputs}); T: torch's bits are ours, L: cuBLASLt's are ours")
    labels = [f"ours {tiling}" for tiling in range(len(library.TILING_ROWS))]
    print(f"{'rows':>6}{'torch':>9}{'Lt':>9}{'Ampere':>9}" + "".join(f"{label:>9}" for label in labels) + "  bits")
    found: dict[int, dict[str, float | str]] = {}
    for rows in sizes:
        x, y = whole[:rows], torch.empty(rows, outputs, device=DEVICE, dtype=BF16)
        calls: dict[str, Call] = {"torch": torchs}
        proposals = blas.algorithms(rows, weights[0], inputs, 1)
        if proposals:
            calls["Lt"] = by(blas, proposals[0])
        if rows in ampere:
            for kernel, algorithm in ampere_algorithms(blas, x, weights[0], y).items():
                calls[kernel] = by(blas, algorithm)
        for tiling, label in enumerate(labels):
            calls[label] = ours(kernels, tiling)
        mine = torch.empty_like(y)
        kernels.product(x, weights[0], mine, 0)
        equal = {}
        for label, call in calls.items():
            y.fill_(float("nan"))
            call(x, weights[0], y)
            equal[label] = torch.equal(y, mine)
        took = times(calls, x, weights, y)
        marks = ("T" if equal["torch"] else "-") + ("L" if equal.get("Lt") else "-")
        theirs = {label: took[label] for label in took if any(mark in label for mark in AMPERE)}
        line = f"{rows:>6}{took['torch']:>9.1f}{took.get('Lt', float('nan')):>9.1f}"
        line += f"{min(theirs.values(), default=float('nan')):>9.1f}"
        print(line + "".join(f"{took[label]:>9.1f}" for label in labels) + f"  {marks}", flush=True)
        for label, took_us in theirs.items():
            print(f"        {took_us:9.1f} µs, bits {'ours' if equal[label] else 'others'}: {label[:110]}")
        assert all(equal[label] for label in labels)
        found[rows] = {**took, "bits": marks}
    return found


if __name__ == "__main__":
    main()
