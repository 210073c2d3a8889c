"""Trains the stand-in's adapter: a LoRA (arXiv 2106.09685) on every linear layer, written by hand in plain torch.

Several configurations run one after another; the one with the most exact answers on obqa-validation is kept, and only
that one and the baseline meet obqa-test and the public 30. What is evaluated is what ships: the adapter rounded to
bfloat16, merged by `pipeline.model.adapter` in float32, greedy generation in float32.

    python -m tools.train_standin --rows FILE --base models/standin --out FOLDER
    python -m tools.train_standin --rows FILE --hashes data/standin

A second call with the same --out goes on with the configurations that are not in its training.json yet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS sums in a fixed order; read when CUDA starts

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline import paths
from pipeline.dataset import records
from pipeline.files import sha256_of
from pipeline.text import candidates as choices
from tools import standin_rows
from tools.standin_lora import Judge, examples, load, loss_sum, mean_loss, rounded, warm_cosine, with_lora

SETS = {"validation": "obqa-validation", "test": "obqa-test", "pub30": "obqa"}
BASE_SHA256 = "16eb1becfa29600fa59eacf4a5355e8efe40b69ba3a3d9b55f8391433ce618ba"
"""sha256 of the model.safetensors that set-up makes without an adapter."""
LIMIT_BYTES = 10_000_000
BASELINE = "baseline"


@dataclass(frozen=True)
class Config:
    """One way to train. `ranks` in the order of `PARTS`."""

    name: str
    ranks: tuple[int, int, int, int] = (24, 16, 20, 16)
    scale: float = 2.0  # alpha / rank
    lr: float = 1e-3
    epochs: int = 6
    shuffle: bool = True
    distractors: float = 0.0
    boolq_rows: int = 3000
    dropout: float = 0.05
    weight_decay: float = 0.01
    rows_a_batch: int = 64


CONFIGS = (
    Config("shuffle"),
    Config(BASELINE, ranks=(16, 16, 16, 16), epochs=3, shuffle=False, dropout=0.0),
    Config("distractors", distractors=0.3),
    Config("fast", lr=2e-3, dropout=0.1),
    Config("long", lr=7e-4, epochs=10, distractors=0.15, dropout=0.1),
    Config("less-boolq", boolq_rows=1000, dropout=0.1, weight_decay=0.1),
    Config("slow", lr=5e-4),
)


# --- training -----------------------------------------------------------------------------------------------


def train(config: Config, args: argparse.Namespace, rows: list, judge: Judge) -> tuple[dict, dict[str, torch.Tensor]]:
    """Train one configuration. Returns its record and the adapter of its best epoch on validation."""
    began = time.monotonic()
    torch.manual_seed(args.seed)
    tokenizer = judge.tokenizer
    end = choices.end_of_answer(tokenizer, frozenset({tokenizer.eos_token_id}))
    model = load(args.base, args.device).train()
    loras = with_lora(model, config.ranks, config.scale, config.dropout, args.seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    boolq = [row for row in rows if row.source == "boolq"][: config.boolq_rows]
    rows = [row for row in rows if row.source != "boolq"] + boolq

    def prepared(epoch: int) -> list[list[tuple[list[int], int]]]:
        rng = random.Random(f"{args.seed} {epoch}")
        pairs = standin_rows.varied(rows, rng, shuffle=config.shuffle, distractors=config.distractors)
        made = examples(tokenizer, pairs, end)
        order = standin_rows.batches([len(ids) for ids, _ in made], config.rows_a_batch, rng)
        return [[made[i] for i in batch] for batch in order]

    pairs = [(row.messages[-1]["content"], row.answer) for row in judge.sets["validation"]]
    held_out = examples(tokenizer, pairs, end)
    steps = args.steps or config.epochs * -(-len(rows) // config.rows_a_batch)
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warm_cosine(s, steps))
    record: dict[str, Any] = {**asdict(config), "steps": steps, "parameters": sum(p.numel() for p in parameters)}
    record["curve"], best, best_key, step = [], {}, (-1, -1, 0.0), 0
    # `prepared` runs one epoch ahead in a thread: the tokenizer lets go of the interpreter lock.
    with ThreadPoolExecutor(1) as ahead, sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        coming = ahead.submit(prepared, 0)
        for epoch in range(config.epochs):
            batches, losses, targets = coming.result(), [], 0
            coming = ahead.submit(prepared, min(epoch + 1, config.epochs - 1))
            for batch in batches[: steps - step]:
                total, count = loss_sum(model, batch, args.bf16)
                optimizer.zero_grad(set_to_none=True)
                (total / count).backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                losses.append(total.detach())
                targets, step = targets + count, step + 1
            train_loss = float(torch.stack(losses).sum()) / targets
            validation_loss = mean_loss(model, held_out, args.bf16)
            point = {"epoch": epoch + 1, "step": step, "train_loss": train_loss, "validation_loss": validation_loss}
            last = step >= steps or time.monotonic() > args.deadline
            if 2 * (epoch + 1) >= config.epochs or last:
                halves = rounded(loras)
                judge.merge(halves, config.scale)
                point |= judge.scores("validation")
                key = (point["exact"], point["among_choices"], -validation_loss)
                if key > best_key:
                    best, best_key, record["validation"] = halves, key, point
            record["curve"].append({**point, "elapsed_s": round(time.monotonic() - began, 1)})
            print(f"{config.name}: {record['curve'][-1]}", flush=True)
            if last:
                break
    record["elapsed_s"] = round(time.monotonic() - began, 1)
    return record, best


# --- what stands around it ----------------------------------------------------------------------------------


def base_of(args: argparse.Namespace) -> Path:
    """A checkpoint's folder: the given one, or one made of the parts of the GGUF file."""
    if args.base is not None:
        if sha256_of(args.base / "model.safetensors") != BASE_SHA256:
            raise SystemExit(f"{args.base} is not the base: does it have an adapter in it already?")
        return args.base
    import gguf  # noqa: PLC0415 - only needed here

    from pipeline.model import standin  # noqa: PLC0415

    folder = args.gguf_parts / "base"
    if not (folder / "model.safetensors").exists():
        folder.mkdir(exist_ok=True)
        source = args.gguf_parts / "source.gguf"
        source.write_bytes(b"".join(part.read_bytes() for part in sorted(args.gguf_parts.glob("part.*"))))
        names = (
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        )
        standin.convert(gguf.GGUFReader(source), folder, "float32", frozenset(names))
    if (actual := sha256_of(folder / "model.safetensors")) != BASE_SHA256:
        print(f"WARNING: the base is {actual}, not the one that set-up makes", flush=True)
    return folder


