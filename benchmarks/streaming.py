"""A checkpoint on a disk: how fast it loads, in how much host memory, and a set answered where it does not fit.

    python benchmarks/streaming.py phi3_ids.json                  # a GPU; 28 GB of disk in --folder
    python benchmarks/streaming.py phi3_ids.json --shape tiny     # tries the script out on any machine

Writes a checkpoint of random bfloat16 weights in six shards, locks it, loads it, and answers a set by a script (see
`scripted.py`): first a few prompts with resident and with streamed weights in the same passes, whose tokens must be
equal; then obqa500 under an allocator cap. Each prompt has four choices, in both spellings, one of them right, so
that guessing whole answers with the prompts costs what it really costs. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.scripted import END, MEDIUM, SHAPES, Scripted, Set, read_sets, synchronize, timed  # noqa: E402
from pipeline.engine import backend, memory  # noqa: E402
from pipeline.engine.engine import Engine  # noqa: E402
from pipeline.engine.forecast import Script  # noqa: E402
from pipeline.engine.shape import Shape  # noqa: E402
from pipeline.engine.state import Limits  # noqa: E402
from pipeline.engine.weights import Weights  # noqa: E402
from pipeline.model import loader, lock, safetensors_file  # noqa: E402

MIB = 2**20
SHARDS = 6


class Choices(Script):
    """Each prompt offers its answer and those of three others, with and without a space before."""

    @property
    def candidates(self) -> list[list[list[int]]]:
        count = len(self.answers)
        offered = [[list(self.answers[(i + k) % count]) for k in range(4)] for i in range(count)]
        return [[spelling for answer in each for spelling in (answer, [29871, *answer])] for each in offered]


def different_answers(data: Set) -> Set:
    """As long as the reference answers, but no two alike: what a guess is held against must be able to differ."""
    draw = np.random.default_rng(5)
    lengths = [len(answer) - 1 for answer in data.script.answers]
    return replace(data, script=Choices([[*draw.integers(100, 30_000, n).tolist(), END] for n in lengths]))


def write_checkpoint(folder: Path, shape: Shape, device: torch.device) -> int:
    """Six shards, names in order, as the real one has them; returns the bytes of weights."""
    expected = loader.expected_tensors(shape)
    names, index = sorted(expected), {}
    generator = torch.Generator(device).manual_seed(1)
    share = -(-len(names) // SHARDS)
    for shard in range(SHARDS):
        own = names[shard * share : (shard + 1) * share]
        path = folder / f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        index |= dict.fromkeys(own, path.name)

        def values(own: list[str] = own) -> Iterator[np.ndarray]:
            for name in own:
                size = expected[name]
                one = (
                    torch.ones(size) if len(size) == 1 else torch.randn(size, generator=generator, device=device) * 0.02
                )
                yield one.to(torch.bfloat16).cpu().view(torch.int16).numpy()

        safetensors_file.write(path, "BF16", {name: expected[name] for name in own}, values())
    (folder / loader.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu", "torch_dtype": "bfloat16",
        "vocab_size": shape.vocab, "hidden_size": shape.hidden, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "rope_scaling": None,
        "intermediate_size": shape.intermediate, "rms_norm_eps": shape.norm_eps, "rope_theta": shape.rope_theta,
        "max_position_embeddings": shape.max_positions, "original_max_position_embeddings": shape.max_positions,
        "sliding_window": shape.window, "tie_word_embeddings": shape.tied, "eos_token_id": END, "bos_token_id": 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": END}))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


class PeakRss:
    """The most of this process that lay in host memory, beyond what lay there at the start."""

    def __enter__(self) -> PeakRss:
        self._process, self._ended = psutil.Process(), threading.Event()
        self._start = self._most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.more_bytes = self._most - self._start

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self._most = max(self._most, self._process.memory_info().rss)


class Unscripted(Engine):
    """Our engine with the passes that a streamed one makes, whatever its weights are."""

    def answer(self, data: Set) -> list[list[int]]:
        return self.generate(
            data.prompts, max_new_tokens=4, stop_tokens=frozenset({END}), candidates=data.script.candidates
        ).tokens


def load(what: str, size_bytes: int, open_: Callable[[], Weights]) -> tuple[Weights, dict[str, float]]:
    with PeakRss() as peak:
        start = time.perf_counter()
        weights = open_()
        synchronize()
        elapsed_s = time.perf_counter() - start
    found = {"elapsed_s": elapsed_s, "gb_per_s": size_bytes / 1e9 / elapsed_s, "host_mib": peak.more_bytes / MIB}
    print(f"{what:<28}{elapsed_s:>8.2f} s{found['gb_per_s']:>8.2f} GB/s{found['host_mib']:>9,.0f} MiB host", flush=True)
    return weights, found


def answer(weights: Weights, data: Set, cap_mib: int, size_bytes: int) -> dict[str, Any]:
    """The set with streamed weights, beside the time that its passes cannot go below."""
    shape, kind, device = weights.shape, weights.dtype, weights.device

    def sweep() -> None:
        for _ in weights.layers:
            pass

    read_s = min(timed(sweep) for _ in range(2))
    print(f"one sweep, nothing computed: {read_s:.2f} s, {size_bytes / 1e9 / read_s:.2f} GB/s", flush=True)
    fused = backend.choose(shape, kind, device).fused
    left_bytes = cap_mib * MIB - memory.streamed_bytes(shape, kind)
    planned = memory.plan(shape, kind, device, left_bytes, fused=fused, streamed=True)
    print(planned.text(), flush=True)
    engine = Scripted(weights, planned.limits)
    warm_s = timed(engine.warm_up)
    elapsed_s, result = engine.answer(data)
    pass_rows = [sum(each) for each in zip(result.log.prompt_rows, result.log.answer_rows, strict=True)]
    bound_s = sum(engine.cost.seconds(rows) for rows in pass_rows)
    print(
        f"{data.name}: {elapsed_s:.2f} s in {len(pass_rows)} passes of {pass_rows} rows; "
        f"{elapsed_s / bound_s:.2f} × the sum of max(compute, read), {elapsed_s / read_s:.2f} × one reading",
        flush=True,
    )
    return {
        "read_s": read_s,
        "warm_up_s": warm_s,
        "elapsed_s": elapsed_s,
        "bound_s": bound_s,
        "passes": pass_rows,
        "failed_allocations": result.stats.failed_allocations,
        "cost": {"rows": engine.cost.rows, "elapsed_s": engine.cost.elapsed_s},
        "peak_mib": torch.cuda.max_memory_reserved() / MIB if device.type == "cuda" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", help="phi3_ids.json")
    parser.add_argument("--cap-mib", type=int, default=12_000)
    parser.add_argument("--shape", default="phi3-medium", choices=SHAPES)
    parser.add_argument("--set", default="obqa500")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="where the checkpoint is written; it is removed")
    options = parser.parse_args()

    shape, kind = SHAPES[options.shape], torch.bfloat16
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = different_answers(read_sets(options.ids, [options.set], options.limit)[0])
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        start = time.perf_counter()
        size_bytes = write_checkpoint(folder, shape, device)
        print(f"written {size_bytes / 1e9:.1f} GB in {time.perf_counter() - start:.1f} s", flush=True)
        lock.verify(folder)
        print(f"locked after {time.perf_counter() - start:.1f} s", flush=True)

        whole, report["load"] = load("loaded, hashed", size_bytes, lambda: loader.load(folder, kind, device))
        few = replace(data, prompts=data.prompts[:24], script=Choices(data.script.answers[:24]))
        limits = Limits(4096, 8192, 64, chunk_rows=1024)
        expected = Unscripted(whole, limits).answer(few)
        del whole
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(options.cap_mib * MIB / total)

        weights, report["open"] = load(
            "opened for streaming, hashed", size_bytes, lambda: loader.open_streamed(folder, kind, device)
        )
        equal = Unscripted(weights, limits).answer(few) == expected
        print(
            f"the first {len(few.prompts)} prompts, 4 tokens each: {'equal' if equal else 'NOT EQUAL'} tokens",
            flush=True,
        )

        report |= {"equal": equal} | answer(weights, data, options.cap_mib if shape is MEDIUM else 900, size_bytes)
        print(json.dumps(report))
        weights.layers.close()
        if not equal:
            raise SystemExit("the tokens with streamed weights are not those with resident ones")


if __name__ == "__main__":
    main()
