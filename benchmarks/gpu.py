"""Distance from the bare matrix products, on a GPU, at Phi-3-medium's shapes.

    python benchmarks/gpu.py phi3_ids.json                    # everything; a GPU with 70 GiB, about eight minutes
    python benchmarks/gpu.py phi3_ids.json --only sets        # the main table; --shape tiny tries the script out

`phi3_ids.json`: for each set, [[token ids of a prompt, tokens of its reference answer], …]. Weights are random, so
answers are scripted, for every contender alike: as many tokens as the reference answer has, then the end token. Drafts
are right as if the model gave the reference answer; `benchmarks/drafts.py` says how often a real model does.

The floor of a set: its rows (prompts as a tree, and answers) times the time of a row in the four projections alone,
in passes as large as ours; at least one reading of the weights for the answers. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.scripted import END, SHAPES, Floor, Scripted, Set, random_weights, read_sets, timed  # noqa: E402
from pipeline.engine import backend, drafts, memory, network  # noqa: E402
from pipeline.engine.forecast import Script, forecast  # noqa: E402
from pipeline.engine.segment import Segment, pack  # noqa: E402
from pipeline.engine.state import Limits  # noqa: E402
from pipeline.engine.weights import Weights  # noqa: E402

REPEATS = 3
# Parts of the report. Each prints its table and returns it for the JSON.


def ceilings(floor: Floor) -> dict[str, float]:
    """The device's highest rates, measured: a copy, a square product, one reading of the weights."""
    device = floor.weights.device
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product_s = min(timed(lambda: a @ b) for _ in range(10))
    source = torch.randn(2 * side * side, device=device)
    target = torch.empty_like(source)
    copy_s = min(timed(lambda: target.copy_(source)) for _ in range(10))
    floor.sweep_s = min(floor.pass_s(16) for _ in range(5))
    found = {
        "product_tflops": 2 * side**3 / product_s / 1e12,
        "copy_tb_per_s": 2 * source.nbytes / copy_s / 1e12,
        "sweep_ms": floor.sweep_s * 1e3,
    }
    print(", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    return found


def passes(engine: Scripted, floor: Floor) -> list[dict[str, float]]:
    """A pass at each size beside its projections."""
    print(f"\n{'rows':>6}{'ours ms':>10}{'floor ms':>10}{'ratio':>7}{'µs/row':>8}")
    found = []
    for rows, ours_s in zip(engine.cost.rows, engine.cost.elapsed_s, strict=True):
        bare_s = min(floor.pass_s(rows) for _ in range(2))
        found.append({"rows": rows, "ours_ms": ours_s * 1e3, "floor_ms": bare_s * 1e3})
        print(f"{rows:>6}{ours_s * 1e3:>10.2f}{bare_s * 1e3:>10.2f}{ours_s / bare_s:>7.2f}{ours_s / rows * 1e6:>8.1f}")
    return found


def table(engine: Scripted, sets: list[Set], floor: Floor) -> dict[str, dict[str, Any]]:
    """Ours beside the floor, alternately, medians; the prediction was made before."""
    print(f"\n{'set':<10}{'rows':>7}{'passes':>7}{'floor ms':>10}{'ours ms':>10}{'ratio':>7}", end="")
    print(f"{'predicted':>11}{'off':>7}{'device ms':>11}{'host':>7}")
    found = {}
    for data in sets:
        limits = engine.limits_in_use()
        expected = forecast(data.prompts, data.script, limits, engine.cost)
        engine.answer(data)  # the allocator and the GPU's clocks settle
        rounds = []
        for _ in range(REPEATS):
            floor_s = floor.of(data, min(limits.budget_rows, max(expected.pass_rows)))
            ours_s, result = engine.answer(data)
            rounds.append((ours_s, floor_s, engine.device_s()))
        ours_s, floor_s, device_s = (statistics.median(column) for column in zip(*rounds, strict=True))
        stats = result.stats
        found[data.name] = {
            "rows": stats.prompt_rows + stats.answer_rows,
            "passes": stats.passes,
            "floor_ms": floor_s * 1e3,
            "ours_ms": ours_s * 1e3,
            "ratio": ours_s / floor_s,
            "predicted_ms": expected.elapsed_s * 1e3,
            "device_ms": device_s * 1e3,
            "all_ours_ms": [r[0] * 1e3 for r in rounds],
            "all_floor_ms": [r[1] * 1e3 for r in rounds],
        }
        host = max(0.0, 1 - device_s / ours_s) if device_s else float("nan")
        print(
            f"{data.name:<10}{stats.prompt_rows + stats.answer_rows:>7}{stats.passes:>7}{floor_s * 1e3:>10.1f}", end=""
        )
        print(f"{ours_s * 1e3:>10.1f}{ours_s / floor_s:>7.3f}{expected.elapsed_s * 1e3:>11.1f}", end="")
        print(f"{expected.elapsed_s / ours_s - 1:>+7.1%}{device_s * 1e3:>11.1f}{host:>7.1%}")
    return found


WAYS = {(): 3, ("flash",): 3, ("paged",): 3, ("kernels",): 3, ("kernels", "flash"): 1}
"""Back ends left out, and how often to measure what is chosen then."""


def ways(weights: Weights, limits: Limits, data: Set, floor: Floor) -> dict[str, float]:
    """One set through each back end, as if the better ones were not there."""
    print(f"\n{data.name}, by back end")
    found = {}
    for without, repeats in WAYS.items():
        chosen = backend.choose(weights.shape, weights.dtype, weights.device, frozenset(without))
        name = f"{chosen.ops_name} + {chosen.attention_name}"
        if without == ("flash",):
            name += ", torch's flash switched off"
        engine = Scripted(weights, limits, backend=chosen)
        engine.warm_up()
        engine.answer(data)
        pairs = [(engine.answer(data)[0], floor.of(data, engine.limits_in_use().budget_rows)) for _ in range(repeats)]
        ours_s, floor_s = (statistics.median(column) for column in zip(*pairs, strict=True))
        found[name] = ours_s / floor_s
        print(f"  {name:<45}{ours_s * 1e3:>9.1f} ms{ours_s / floor_s:>7.3f} × floor")
        del engine
    return found


def budgets(engine: Scripted, data: Set) -> dict[int, float]:
    """The pass size: what was calibrated, and others by hand."""
    print(f"\n{data.name}, by pass size (calibrated: {engine.limits_in_use().budget_rows})")
    kept, found = engine.limits, {}
    for rows in (1024, 2048, 3072, 4096, 6144, 8192):
        if rows > kept.budget_rows:
            continue
        limits = replace(kept, budget_rows=rows, live=max(1024, rows // 8))
        found[rows] = min(engine.answer(data, limits)[0] for _ in range(2)) * 1e3
        print(f"  {rows:>6}{found[rows]:>10.1f} ms")
    return found


def draft_sweep(engine: Scripted, sets: list[Set]) -> dict[str, dict[str, float]]:
    """Drafts of at most so many tokens, every other candidate wrong from its third token on; and the policy."""
    kept, found = engine.draft_policy, {}
    print("\ndrafts, half of the prompts' candidates go wrong after two tokens; ms by longest draft")
    for data in sets:
        wrong = [[[*a[:2], *[7] * (len(a) - 3), END] if i % 2 else a] for i, a in enumerate(data.script.answers)]
        misled = Set(data.name, data.prompts, _Misled(data.script.answers, wrong))
        row: dict[str, float] = {}
        for longest in (0, 1, 2, 4, 8, 16, None):
            if longest is not None:
                engine.draft_policy = lambda draft, *_, n=longest: drafts.Draft(draft.tokens[:n], draft.source)
            row["policy" if longest is None else str(longest)] = min(engine.answer(misled)[0] for _ in range(3)) * 1e3
            engine.draft_policy = kept
        found[data.name] = row
        print(f"  {data.name:<10}" + "".join(f"{name:>8} {ms:7.1f}" for name, ms in row.items()))
    return found


@dataclass(frozen=True)
class _Misled(Script):
    offered: list[list[Sequence[int]]]

    @property
    def candidates(self) -> list[list[Sequence[int]]]:
        return self.offered


def long_prefix(engine: Scripted, floor: Floor) -> dict[str, float]:
    """500 prompts of 20 tokens behind 2,000 shared ones, 4 answer tokens each."""
    generator = torch.Generator().manual_seed(1)

    def ids(count: int) -> list[int]:
        return torch.randint(3, 32000, (count,), generator=generator).tolist()

    shared = ids(2000)
    data = Set("2000+20", [[*shared, *ids(20)] for _ in range(500)], Script([[*[100] * 4, END]] * 500))
    return table(engine, [data], floor)[data.name]


def graphs(engine: Scripted) -> dict[int, tuple[float, float]]:
    """Small passes as CUDA graphs against the same passes launched one by one."""
    found = {}
    print("\nsmall passes: launched, and replayed as a CUDA graph; ms")
    for rows in (1, 16, 64, 128, 256, 512):
        context = torch.arange(128).numpy()
        segments = [Segment(torch.ones(1, dtype=torch.int64).numpy(), 127, context, 1) for _ in range(rows)]
        packed = pack(segments, engine.weights.device)
        plan = engine.backend.plan(packed, engine.weights.shape, engine.weights.dtype)
        fixed = replace(engine.backend, plan=lambda *_, plan=plan: plan)

        def launch(packed: Any = packed, fixed: Any = fixed) -> torch.Tensor:
            return network.forward(engine.weights, engine.pool, packed, fixed)

        launch()
        launched_s = min(timed(launch) for _ in range(10))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            launch()
        replayed_s = min(timed(graph.replay) for _ in range(10))
        found[rows] = (launched_s * 1e3, replayed_s * 1e3)
        print(f"  {rows:>5}{launched_s * 1e3:>9.2f}{replayed_s * 1e3:>9.2f}")
        del graph
    return found


def against_transformers(weights: Weights, sets: dict[str, Set]) -> dict[str, float]:
    """transformers' own ways, on the same weights and the same script."""
    from benchmarks import peers  # noqa: PLC0415 - transformers takes seconds

    model = peers.build(weights)
    few, many = sets["pub30"], sets.get("obqa500")
    found: dict[str, float] = {}

    def note(name: str, run: Callable[[], float]) -> None:
        try:
            found[name] = run() * 1e3
            print(f"  {name:<45}{found[name]:>10.0f} ms")
        except (RuntimeError, ValueError, TypeError) as error:  # a peer that fails is a result too
            print(f"  {name:<45}failed: {str(error)[:160]}")

    print("\ntransformers on the same weights and script")
    peers.generate(model, few.prompts[:4], few.script.answers[:4], 4)
    note("pub30, generate, batch 1", lambda: peers.generate(model, few.prompts, few.script.answers, 1))
    for size in (8, 16, 30):
        note(f"pub30, generate, batch {size}", lambda n=size: peers.generate(model, few.prompts, few.script.answers, n))
    note("pub30, generate_batch", lambda: peers.generate_batch(model, few.prompts, few.script.answers))
    if many is not None:
        note("obqa500, generate_batch", lambda: peers.generate_batch(model, many.prompts, many.script.answers))
        name = "obqa500, generate_batch, made to share"
        note(name, lambda: peers.generate_batch(model, many.prompts, many.script.answers, sharing=True))
    return found


PARTS = ("sets", "ways", "budgets", "drafts", "prefix", "graphs", "peers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", help="phi3_ids.json")
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--sets", nargs="*", default=[], help="only these sets of the file")
    parser.add_argument("--limit", type=int, default=None, help="only the first prompts of each set")
    parser.add_argument("--shape", default="phi3-medium", choices=SHAPES)
    options = parser.parse_args()

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = SHAPES[options.shape]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {options.shape}", flush=True)
    sets = read_sets(options.ids, options.sets, options.limit)
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "shape": options.shape}

    with torch.inference_mode():
        weights = random_weights(shape, device)
        report.update(our_parts(weights, sets, options.only))
    if "peers" in options.only:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        report["peers"] = against_transformers(weights, {data.name: data for data in sets})
    print(json.dumps(report))


def our_parts(weights: Weights, sets: list[Set], only: Sequence[str]) -> dict[str, Any]:
    """All but the peers; what it held on the device is free when it returns."""
    device = weights.device
    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else 2**32
    limits = memory.plan(weights.shape, weights.dtype, device, free).limits
    floor, engine = Floor(weights), Scripted(weights, limits)
    report: dict[str, Any] = {"ceilings": ceilings(floor)}
    chosen = engine.backend
    print(f"{chosen.ops_name} + {chosen.attention_name}; passed over: {chosen.passed_over or 'none'}")
    warm_s = timed(engine.warm_up)
    gc.collect()
    gc.freeze()  # as text_generation.py does after warm-up
    print(f"limits {engine.limits_in_use()}, warm-up {warm_s:.1f} s", flush=True)
    report["passes"] = passes(engine, floor)
    by_name = {data.name: data for data in sets}
    one = by_name.get("obqa500", sets[0])
    parts: dict[str, Callable[[], Any]] = {
        "sets": lambda: table(engine, sets, floor),
        "prefix": lambda: long_prefix(engine, floor),
        "graphs": lambda: graphs(engine),
        "budgets": lambda: budgets(engine, one),
        "drafts": lambda: draft_sweep(engine, [d for d in sets if d.name in ("pub30", "obqa500")] or sets),
        "ways": lambda: ways(weights, replace(limits, slots=min(limits.slots, 32768)), one, floor),
    }
    for part, run in parts.items():
        if part in only and (part != "graphs" or device.type == "cuda"):
            report[part] = run()
            sys.stdout.flush()
    return report


if __name__ == "__main__":
    main()