def versions(device: str) -> dict[str, str]:
    cuda = {"cuda": torch.version.cuda, "gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        **cuda,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="training rows, JSON lines")
    parser.add_argument("--sets", type=Path, default=paths.data() / "sets", help="folder of the evaluation sets")
    parser.add_argument("--hashes", type=Path, help="write the rows' hashes into this folder; without --out only that")
    parser.add_argument("--out", type=Path, help="folder for adapter.safetensors and training.json")
    parser.add_argument("--base", type=Path, help="checkpoint without an adapter")
    parser.add_argument("--gguf-parts", type=Path, help="or: folder of part.00, part.01, … of the GGUF file")
    parser.add_argument("--configs", default=",".join(c.name for c in CONFIGS), help="which, and in which order")
    parser.add_argument("--seconds", type=float, default=500, help="start no configuration that would end later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--float32", dest="bf16", action="store_false", help="train in float32 (TF32), not bf16 autocast"
    )
    parser.add_argument("--row-limit", type=int, help="for a try: only so many training rows")
    parser.add_argument("--eval-rows", type=int, help="for a try: only so many rows of each evaluation set")
    parser.add_argument("--steps", type=int, help="for a try: only so many steps")
    args = parser.parse_args()
    if args.out and (args.base is None) == (args.gguf_parts is None):
        parser.error("name one of --base and --gguf-parts")
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def main() -> None:
    began = time.monotonic()
    args = arguments()
    all_rows = standin_rows.read(args.rows)
    sets = {name: records.read(args.sets / f"{file}.jsonl") for name, file in SETS.items()}
    evaluated = [row.messages[-1]["content"] for rows in sets.values() for row in rows]
    rows = standin_rows.guarded(all_rows, evaluated)
    print(f"{len(rows)} of {len(all_rows)} rows; the others' questions are in an evaluation set", flush=True)
    if args.hashes:
        standin_rows.write_hashes(args.hashes, rows)
    if not args.out:
        return
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("high")
    args.out.mkdir(parents=True, exist_ok=True)
    args.base = base_of(args)
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.base)
    judge = Judge(load(args.base, args.device), tokenizer, {n: r[: args.eval_rows] for n, r in sets.items()})
    print(f"ready after {time.monotonic() - began:.0f} s: {versions(args.device)}", flush=True)

    args.deadline = began + args.seconds + 40  # should the estimate have been wrong: stop after the epoch
    path = args.out / "training.json"
    report = json.loads(path.read_text()) if path.exists() else {"configs": {}, "best": None}
    report |= {
        "seed": args.seed,
        "precision": "bf16 autocast" if args.bf16 else "float32 (TF32)",
        "versions": versions(args.device),
        "base_sha256": sha256_of(args.base / "model.safetensors"),
        "rows_sha256": sha256_of(args.rows),
        "rows_used": len(rows),
        "rows_dropped": len(all_rows) - len(rows),
    }
    by_name = {config.name: config for config in CONFIGS}
    second_per_epoch = 0.0
    for config in (by_name[name] for name in args.configs.split(",") if name not in report["configs"]):
        if time.monotonic() - began + second_per_epoch * config.epochs > args.seconds:
            print(f"{config.name}: no time left for it", flush=True)
            continue
        record, halves = train(config, args, rows[: args.row_limit], judge)
        second_per_epoch = record["elapsed_s"] / config.epochs
        report["configs"][config.name] = record
        _keep(args.out, config, halves, report)
        path.write_text(json.dumps(report, indent=1) + "\n")
    _final(args.out, report, judge)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"best: {report['best']}, {time.monotonic() - began:.0f} s", flush=True)


