"""Shared parts of the GPU benchmarks: random weights of a real shape, answers by a script, and the floor.

Weights are random, so answers are scripted: whatever the model says, row i goes on with as many tokens as the
reference answer has, and then the end token, for every contender alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from pipeline.engine.attention import Attend
from pipeline.engine.backend import Backend
from pipeline.engine.engine import Engine, Result
from pipeline.engine.forecast import Script
from pipeline.engine.pass_runner import Passes, Started
from pipeline.engine.pool import SlotPool
from pipeline.engine.prefix_tree import build as build_tree
from pipeline.engine.segment import Packed, Segment
from pipeline.engine.shape import Shape
from pipeline.engine.state import Limits, Work
from pipeline.engine.weights import LayerWeights, Weights

MEDIUM = Shape(
    vocab=32064, hidden=5120, layers=40, heads=40, kv_heads=10, head_dim=128, intermediate=17920, norm_eps=1e-5,
    rope_theta=1e4, max_positions=4096, window=2047, tied=False,
)  # fmt: skip
TINY = replace(MEDIUM, hidden=256, layers=3, heads=4, kv_heads=1, head_dim=64, intermediate=384)
SHAPES = {"phi3-medium": MEDIUM, "tiny": TINY}
END = 32007
MAX_NEW_TOKENS = 500

Ids = list[list[int]]


@dataclass(frozen=True)
class Set:
    name: str
    prompts: Ids
    script: Script

    @property
    def answer_rows(self) -> int:
        """Each answer token is a row; the end token comes out of the last of them."""
        return sum(len(answer) - 1 for answer in self.script.answers)


class TimedPasses(Passes):
    """Notes when the device begins and ends each pass."""

    def __init__(self, weights: Weights, pool: SlotPool, backend: Backend, chunk_rows: int | None = None) -> None:
        super().__init__(weights, pool, replace(backend, plan=self._plan), chunk_rows)
        self._kept_plan = backend.plan
        self._begin: torch.cuda.Event | None = None
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def run(self, segments: Sequence[Segment]) -> Started:
        if self.weights.device.type != "cuda":
            return super().run(segments)
        self._begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        started = super().run(segments)
        end.record()
        self.events.append((self._begin, end))
        return started

    def _plan(self, packed: Packed, shape: Shape, dtype: torch.dtype) -> Attend:
        if self._begin is not None:
            self._begin.record()  # the pass is packed
        return self._kept_plan(packed, shape, dtype)


class Scripted(Engine):
    """Our engine, with the model's choices replaced once they are on the host; and the device's time of each pass."""

    def __init__(self, weights: Weights, limits: Limits, backend: Backend | None = None) -> None:
        self._script = Script([])
        super().__init__(weights, limits, backend=backend, choose_tokens=self._by_script, make_passes=self._make_passes)

    def answer(self, data: Set, limits: Limits | None = None) -> tuple[float, Result]:
        """Seconds of the whole call, everything on the host included. `limits`: as for `Engine.generate`."""
        self._script = data.script
        self._timed.events.clear()
        synchronize()
        start = time.perf_counter()
        result = self.generate(
            data.prompts,
            max_new_tokens=MAX_NEW_TOKENS,
            stop_tokens=frozenset({END}),
            candidates=data.script.candidates,
            limits=limits,
        )
        elapsed_s = time.perf_counter() - start
        if result.tokens != [list(answer) for answer in data.script.answers]:
            raise SystemExit(f"{data.name}: the answers are not the script's")
        return elapsed_s, result

    def device_s(self) -> float:
        """Seconds that the device spent in the passes of the last `answer`."""
        return sum(self.pass_device_s())

    def pass_device_s(self) -> list[float]:
        """Seconds of each of them."""
        return [begin.elapsed_time(end) / 1e3 for begin, end in self._timed.events]

    def _by_script(self, works: Sequence[Work], started: Started) -> list[int]:
        started.tokens()
        return self._script.choose(works)

    def _make_passes(self, weights: Weights, pool: SlotPool, backend: Backend, chunk_rows: int | None) -> Passes:
        self._timed = TimedPasses(weights, pool, backend, chunk_rows)
        return self._timed


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(what: Callable[[], Any]) -> float:
    synchronize()
    start = time.perf_counter()
    what()
    synchronize()
    return time.perf_counter() - start


def random_weights(shape: Shape, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Weights:
    def random(*size: int, scale: float = 0.02) -> torch.Tensor:
        # In place: what a copy leaves behind in the allocator would be memory that a loaded model does not take.
        return torch.empty(*size, device=device, dtype=dtype).normal_(0, scale)

    def ones() -> torch.Tensor:
        return torch.ones(shape.hidden, device=device, dtype=dtype)

    wide = shape.heads * shape.head_dim
    layers = [
        LayerWeights(
            ones(),
            random(shape.qkv_rows, shape.hidden),
            random(shape.hidden, wide),
            ones(),
            random(2 * shape.intermediate, shape.hidden),
            random(shape.hidden, shape.intermediate, scale=0.01),
        )
        for _ in range(shape.layers)
    ]
    embed, head = random(shape.vocab, shape.hidden, scale=1.0), random(shape.vocab, shape.hidden)
    return Weights(shape, embed, tuple(layers), ones(), head)


def read_sets(path: str, names: list[str], limit: int | None) -> list[Set]:
    found = json.loads(Path(path).read_text())
    sets = []
    for name in names or list(found):
        rows = found[name][:limit]
        sets.append(Set(name, [row[0] for row in rows], Script([[*[100] * row[1], END] for row in rows])))
    return sets


# The floor


class Floor:
    """The four projections of all layers, alone."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.sweep_s = 0.0

    def pass_s(self, rows: int, times: int = 1) -> float:
        """Seconds of `times` passes of `rows` rows, one after another, divided by `times`."""
        shape, device = self.weights.shape, self.weights.device
        x = torch.randn(rows, shape.hidden, device=device, dtype=torch.bfloat16)
        mixed = torch.randn(rows, shape.heads * shape.head_dim, device=device, dtype=torch.bfloat16)
        inner = torch.randn(rows, shape.intermediate, device=device, dtype=torch.bfloat16)

        def run() -> None:
            for _ in range(times):
                for layer in self.weights.layers:
                    F.linear(x, layer.qkv), F.linear(mixed, layer.o)
                    F.linear(x, layer.gate_up), F.linear(inner, layer.down)

        run()
        return timed(run) / times

    def of(self, data: Set, pass_rows: int) -> float:
        """Seconds. `pass_rows`: of the largest pass that ours makes of this set."""
        prompt_rows = build_tree(data.prompts).tokens
        passes = max(1, round((prompt_rows + data.answer_rows) / pass_rows))
        row_s = self.pass_s(pass_rows, passes) / pass_rows
        return prompt_rows * row_s + max(data.answer_rows * row_s, self.sweep_s)
