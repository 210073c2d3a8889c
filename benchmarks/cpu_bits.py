"""Do rows of a product on this CPU have the same bits whatever the number of rows? By dtype and weight layout.

    python benchmarks/cpu_bits.py            # about three minutes

The stand-in's weight shapes, random; passes of up to 256 rows, as the engine makes on a CPU. For each size the rows of
a product are compared, byte for byte, with those of the product of 256 rows: how many of the sizes differ, and which
are the first. "packed" is oneDNN's own layout, which the engine takes where there is one, "plain" is F.linear.

Then the whole engine, with three random layers of the stand-in's shapes: 30 prompts, some of which begin alike, are
answered in passes of other sizes, and one by one. How many rows of logits have other bits than in passes of 256 rows?
Once with our C++ between the products, once with torch's own steps and attention.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.scripted import MEDIUM, random_weights  # noqa: E402
from pipeline.engine import backend, projection  # noqa: E402
from pipeline.engine.backend import Backend  # noqa: E402
from pipeline.engine.cost import UNKNOWN  # noqa: E402
from pipeline.engine.engine import Engine  # noqa: E402
from pipeline.engine.state import Limits  # noqa: E402
from pipeline.engine.weights import Weights  # noqa: E402

SHAPES = {"qkv": (960, 576), "o": (576, 576), "gate_up": (3072, 576), "down": (576, 1536), "head": (49152, 576)}
CPU = torch.device("cpu")
ROWS = 256
SIZES = [*range(1, 34), 47, 48, 49, 63, 64, 65, 77, 96, 100, 127, 128, 129, 160, 191, 192, 200, 224, 255]


def differing(weight: Tensor, x: Tensor) -> list[int]:
    """Sizes whose rows do not all have the bits that they have among `ROWS`."""
    bits = torch.int16 if x.dtype is torch.bfloat16 else torch.int32
    whole = projection.linear(x, weight).view(bits)
    found = []
    for rows in SIZES:
        start = rows * 37 % (ROWS - rows + 1)
        if not torch.equal(projection.linear(x[start : start + rows], weight).view(bits), whole[start : start + rows]):
            found.append(rows)
    return found


def stand_in(dtype: torch.dtype) -> Weights:
    """Three random layers, laid out as the loader does."""
    shape = replace(
        MEDIUM, vocab=49152, hidden=576, layers=3, heads=9, kv_heads=3, head_dim=64, intermediate=1536, tied=False
    )
    weights = random_weights(shape, CPU, dtype)
    pack = projection.packer(dtype, CPU) or (lambda weight: weight)
    layers = [
        replace(layer, **{name: pack(getattr(layer, name)) for name in ("qkv", "o", "gate_up", "down")})
        for layer in weights.layers
    ]
    return replace(weights, layers=tuple(layers), head=pack(weights.head))


def prompts(vocab: int, count: int) -> list[list[int]]:
    """A third each begins with the same 1, 60 and 300 tokens."""
    rng = np.random.default_rng(5)
    starts = [rng.integers(3, vocab, length).tolist() for length in (1, 60, 300)]
    return [[*starts[index % 3], *rng.integers(3, vocab, int(rng.integers(2, 100))).tolist()] for index in range(count)]


def logits_seen(weights: Weights, chosen: Backend, asked: list[list[int]], limits: Limits) -> set[int]:
    """A number for each row of logits that was computed, made of all its bits."""
    seen: set[int] = set()
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(2**62, (weights.shape.vocab,), generator=generator) * 2 + 1
    bits = torch.int16 if weights.dtype is torch.bfloat16 else torch.int32

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        y = chosen.linear(x, weight)
        if weight is weights.head:
            seen.update((y.view(bits).long() * odd).sum(-1).tolist())
        return y

    Engine(weights, limits, UNKNOWN, replace(chosen, linear=linear)).generate(
        asked, max_new_tokens=8, stop_tokens=frozenset()
    )
    return seen


def engines(dtype: torch.dtype) -> None:
    weights = stand_in(dtype)
    asked = prompts(weights.shape.vocab, 30)
    compiled = backend.choose(weights.shape, dtype, CPU)
    for chosen in [*([compiled] if compiled.ops_name == backend.COMPILED else []), backend.plain()]:
        expected = logits_seen(weights, chosen, asked, Limits(ROWS, 16384, 512))
        found = []
        for rows, live in ((2048, 512), (100, 512), (37, 7), (5, 3)):
            seen = logits_seen(weights, chosen, asked, Limits(rows, 16384, live))
            found.append(f"{rows} rows {len(seen - expected)} of {len(seen)}")
        alone = set().union(*(logits_seen(weights, chosen, [each], Limits(ROWS, 1024, 1)) for each in asked[:6]))
        found.append(f"alone {len(alone - expected)} of {len(alone)}")
        kind = f"{str(dtype).removeprefix('torch.')}, {chosen.ops_name}"
        print(f"{kind:<18}rows of logits with other bits: {', '.join(found)}", flush=True)


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            packer = projection.packer(dtype, CPU)
            layouts: dict[str, Callable[[Tensor], Tensor]] = {"plain": lambda weight: weight}
            if packer is not None:
                layouts["packed"] = packer
            for name, size in SHAPES.items():
                weight, x = torch.randn(size).to(dtype), torch.randn(ROWS, size[1]).to(dtype)
                for layout, lay_out in layouts.items():
                    found = differing(lay_out(weight.clone()), x)
                    kind = f"{str(dtype).removeprefix('torch.'):<9}{layout:<7}{name:<8}"
                    print(
                        f"{kind}{len(found):>3} of {len(SIZES)} sizes "
                        f"differ{': ' + ', '.join(map(str, found[:8])) if found else ''}",
                        flush=True,
                    )
            engines(dtype)


if __name__ == "__main__":
    main()
