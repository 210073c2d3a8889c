"""What only a CUDA device can show: `pytest -m gpu`, on a machine that has one.

Every kernel and way of attention against float64 on fresh random inputs of odd sizes, over memory full of NaN; and
the whole engine, with passes given ahead, against transformers in float32 on the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from pipeline.engine import backend, self_test
from pipeline.engine.attention import Plan, buckets, flash, paged
from pipeline.engine.cost import UNKNOWN, PassCost
from pipeline.engine.engine import Engine
from pipeline.engine.kernels import library
from pipeline.engine.ops import TorchOps
from pipeline.engine.shape import Shape
from pipeline.engine.state import Limits
from pipeline.model import loader

pytestmark = pytest.mark.gpu

MEDIUM = Shape(
    vocab=99, hidden=5120, layers=1, heads=40, kv_heads=10, head_dim=128, intermediate=17920, norm_eps=1e-5,
    rope_theta=1e4, max_positions=4096, window=None, tied=True,
)  # fmt: skip
SHAPES = {
    "medium": MEDIUM,
    "mini": replace(MEDIUM, hidden=3072, heads=32, kv_heads=32, head_dim=96, intermediate=8192),
    "standin": replace(MEDIUM, hidden=576, heads=9, kv_heads=3, head_dim=64, intermediate=1536),
    "odd": replace(MEDIUM, hidden=8, heads=5, kv_heads=1, head_dim=64, intermediate=24),
}
BF16 = torch.bfloat16


@pytest.fixture(scope="module")
def device() -> torch.device:
    return torch.device("cuda")


@pytest.fixture(scope="module")
def kernels(device: torch.device) -> library.Kernels:
    return library.load(torch.cuda.get_device_capability(device))


@pytest.fixture(autouse=True)
def poisoned(device: torch.device) -> Iterator[None]:
    """What the allocator hands out next holds NaN: an element that nobody writes is seen."""
    torch.full((2**26,), float("nan"), dtype=torch.float32, device=device)
    for size in (2**10, 2**14, 2**18, 2**20, 2**22):
        torch.full((size,), float("nan"), dtype=torch.float32, device=device)
    yield
    torch.cuda.synchronize()


@pytest.mark.parametrize("rows", [1, 2, 7, 130, 1000])
@pytest.mark.parametrize("name", SHAPES)
def test_the_kernels_are_near_float64(kernels: library.Kernels, device: torch.device, name: str, rows: int) -> None:
    assert self_test.ops_error(kernels, SHAPES[name], BF16, device, rows, seed=rows) < 5e-3


@pytest.mark.parametrize("rows", [1, 33, 513])
@pytest.mark.parametrize("name", SHAPES)
def test_the_kernels_round_as_torch_does(kernels: library.Kernels, device: torch.device, name: str, rows: int) -> None:
    """Sum, rotation, stored K/V and SwiGLU bit for bit; of the norm, whose sum has another order, nearly all."""
    shape = SHAPES[name]
    torch.manual_seed(rows)
    hidden, delta = (torch.randn(rows, shape.hidden, device=device, dtype=BF16) for _ in range(2))
    weight = torch.randn(shape.hidden, device=device, dtype=BF16)
    qkv = torch.randn(rows, shape.heads + 2 * shape.kv_heads, shape.head_dim, device=device, dtype=BF16)
    angle = (torch.rand(rows, shape.head_dim // 2, device=device) * 6).repeat(1, 2)
    gate_up = torch.randn(rows, 2 * shape.intermediate, device=device, dtype=BF16) * 3
    slots = torch.randperm(2 * rows, device=device)[:rows]
    results = []
    for ops in (kernels, TorchOps()):
        h, x, g = hidden.clone(), qkv.clone(), gate_up.clone()
        layer = torch.zeros(2 * rows, 2 * shape.kv_heads, shape.head_dim, device=device, dtype=BF16)
        normed = ops.add_norm(h, delta, weight, shape.norm_eps)
        ops.rotate_and_store(x, angle.cos().to(BF16), angle.sin().to(BF16), slots, layer, shape)
        results.append((normed, h, x[:, : shape.heads], layer, ops.swiglu(g)))
    ours, torchs = results
    for found, expected in zip(ours[1:], torchs[1:], strict=True):
        assert torch.equal(found, expected)
    assert (ours[0] != torchs[0]).float().mean().item() < 0.01


def segments(seed: int) -> tuple[tuple[int, int], ...]:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    befores = rng.choice([0, 0, 1, 17, 63, 64, 65, 200, 900], count)
    news = rng.choice([1, 1, 2, 15, 16, 17, 31, 33, 64, 130], count)
    return tuple((int(before), int(new)) for before, new in zip(befores, news, strict=True))


WAYS = ["paged", "flash", "buckets"]


def plan_of(way: str, kernels: library.Kernels) -> Plan:
    return {"paged": paged.planner(kernels), "flash": flash.plan, "buckets": buckets.plan}[way]


@pytest.mark.parametrize("window", [None, 1, 20, 64, 300])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("way", WAYS)
def test_attention_is_near_float64(
    kernels: library.Kernels, device: torch.device, way: str, name: str, window: int | None
) -> None:
    shape = replace(SHAPES[name], window=window)
    for seed in range(6):
        off = self_test.attention_error(plan_of(way, kernels), shape, BF16, device, segments(seed), seed)
        assert off < 8e-3, (segments(seed), off)


@pytest.mark.parametrize("way", WAYS)
def test_attention_over_a_long_context(kernels: library.Kernels, device: torch.device, way: str) -> None:
    lengths = ((3999, 1), (0, 3000), (2100, 500), (5, 1))
    shape = replace(MEDIUM, heads=8, kv_heads=2, window=2047)
    assert self_test.attention_error(plan_of(way, kernels), shape, BF16, device, lengths) < 8e-3


def test_the_best_ways_are_chosen_and_those_left_out_are_not(device: torch.device) -> None:
    best = backend.choose(MEDIUM, BF16, device)
    assert (best.ops_name, best.attention_name, best.passed_over) == ("kernels", "paged", {})
    plain = backend.choose(MEDIUM, BF16, device, frozenset({"kernels"}))
    assert (plain.ops_name, plain.attention_name) == ("torch", "flash")
    full = backend.choose(MEDIUM, torch.float32, device)
    assert (full.ops_name, full.attention_name) == ("torch", "buckets")
    assert "bfloat16" in full.passed_over["kernels"]


# The whole engine

VOCAB, STOP = 60, 1


@pytest.fixture(scope="module", params=[(4, None), (2, 7), (1, None)], ids=lambda p: f"{p[0]}kv-window{p[1]}")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Phi3ForCausalLM, Path]:
    kv_heads, window = request.param
    torch.manual_seed(kv_heads)
    config = Phi3Config(
        vocab_size=VOCAB, hidden_size=256, intermediate_size=320, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=kv_heads, sliding_window=window, tie_word_embeddings=False, max_position_embeddings=512,
        original_max_position_embeddings=512, bos_token_id=0, eos_token_id=STOP, pad_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    folder = str(tmp_path_factory.mktemp("random"))
    Phi3ForCausalLM(config).save_pretrained(folder)
    return Phi3ForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval().cuda(), Path(folder)


def prompts(seed: int, count: int = 40) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    starts = [rng.integers(2, VOCAB, 30).tolist() for _ in range(3)]
    return [
        [*starts[i % 3][: rng.integers(1, 30)], *rng.integers(2, VOCAB, rng.integers(1, 20)).tolist()]
        for i in range(count)
    ]


@torch.inference_mode()
def greedy(model: Phi3ForCausalLM, prompt: list[int], new: int) -> tuple[list[int], float]:
    """The plain loop's answer, and the least gap between the best two logits on its way."""
    answer: list[int] = []
    least = float("inf")
    while len(answer) < new and STOP not in answer[-1:]:
        logits = model(torch.tensor([[*prompt, *answer]], device="cuda"), use_cache=False).logits[0, -1]
        best = logits.topk(2).values
        least = min(least, float(best[0] - best[1]))
        answer.append(int(logits.argmax()))
    return answer, least


