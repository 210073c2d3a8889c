"""The cost of answers that depend on their prompts alone, and whether they do.

    python benchmarks/invariance.py phi3_ids.json                     # a GPU with 70 GiB
    python benchmarks/invariance.py phi3_ids.json --only cost --sets pub30 --rounds 9
    python benchmarks/invariance.py phi3_ids.json --attention OLD/attention.cu    # "before" has that kernel
    python benchmarks/invariance.py phi3_ids.json --shape tiny        # the same on a small model: tries the script out

cost: each set through engines of one process, on the same weights with the same pass size: "before", with torch's
products; "settled", with those that the trial chose; with --attention, "attention" between them, with torch's products
and today's kernel. They alternate, which of them is first too; medians of the rounds, with the least and the most.
schedules: free greedy answers under other pass sizes, pools and orders, and alone: how many differ from those of the
largest passes. Weights are random, so near ties are everywhere. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.scripted import SHAPES, Scripted, Set, random_weights, read_sets, timed  # noqa: E402
from pipeline.engine import backend, invariance, memory  # noqa: E402
from pipeline.engine.attention import paged  # noqa: E402
from pipeline.engine.backend import Backend  # noqa: E402
from pipeline.engine.engine import Engine  # noqa: E402
from pipeline.engine.kernels import build, library  # noqa: E402
from pipeline.engine.state import Limits  # noqa: E402
from pipeline.engine.weights import Weights  # noqa: E402

FREE_TOKENS = 24
SLOTS = 32768


def with_attention(chosen: Backend, source: str | None) -> Backend:
    """The backend with its attention compiled from another source."""
    if source is None:
        return chosen
    here, built = build.HERE, build.BUILT
    folder = Path(tempfile.mkdtemp(prefix="before-")) / "kernels"
    shutil.copytree(here, folder, ignore=shutil.ignore_patterns("built", "__pycache__"))
    shutil.copyfile(source, folder / "attention.cu")
    build.HERE, build.BUILT = folder, folder / "built"
    try:
        other = library.load.__wrapped__(torch.cuda.get_device_capability())
    finally:
        build.HERE, build.BUILT = here, built
    return replace(chosen, plan=paged.planner(other))


def cost(
    weights: Weights, ways: dict[str, Backend], limits: Limits, sets: list[Set], rounds: int
) -> dict[str, dict[str, Any]]:
    engines = {name: Scripted(weights, limits, backend=way) for name, way in ways.items()}
    first = next(iter(engines.values()))
    first.warm_up()
    for engine in engines.values():
        engine.cost = first.cost  # the same passes
    found: dict[str, dict[str, Any]] = {}
    print(f"\npasses of {limits.budget_rows} rows; ms, median (least to most) of {rounds} rounds")
    for data in sets:
        times: dict[str, list[float]] = {name: [] for name in engines}
        device: dict[str, list[list[float]]] = {name: [] for name in engines}
        names = list(engines)
        for turn in range(rounds + 1):
            for name in names if turn % 2 else reversed(names):
                elapsed_s, result = engines[name].answer(data, limits)
                if turn:
                    times[name].append(elapsed_s * 1e3)
                    device[name].append([seconds * 1e3 for seconds in engines[name].pass_device_s()])
                    log = result.log
        rows = [prompt + answer for prompt, answer in zip(log.prompt_rows, log.answer_rows, strict=True)]
        found[data.name] = {"ms": times, "device_ms": device, "pass_rows": rows}
        medians = {name: statistics.median(values) for name, values in times.items()}
        line = "".join(
            f"  {name} {medians[name]:8.1f} ({min(values):.1f} to {max(values):.1f})" for name, values in times.items()
        )
        base = medians[names[0]]
        shares = ", ".join(f"{medians[name] / base - 1:+.2%}" for name in names[1:])
        print(f"{data.name:<10}{line}  {shares}")
        print(f"  {'device, passes of':<18}" + "".join(f"{count:>8,}" for count in rows))
        for name, values in device.items():
            if not values[0]:
                continue  # a CPU's passes have no events
            by_pass = [statistics.median(column) for column in zip(*values, strict=True)]
            print(f"  {name:<18}" + "".join(f"{ms:8.1f}" for ms in by_pass) + f"  {sum(by_pass):9.1f}", flush=True)
    return found


SCHEDULES: dict[str, dict[str, int]] = {
    "the same again": {},
    "4,096 rows": {"budget_rows": 4096},
    "1,024 rows": {"budget_rows": 1024},
    "300 rows": {"budget_rows": 300},
    "77 rows": {"budget_rows": 77},
    "7 live answers": {"live": 7},
    "5,000 slots": {"slots": 5000},
}


def schedules(
    weights: Weights, ways: dict[str, Backend], limits: Limits, prompts: Sequence[list[int]]
) -> dict[str, dict[str, int]]:
    def answer(way: Backend, asked: Sequence[list[int]], limits: Limits = limits) -> list[list[int]]:
        engine = Engine(weights, limits, backend=way)
        return engine.generate(asked, max_new_tokens=FREE_TOKENS, stop_tokens=frozenset()).tokens

    found: dict[str, dict[str, int]] = {}
    for name, way in ways.items():
        reference = answer(way, prompts)
        row = {
            label: sum(a != b for a, b in zip(answer(way, prompts, replace(limits, **other)), reference, strict=True))
            for label, other in SCHEDULES.items()
        }
        backwards = answer(way, prompts[::-1])[::-1]
        row["backwards"] = sum(a != b for a, b in zip(backwards, reference, strict=True))
        alone = range(0, len(prompts), 4)
        row[f"alone, of {len(alone)}"] = sum(answer(way, [prompts[i]])[0] != reference[i] for i in alone)
        found[name] = row
        print(f"{name}, answers of {len(prompts)} that differ: {row}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", help="phi3_ids.json")
    parser.add_argument("--only", nargs="*", default=["schedules", "cost"], choices=["schedules", "cost"])
    parser.add_argument("--sets", nargs="*", default=[], help="only these sets of the file")
    parser.add_argument("--limit", type=int, default=None, help="only the first prompts of each set")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=8192, help="of a pass")
    parser.add_argument("--shape", default="phi3-medium", choices=SHAPES)
    parser.add_argument("--attention", help="another attention.cu, for the engine that is called before")
    options = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {options.shape}", flush=True)
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "shape": options.shape}
    sets = read_sets(options.ids, options.sets, options.limit)
    with torch.inference_mode():
        weights = random_weights(SHAPES[options.shape], device)
        free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else 2**32
        limits = memory.plan(weights.shape, weights.dtype, device, free).limits
        rows = min(options.rows, limits.budget_rows)
        limits = replace(limits, budget_rows=rows, slots=min(limits.slots, SLOTS), live=max(1024, rows // 8))
        plain = backend.choose(weights.shape, weights.dtype, device)
        start = time.perf_counter()
        settled = invariance.settle(plain, weights, limits)
        report["trial_s"] = time.perf_counter() - start
        report["kept_trial_s"] = timed(lambda: invariance.settle(plain, weights, limits))
        print(f"invariant: {settled.invariance.holds}, {settled.invariance.why}")
        print(f"the trial took {report['trial_s']:.1f} s, once kept {report['kept_trial_s']:.2f} s")
        for shape, line in settled.invariance.products.items():
            print(f"  {shape:<14} {line}", flush=True)
        ways = {"before": with_attention(plain, options.attention), "settled": settled}
        if options.attention:
            ways = {"before": ways["before"], "attention": plain, "settled": settled}
        gc.collect()
        gc.freeze()  # as text_generation.py does after warm-up
        if "schedules" in options.only:
            prompts = [prompt for data in sets for prompt in data.prompts[:60]][:120]
            report["schedules"] = schedules(weights, ways, limits, prompts)
        if "cost" in options.only:
            report["cost"] = cost(weights, ways, limits, sets, options.rounds)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
