"""Sets that want more memory than there is, under an allocator cap, beside the same sets without it.

    python benchmarks/memory.py phi3_ids.json                      # a GPU with 70 GiB; the cap is the Orin's
    python benchmarks/memory.py phi3_ids.json --shape tiny --scale 0.01   # tries the script out on any machine

Phi-3-medium's shapes, random bfloat16 weights, scripted answers (`scripted.py`). The cap holds for all that torch
allocates, weights included; the memory plan is told what it leaves. On a CPU there is no allocator to cap: the plan
alone is. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.scripted import END, SHAPES, Scripted, Set, random_weights, read_sets  # noqa: E402
from pipeline.engine import backend, memory  # noqa: E402
from pipeline.engine.forecast import Script  # noqa: E402
from pipeline.engine.weights import Weights  # noqa: E402

MIB = 2**20
CAP_MIB = 27_900
"""Memory that an Orin 32GB may leave for weights, K/V and activations."""

REPEATS, ENOUGH_S = 3, 1.0
"""A set is answered so many times, or until that has taken so long."""


def script(lengths: list[int]) -> Script:
    return Script([[*[100] * length, END] for length in lengths])


def sets(path: str, scale: float) -> list[Set]:
    """The issue's five: what is public, its longest, long passages, long prompts with long answers, very many."""
    by_name = {data.name: data for data in read_sets(path, [], None)}
    few, passages = by_name["pub30"], by_name["boolq500"]
    longest = max(few.prompts, key=len)
    generator = torch.Generator().manual_seed(7)

    def ids(count: int) -> list[int]:
        return torch.randint(3, 32_000, (count,), generator=generator).tolist()

    def some(count: int) -> int:
        return max(2, round(count * scale))

    long = max(20, round(3500 * min(1.0, 10 * scale)))
    lengths = torch.randint(20, 869, (some(4000),), generator=generator).tolist()
    return [
        few,
        Set("longest × 32", [[*longest[:-1], 3 + i] for i in range(32)], script([15] * 32)),
        Set("boolq 200", passages.prompts[: some(200)], Script(passages.script.answers[: some(200)])),
        Set("10 × 3,500 + 500", [ids(long) for _ in range(10)], script([long // 7 - 1] * 10)),
        Set(f"{len(lengths):,} random", [ids(n) for n in lengths], script([3] * len(lengths))),
    ]


@dataclass(frozen=True)
class Measured:
    elapsed_s: float
    failed_allocations: int
    recomputed_rows: int
    peak_bytes: int


def measure(weights: Weights, free_bytes: int, data: list[Set]) -> dict[str, Measured]:
    device = weights.device
    chosen = backend.choose(weights.shape, weights.dtype, device)
    planned = memory.plan(weights.shape, weights.dtype, device, free_bytes, fused=chosen.fused)
    print(f"\n{planned.text()}", flush=True)
    engine = Scripted(weights, planned.limits)
    engine.warm_up()
    found = {}
    for each in data:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        rounds = [engine.answer(each)]
        while len(rounds) < REPEATS and sum(elapsed_s for elapsed_s, _ in rounds) < ENOUGH_S:
            rounds.append(engine.answer(each))
        stats = rounds[0][1].stats
        found[each.name] = Measured(
            statistics.median(elapsed_s for elapsed_s, _ in rounds),
            sum(result.stats.failed_allocations for _, result in rounds),
            stats.recomputed_rows,
            torch.cuda.max_memory_reserved() if device.type == "cuda" else 0,
        )
        print(f"  {each.name:<20}{found[each.name].elapsed_s:>9.2f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", help="phi3_ids.json")
    parser.add_argument("--cap-mib", type=int, default=CAP_MIB)
    parser.add_argument("--shape", default="phi3-medium", choices=SHAPES)
    parser.add_argument("--scale", type=float, default=1.0, help="of the made-up sets, to try the script out")
    options = parser.parse_args()

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = sets(options.ids, options.scale)
    with torch.inference_mode():
        weights = random_weights(SHAPES[options.shape], device)
        size_bytes = weights.shape.parameters * weights.dtype.itemsize
        total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 2**33
        cap_bytes = min(total, options.cap_mib * MIB if options.shape == "phi3-medium" else size_bytes + 400 * MIB)
        if device.type == "cuda":
            size_bytes = torch.cuda.memory_reserved()
            torch.cuda.set_per_process_memory_fraction(cap_bytes / total)
        capped = measure(weights, cap_bytes - size_bytes, data)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(1.0)
        free_bytes = torch.cuda.mem_get_info()[0] if device.type == "cuda" else total
        uncapped = measure(weights, free_bytes, data)

    print(f"\n{'set':<20}{'capped s':>10}{'uncapped s':>12}{'ratio':>7}{'failed':>8}{'again rows':>12}{'peak MiB':>10}")
    report: dict[str, Any] = {"cap_mib": cap_bytes / MIB}
    for name, tight in capped.items():
        ample = uncapped[name]
        print(
            f"{name:<20}{tight.elapsed_s:>10.2f}{ample.elapsed_s:>12.2f}{tight.elapsed_s / ample.elapsed_s:>7.2f}"
            f"{tight.failed_allocations:>8}{tight.recomputed_rows:>12,}{tight.peak_bytes / MIB:>10,.0f}"
        )
        report[name] = {"capped": vars(tight), "uncapped": vars(ample)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
