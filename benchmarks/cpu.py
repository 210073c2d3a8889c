"""Ours and transformers' pipe() side by side on this CPU: the stand-in in float32 on obqa-validation.

    python benchmarks/cpu.py                      # 100 rows, 48 new tokens, about ten minutes on two cores
    python benchmarks/cpu.py --only ours,pipe-16  # some of the contenders
    python benchmarks/cpu.py --model standin-base # without the adapter: it rambles, so answers are long

Every contender runs in a process of its own, so that its peak memory is its own, and is timed as a run
is: tokenise, generate, decode, on a warm model. The pipe gets its prompts sorted by length, which is the
best that batching can do; its answers are put back in order. For ours the projections and the head of its passes are
timed alone too, in the same process: no way of computing these rows is faster. The last line is JSON. With --to FOLDER
the table is also drawn there, as bench.svg and bench.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.errors import end_plainly  # noqa: E402

end_plainly()
import torch  # noqa: E402

from pipeline import reference, text_generation  # noqa: E402
from pipeline.dataset import fetch, records  # noqa: E402
from pipeline.engine import network, projection  # noqa: E402
from pipeline.engine.pass_log import PassLog  # noqa: E402
from pipeline.engine.weights import Weights  # noqa: E402
from pipeline.model import fetch as setup  # noqa: E402
from pipeline.record import provenance  # noqa: E402
from pipeline.report import bench_picture  # noqa: E402
from pipeline.runs.engines import Answers, Pipe  # noqa: E402

DATASET = "obqa-validation"
CONTENDERS = ("ours", "pipe-1", "pipe-4", "pipe-16", "pipe-32", "ours-500")
WARM_UP = [[{"role": "user", "content": "What about solving an 2x + 3 = 7 equation?"}]]


def contend(name: str, model: str, rows: int, max_new_tokens: int) -> dict[str, Any]:
    """Load, warm up and time one contender in this process."""
    kind, _, number = name.partition("-")
    base_rows, rows = rows, int(number) if kind == "ours" and number else rows
    folder, data = setup.resolve(model, _quiet), fetch.ensure(DATASET, _quiet)
    chats = [row.messages for row in records.read(data)[:rows]]
    arguments = {"max_new_tokens": max_new_tokens, "return_full_text": False, "do_sample": False}
    order = list(range(len(chats)))
    if kind == "ours":
        pipe: Pipe = text_generation.load(folder, dtype="float32", device="cpu")
    else:
        pipe = reference.load(folder, dtype="float32", device="cpu")
        arguments["batch_size"] = int(number)
        order.sort(key=lambda index: len(chats[index][-1]["content"]))
    pipe.warm_up()
    pipe(WARM_UP, **{**arguments, "max_new_tokens": 4})

    def timed(count: int) -> tuple[float, Answers]:
        start = time.perf_counter()
        answers = pipe.answer([chats[index] for index in order[:count]], **arguments)
        return time.perf_counter() - start, answers

    # The machine's speed drifts, so growth is measured in one process, the smaller set before and after the larger.
    before_s = timed(base_rows)[0] if rows > base_rows else None
    elapsed_s, answers = timed(rows)
    passes = None if answers.log is None else len(answers.log.end_s)
    growth = elapsed_s / ((before_s + timed(base_rows)[0]) / 2) if before_s is not None else None
    alone_s = min(projections_s(pipe.engine.weights, answers.log) for _ in range(2)) if kind == "ours" else None
    texts = [""] * len(chats)
    for index, output in zip(order, answers.outputs, strict=True):
        texts[index] = output[0]["generated_text"]
    return {
        "name": name,
        "rows": len(chats),
        "elapsed_s": elapsed_s,
        "peak_bytes": provenance.peak_memory()["host_bytes"],
        "growth": growth,
        "passes": passes,
        "projections_s": alone_s,
        "texts": texts,
    }


def projections_s(weights: Weights, log: PassLog) -> float:
    """Seconds of the projections and the head alone, for passes of the same rows."""
    shape = weights.shape
    x, mixed, inner = (
        torch.randn(max(map(sum, zip(log.prompt_rows, log.answer_rows, strict=True))), width, dtype=weights.dtype)
        for width in (shape.hidden, shape.heads * shape.head_dim, shape.intermediate)
    )
    start = time.perf_counter()
    with torch.inference_mode():
        for prompt_rows, answer_rows in zip(log.prompt_rows, log.answer_rows, strict=True):
            rows = prompt_rows + answer_rows
            for layer in weights.layers:
                for values, weight in ((x, layer.qkv), (mixed, layer.o), (x, layer.gate_up), (inner, layer.down)):
                    projection.linear(values[:rows], weight)
            for part in x[:answer_rows].split(network.CPU_HEAD_ROWS):
                projection.linear(part, weights.head)
    return time.perf_counter() - start


def compare(names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """All contenders, one after another, each in its own process."""
    results = {}
    for name in names:
        print(f"… {name}", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--contender", name, "--model", options.model]
        command += ["--rows", str(options.rows), "--max-new-tokens", str(options.max_new_tokens)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(done.returncode)  # it has said why
        results[name] = json.loads(done.stdout.splitlines()[-1])
    return results


def against_pipe(results: dict[str, Any], name: str) -> tuple[str, str]:
    """How many times as fast as pipe() one by one, and how many answers are the same; "–" where it did other rows."""
    base, result = results.get("pipe-1"), results[name]
    if base is None or base["rows"] != result["rows"]:
        return "–", "–"
    equal = sum(a == b for a, b in zip(base["texts"], result["texts"], strict=True))
    return f"{base['elapsed_s'] / result['elapsed_s']:.1f}", f"{equal} of {result['rows']}"


def bars(results: dict[str, Any]) -> list[bench_picture.Bar]:
    """Of the contenders that did the same rows: the first one's."""
    rows = next(iter(results.values()))["rows"]
    drawn = []
    for name, result in results.items():
        faster, equal = against_pipe(results, name)
        kind, _, batch = name.partition("-")
        label = (
            "ours"
            if kind == "ours"
            else "transformers' pipe(), " + (f"batches of {batch}" if batch != "1" else "one by one")
        )
        words = f"{result['elapsed_s']:.1f} s, {result['peak_bytes'] / 2**20:,.0f} MiB"
        if faster != "–" and name != "pipe-1":
            words += f", {faster} × as fast, {equal} answers the same"
        if result["rows"] == rows:
            drawn.append(bench_picture.Bar(label, result["elapsed_s"], words, kind == "ours"))
    return drawn