LIMITS = [Limits(4096, 8192, 512), Limits(64, 8192, 512), Limits(150, 400, 512)]
COSTS = [UNKNOWN, PassCost((1, 128), (1.0, 1.0))]


def test_float32_gives_the_tokens_of_transformers(model: tuple[Phi3ForCausalLM, Path], device: torch.device) -> None:
    asked = prompts(7)
    expected = [greedy(model[0], prompt, 12) for prompt in asked]
    sure = [answer for answer, gap in expected if gap > 1e-4]
    assert len(sure) >= 0.9 * len(asked)
    weights = loader.load(model[1], torch.float32, device)
    for limits, cost in itertools.product(LIMITS, COSTS):
        candidates = [[answer] if i % 2 else [[*answer[:2], 5, 6]] for i, (answer, _) in enumerate(expected)]
        result = Engine(weights, limits, cost).generate(
            asked, max_new_tokens=12, stop_tokens=frozenset({STOP}), candidates=candidates
        )
        for found, (answer, gap) in zip(result.tokens, expected, strict=True):
            assert gap <= 1e-4 or found == answer


def test_bfloat16_with_kernels_is_as_near_as_without(model: tuple[Phi3ForCausalLM, Path], device: torch.device) -> None:
    """Tokens of answers that float32 is sure of by far are the same through every way."""
    asked = prompts(11, count=80)
    sure = [(prompt, answer) for prompt in asked for answer, gap in [greedy(model[0], prompt, 6)] if gap > 0.2]
    assert len(sure) >= 5
    weights = loader.load(model[1], BF16, device, rounding=True)
    for without in ((), ("paged",), ("kernels",), ("kernels", "flash")):
        way = backend.choose(weights.shape, BF16, device, frozenset(without))
        result = Engine(weights, LIMITS[0], UNKNOWN, way).generate(
            [prompt for prompt, _ in sure], max_new_tokens=6, stop_tokens=frozenset({STOP})
        )
        assert result.tokens == [answer for _, answer in sure]


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("chunk_rows", [7, 64, 1024])
def test_layers_streamed_from_a_disk_give_the_tokens_of_resident_ones(
    model: tuple[Phi3ForCausalLM, Path], device: torch.device, dtype: torch.dtype, chunk_rows: int
) -> None:
    """Again and again, since a copy that came too early or too late would not show every time."""
    held = loader.load(model[1], dtype, device, rounding=True)
    streamed = loader.open_streamed(model[1], dtype, device, rounding=True)
    limits = Limits(2048, 8192, 512, chunk_rows)
    for seed in range(10):
        asked = prompts(seed)
        candidates = [[prompt[-3:], prompt[:4]] for prompt in asked]
        tokens = [
            Engine(weights, limits, PassCost((1, 128), (1.0, 1.0)))
            .generate(asked, max_new_tokens=8, stop_tokens=frozenset({STOP}), candidates=candidates)
            .tokens
            for weights in (held, streamed)
        ]
        assert tokens[0] == tokens[1]
