"""The roofline of `invoke plan` against published times of language models on a Jetson AGX Orin 64GB.

    python benchmarks/prediction.py prefill.csv

`prefill.csv`: columns `model, input_tokens, time_to_first_token_ms`; taken from edge-inference/edgereasoning
(`validation/prefill.json`, arXiv 2511.01866): vLLM, batch 1, bfloat16, power mode not stated. Not part of this
repository.

Two rates are fitted on the 8B model alone: what its products reach per second, and what reading its weights reaches.
The same function that predicts a pass in `invoke plan` (`pipeline/engine/cost.py:roofline`) then predicts the 14B,
which is nearly Phi-3-medium's size, and the 1.5B. What this shows: how well one curve carries over from model to
model on one board. What it cannot show: the 32GB module, another power mode, or our engine.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `pipeline` is not installed in a checkout

from pipeline.engine import cost
from pipeline.engine.shape import Shape

ELEMENT_BYTES = 2
FITTED, HELD, SHOWN = "DeepSeek_R1_Distill_Llama_8B", "DeepSeek_R1_Distill_Qwen_14B", "DeepSeek_R1_Distill_Qwen_1.5B"
PEAK_FLOPS_PER_S = {"MAXN": 42.6e12, "50 W": 27.2e12}
"""Dense bfloat16 of the 64GB module at each mode's clocks: 16 SM × 2,048 FLOP a clock × 1.3 GHz, 0.83 GHz."""
PEAK_BYTES_PER_S = 204.8e9
BUSY_TOKENS = 256
"""From here on a prompt's products take longer than the reading of the weights."""
OUTLIER = 3.0
"""A point of the fit so many times slower than the median rate is a stall of that run, and left out (one of 33 is)."""


def _shape(vocab: int, hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, tied: bool) -> Shape:
    return Shape(
        vocab=vocab, hidden=hidden, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=128,
        intermediate=intermediate, norm_eps=1e-6, rope_theta=1e6, max_positions=8192, window=None, tied=tied,
    )  # fmt: skip


SHAPES = {  # from the models' own config.json
    FITTED: _shape(128_256, 4096, 32, 32, 8, 14_336, False),
    HELD: _shape(152_064, 5120, 48, 40, 8, 13_824, False),
    SHOWN: _shape(151_936, 1536, 28, 12, 2, 8_960, True),
}


@dataclass(frozen=True)
class Point:
    model: str
    tokens: int
    elapsed_s: float


@dataclass(frozen=True)
class Fit:
    flops_per_s: float
    bytes_per_s: float


def read(path: Path) -> list[Point]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Point(row["model"], int(row["input_tokens"]), float(row["time_to_first_token_ms"]) / 1e3)
            for row in csv.DictReader(file)
        ]


def fit(points: Sequence[Point]) -> Fit:
    """Median rates of one model: its reading's from its shortest prompt, its products' from `BUSY_TOKENS` on, in the
    time that the traffic between them leaves."""
    shape = SHAPES[points[0].model]
    shortest = min(points, key=lambda point: point.tokens)
    bytes_per_s = shape.swept_parameters * ELEMENT_BYTES / shortest.elapsed_s
    row_moved_s = shape.moved_elements_per_row * ELEMENT_BYTES / bytes_per_s
    rates = [
        shape.flops_per_row / (point.elapsed_s / point.tokens - row_moved_s)
        for point in points
        if point.tokens >= BUSY_TOKENS
    ]
    usual = median(rates)
    return Fit(median(rate for rate in rates if rate * OUTLIER > usual), bytes_per_s)


def predicted_s(shape: Shape, rates: Fit, tokens: int) -> float:
    return cost.roofline(shape, ELEMENT_BYTES, rates.flops_per_s, rates.bytes_per_s, max(2, tokens)).seconds(tokens)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", type=Path)
    points = read(parser.parse_args(arguments).points)
    by_model = {model: [point for point in points if point.model == model] for model in SHAPES}
    rates = fit(by_model[FITTED])
    print(f"fitted on {FITTED}: {rates.flops_per_s / 1e12:.1f} TFLOP/s, {rates.bytes_per_s / 1e9:.0f} GB/s")
    shares = ", ".join(f"{rates.flops_per_s / peak:.0%} in {mode}" for mode, peak in PEAK_FLOPS_PER_S.items())
    print(f"of the 64GB module's peak: products {shares}; reading {rates.bytes_per_s / PEAK_BYTES_PER_S:.0%}")
    print("configs/devices/orin-32gb.yaml has these shares\n")
    print(f"{'tokens':>8}{'14B, s':>9}{'predicted':>11}{'error':>8}")
    for point in by_model[HELD]:
        expected_s = predicted_s(SHAPES[HELD], rates, point.tokens)
        error = expected_s / point.elapsed_s - 1
        print(f"{point.tokens:>8,}{point.elapsed_s:>9.2f}{expected_s:>11.2f}{error:>+8.1%}")
    print()
    for model in (FITTED, HELD, SHOWN):
        errors = [predicted_s(SHAPES[model], rates, point.tokens) / point.elapsed_s - 1 for point in by_model[model]]
        absolute = sorted(map(abs, errors))
        print(
            f"{model:<32}{len(errors):>3} points: median error {median(absolute):.1%} (signed {median(errors):+.1%}), "
            f"nine in ten within {absolute[int(0.9 * (len(absolute) - 1))]:.1%}"
        )
    print(
        "\nThe 1.5B is faster than predicted from 500 tokens on and slower below. Below, a pass takes 49 ms however\n"
        "short it is, twice what reading its weights takes: starting kernels is what counts. Above, its products\n"
        "reach more: the source's meter shows 5.5 W for it in every row, and up to 26 and 32 W for the others, whose\n"
        "clocks power limits."
    )


if __name__ == "__main__":
    main()
