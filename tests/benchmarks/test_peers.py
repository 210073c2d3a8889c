"""transformers' ways to answer a set, as the GPU benchmark times them: on our tensors, our computation, the script."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from transformers import Phi3ForCausalLM

from pipeline import paths
from pipeline.engine import network
from pipeline.engine.backend import plain
from pipeline.engine.pool import SlotPool
from pipeline.engine.segment import Segment, pack
from pipeline.engine.shape import Shape
from pipeline.engine.weights import LayerWeights, Weights
from pipeline.model import loader

sys.path.insert(0, str(paths.ROOT))  # `benchmarks` is not installed

from benchmarks import peers

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.checkout,  # the image has the oldest transformers, and no peers are timed there
]

END = 1
PROMPTS = [[5, 6, 7, 8], [9], [5, 6, 7, 8, 9, 10, 11], [12, 13], [5, 6, 7, 14]]
ANSWERS = [[3, 4, END], [END], [3, 3, 3, 3, 3, END], [4, END], [7, 8, 9, END]]


def random_weights(*, window: int | None = None, tied: bool = False, dtype: torch.dtype = torch.float32) -> Weights:
    torch.manual_seed(0)
    shape = Shape(
        vocab=40,
        hidden=32,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=8,
        intermediate=48,
        norm_eps=1e-5,
        rope_theta=10000.0,
        max_positions=128,
        window=window,
        tied=tied,
    )

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns) * columns**-0.5).to(dtype)

    def norm() -> torch.Tensor:
        return torch.empty(shape.hidden).uniform_(0.5, 1.5).to(dtype)

    layers = tuple(
        LayerWeights(
            norm_attention=norm(),
            qkv=matrix(shape.qkv_rows, shape.hidden),
            o=matrix(shape.hidden, shape.heads * shape.head_dim),
            norm_mlp=norm(),
            gate_up=matrix(2 * shape.intermediate, shape.hidden),
            down=matrix(shape.hidden, shape.intermediate),
        )
        for _ in range(shape.layers)
    )
    embed = matrix(shape.vocab, shape.hidden)
    return Weights(shape, embed, layers, norm(), embed if tied else matrix(shape.vocab, shape.hidden))


def engine_logits(weights: Weights, tokens: list[int]) -> torch.Tensor:
    """Of every token, in one pass of ours."""
    pool = SlotPool(weights.shape, len(tokens), weights.dtype, weights.device)
    segment = Segment(torch.tensor(tokens).numpy(), 0, pool.take(len(tokens)), len(tokens))
    return network.forward(weights, pool, pack([segment], weights.device), plain())


@torch.no_grad()
def peer_logits(weights: Weights, tokens: list[int]) -> torch.Tensor:
    return peers.build(weights)(torch.tensor([tokens])).logits[0]


@pytest.mark.parametrize("tied", [False, True])
def test_the_model_is_made_of_the_same_memory(tied: bool) -> None:
    weights = random_weights(tied=tied, dtype=torch.bfloat16)
    model = peers.build(weights)
    ours = [weights.embed, weights.norm, weights.head, *(t for layer in weights.layers for t in vars(layer).values())]
    assert {t.data_ptr() for t in model.parameters()} == {t.data_ptr() for t in ours}
    assert model.dtype == torch.bfloat16
    assert not any(t.requires_grad for t in model.parameters())


def test_weights_made_in_inference_mode_will_do() -> None:
    with torch.inference_mode():
        weights = random_weights()
    assert peers.generate(peers.build(weights), PROMPTS, ANSWERS, 2) > 0


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("window", [None, 5])
def test_float32_logits_are_those_of_our_engine(window: int | None, tied: bool) -> None:
    weights = random_weights(window=window, tied=tied)
    tokens = torch.randint(40, (23,)).tolist()
    torch.testing.assert_close(peer_logits(weights, tokens), engine_logits(weights, tokens), atol=1e-5, rtol=1e-5)


def test_it_computes_what_transformers_computes_from_the_checkpoint(tiny: Path) -> None:
    weights = loader.load(tiny, torch.float32, "cpu")
    tokens = torch.randint(1000, (31,)).tolist()
    reference = Phi3ForCausalLM.from_pretrained(tiny, torch_dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(peer_logits(weights, tokens), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(engine_logits(weights, tokens), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 30])
def test_generate_writes_the_script(tiny: Path, batch_size: int) -> None:
    weights = loader.load(tiny, torch.float32, "cpu")
    assert peers.generate(peers.build(weights), PROMPTS, ANSWERS, batch_size) > 0


def test_generate_notices_what_is_not_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers._Scripted, "__call__", lambda self, input_ids, scores: scores)
    with pytest.raises(RuntimeError, match="the script says"):
        peers.generate(peers.build(random_weights()), PROMPTS, ANSWERS, 2)


@pytest.mark.parametrize("answers", [[[3, END], [3]], [[END, 3, END], [END]], [[END]], [[END], []]])
def test_generate_refuses_a_script_that_cannot_be_played(answers: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"answer"):
        peers.generate(peers.build(random_weights()), [[5], [6]], answers, 2)


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.slow
def test_continuous_batching_writes_as_many_tokens(window: int | None) -> None:
    """On the CPU it runs too, with a cache of a given size. 34 tokens are the same in all prompts: two blocks."""
    model = peers.build(random_weights(window=window))
    prompts = [[*range(2, 36), index] for index in range(len(ANSWERS))]
    attention, seen = model.config._attn_implementation, []
    model.register_forward_pre_hook(lambda _, __, named: seen.append(named["input_ids"].numel()), with_kwargs=True)
    rows = {}
    for sharing in (False, True):
        seen.clear()
        assert peers.generate_batch(model, prompts, ANSWERS, sharing=sharing, num_blocks=40, max_batch_tokens=40) > 0
        assert (model.config.sliding_window, model.config._attn_implementation) == (window, attention)
        rows[sharing] = sum(seen)
    assert rows[False] == sum(map(len, prompts)) + sum(map(len, ANSWERS)) - len(ANSWERS)
    assert rows[True] <= rows[False] - 3 * 2 * peers.SHARED_BLOCK


def test_continuous_batching_fails_in_one_piece() -> None:
    model = peers.build(random_weights())
    attention = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="continuous batching"):
        peers.generate_batch(model, [[5] * 2000], [[END]], num_blocks=1, max_batch_tokens=8)
    assert model.config._attn_implementation == attention
    assert peers.generate(model, PROMPTS, ANSWERS, 2) > 0


def test_without_the_window_only_contexts_within_it_are_the_same() -> None:
    with pytest.raises(ValueError, match="another computation"):
        peers.generate_batch(peers.build(random_weights(window=8)), PROMPTS, ANSWERS, sharing=True)
