"""Do rows of a product on this CPU have the same bits whatever the number of rows? By dtype and weight layout.

    python benchmarks/cpu_bits.py            # about a minute

The stand-in's weight shapes, random; passes of up to 256 rows, as the engine makes on a CPU. For each size the rows of
a product are compared, byte for byte, with those of the product of 256 rows: how many of the sizes differ, and which
are the first. "packed" is oneDNN's own layout, which the engine takes where there is one, "plain" is F.linear.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.engine import projection  # noqa: E402

SHAPES = {"qkv": (960, 576), "o": (576, 576), "gate_up": (3072, 576), "down": (576, 1536), "head": (49152, 576)}
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


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    device = torch.device("cpu")
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            packer = projection.packer(dtype, device)
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


if __name__ == "__main__":
    main()