def table(results: dict[str, Any]) -> str:
    lines = [f"{'':<10}{'rows':>6}{'seconds':>10}{'× pipe-1':>10}{'peak MiB':>10}{'as pipe-1':>12}"]
    for name, result in results.items():
        faster, equal = against_pipe(results, name)
        peak = result["peak_bytes"] / 2**20
        lines.append(f"{name:<10}{result['rows']:>6}{result['elapsed_s']:>10.1f}{faster:>10}{peak:>10.0f}{equal:>12}")
    return "\n".join(lines)


def verdicts(results: dict[str, Any]) -> dict[str, float]:
    """The ratios that the project promises, where both sides were run."""
    seconds = {name: result["elapsed_s"] for name, result in results.items()}
    batches = [value for name, value in seconds.items() if name.startswith("pipe-")]
    found = {}
    if "ours" in seconds and "pipe-1" in seconds:
        found["faster_than_batch_1"] = seconds["pipe-1"] / seconds["ours"]
        found["faster_than_best_batch"] = min(batches) / seconds["ours"]
        found["memory_of_batch_1"] = results["ours"]["peak_bytes"] / results["pipe-1"]["peak_bytes"]
    for name, result in results.items():
        if result["projections_s"] is not None:
            found[f"{name}_over_projections"] = result["elapsed_s"] / result["projections_s"]
    if "ours-500" in results and results["ours-500"]["growth"]:
        found["growth_to_500_rows"] = results["ours-500"]["growth"]
    return {key: round(value, 3) for key, value in found.items()}


def _quiet(_line: str) -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="standin", help="a name under configs/models, or a folder")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, comma between")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help="a folder for bench.svg and bench.png")
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(contend(options.contender, options.model, options.rows, options.max_new_tokens)))
        return
    names = options.only.split(",")
    if unknown := [name for name in names if name not in CONTENDERS]:
        parser.error(f"no contender {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    results = compare(names, options)
    environment = provenance.environment()
    machine = f"{environment['processor']}, {environment['threads']} threads, torch {environment['packages']['torch']}"
    print(f"\n{options.model} on {machine}")
    print(table(results))
    if options.to:
        options.to.mkdir(parents=True, exist_ok=True)
        title = f"{options.rows} prompts of {DATASET}, {options.model} in float32"
        for path in bench_picture.write(options.to, title, machine, bars(results)):
            print(f"written: {path}")
    summary = {name: {k: v for k, v in result.items() if k != "texts"} for name, result in results.items()}
    print(json.dumps({"results": summary, "ratios": verdicts(results), "environment": environment}))


if __name__ == "__main__":
    main()