def _keep(out: Path, config: Config, halves: dict[str, torch.Tensor], report: dict) -> None:
    """Save the adapter of the baseline, and of the best so far."""

    def key(name: str) -> tuple:
        point = report["configs"][name]["validation"]
        return point["exact"], point["among_choices"], -point["validation_loss"]

    is_best = report["best"] is None or key(config.name) > key(report["best"])
    report["best"] = config.name if is_best else report["best"]
    facts = {"format": "pt", "scale": str(config.scale), "config": config.name, "seed": str(report["seed"])}
    facts |= {name: report[name] for name in ("base_sha256", "rows_sha256")}
    for name in [BASELINE] * (config.name == BASELINE) + ["adapter"] * is_best:
        save_file(halves, out / f"{name}.safetensors", metadata=facts)
        size_bytes = (out / f"{name}.safetensors").stat().st_size
        if size_bytes > LIMIT_BYTES:
            raise SystemExit(f"the adapter has {size_bytes} bytes, more than {LIMIT_BYTES}")


def _final(out: Path, report: dict, judge: Judge) -> None:
    """obqa-test and the public 30, for the chosen configuration and the baseline alone; from the files that ship."""
    for name, file in ((BASELINE, BASELINE), (report["best"], "adapter")):
        if name in report["configs"] and "test" not in report["configs"][name]:
            record = report["configs"][name]
            judge.merge(load_file(out / f"{file}.safetensors"), record["scale"])
            record |= {part: judge.scores(part) for part in ("test", "pub30")}
            print(f"{name}: { ({part: record[part] for part in SETS}) }", flush=True)
    if report["best"]:
        report["adapter_sha256"] = sha256_of(out / "adapter.safetensors")


if __name__ == "__main__":
    main()
