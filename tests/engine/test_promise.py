"""An answer depends on its prompt alone, in bfloat16: `pytest -m gpu`, on a machine with a GPU.

Random layers of Phi-3-medium's and of the stand-in's shapes, where near ties are everywhere: the same tokens and the
same logits' bits whatever else is computed beside them, and whenever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Phi3Config, Phi3ForCausalLM

from benchmarks.scripted import MEDIUM, random_weights
from pipeline.engine import backend, invariance, product_trial
from pipeline.engine.backend import Backend
from pipeline.engine.cost import UNKNOWN, PassCost
from pipeline.engine.engine import Engine
from pipeline.engine.padding import sizes
from pipeline.engine.pass_runner import Passes
from pipeline.engine.products import OURS, TORCH, Way
from pipeline.engine.state import Limits
from pipeline.engine.weights import Weights
from pipeline.model import loader

pytestmark = pytest.mark.gpu

BF16 = torch.bfloat16
NEW_TOKENS = 12
LARGEST = Limits(4096, 16384, 512)
SHAPES = {
    "medium": replace(MEDIUM, layers=3),
    "standin": replace(
        MEDIUM, vocab=49152, hidden=576, layers=5, heads=9, kv_heads=3, head_dim=64, intermediate=1536, tied=True
    ),
}


@dataclass(frozen=True)
class Model:
    weights: Weights
    backend: Backend
    prompts: list[list[int]]


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest) -> Model:
    shape, device = SHAPES[request.param], torch.device("cuda")
    torch.manual_seed(1)
    weights = random_weights(shape, device)
    settled = invariance.settle(backend.choose(shape, BF16, device), weights, LARGEST)
    assert settled.invariance.holds, settled.invariance.why
    return Model(weights, settled, prompts(shape.vocab, 60))


def prompts(vocab: int, count: int) -> list[list[int]]:
    """Some share beginnings; from 3 to 400 tokens."""
    rng = np.random.default_rng(5)
    starts = [rng.integers(3, vocab, length).tolist() for length in (1, 60, 300)]
    return [[*starts[index % 3], *rng.integers(3, vocab, int(rng.integers(2, 100))).tolist()] for index in range(count)]


class Recorder:
    """The model's products, which notes a number for every row of logits, made of all its bits."""

    def __init__(self, weights: Weights, chosen: Backend) -> None:
        self._head, self._linear = weights.head, chosen.linear
        generator = torch.Generator().manual_seed(0)
        self._odd = (torch.randint(2**62, (weights.shape.vocab,), generator=generator) * 2 + 1).cuda()
        self.seen: set[int] = set()
        self.backend = replace(chosen, linear=self)

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        y = self._linear(x, weight)
        if weight is self._head:
            self.seen |= set((y.view(torch.int16).long() * self._odd).sum(-1).tolist())
        return y


def answers(
    weights: Weights,
    chosen: Backend,
    asked: Sequence[Sequence[int]],
    limits: Limits = LARGEST,
    cost: PassCost = UNKNOWN,
    candidates: Sequence[Sequence[Sequence[int]]] | None = None,
) -> tuple[list[list[int]], set[int]]:
    """Tokens, and what their logits were."""
    recorder = Recorder(weights, chosen)
    result = Engine(weights, limits, cost, recorder.backend).generate(
        asked, max_new_tokens=NEW_TOKENS, stop_tokens=frozenset(), candidates=candidates
    )
    return result.tokens, recorder.seen


@pytest.fixture(scope="module")
def expected(model: Model) -> tuple[list[list[int]], set[int]]:
    found = answers(model.weights, model.backend, model.prompts)
    assert len(found[1]) > 0.9 * NEW_TOKENS * len(model.prompts)
    return found


@pytest.mark.parametrize(
    "limits",
    [
        LARGEST,
        replace(LARGEST, budget_rows=1024),
        replace(LARGEST, budget_rows=777),
        replace(LARGEST, budget_rows=77),
        replace(LARGEST, live=3),
        replace(LARGEST, slots=900),
        replace(LARGEST, budget_rows=150, slots=1200, live=9),
        replace(LARGEST, budget_rows=16384, chunk_rows=500),
    ],
    ids=str,
)
def test_tokens_and_logits_are_the_same_for_every_schedule(model: Model, expected, limits: Limits) -> None:
    assert answers(model.weights, model.backend, model.prompts, limits) == expected


def test_they_are_the_same_with_passes_of_one_row(model: Model, expected) -> None:
    few = sorted(range(len(model.prompts)), key=lambda index: len(model.prompts[index]))[:4]
    asked = [model.prompts[index] for index in few]
    tokens, seen = answers(model.weights, model.backend, asked, replace(LARGEST, budget_rows=1))
    assert tokens == [expected[0][index] for index in few]
    assert seen <= expected[1]


def test_they_are_the_same_in_another_order_and_alone(model: Model, expected) -> None:
    order = np.random.default_rng(2).permutation(len(model.prompts)).tolist()
    tokens, seen = answers(model.weights, model.backend, [model.prompts[index] for index in order])
    assert (tokens, seen) == ([expected[0][index] for index in order], expected[1])
    for index in range(0, len(model.prompts), 6):
        tokens, seen = answers(model.weights, model.backend, [model.prompts[index]])
        assert tokens == [expected[0][index]]
        assert seen <= expected[1]


@pytest.mark.parametrize("budget_rows", [4096, 300])
def test_drafts_change_nothing(model: Model, expected, budget_rows: int) -> None:
    """Right ones and wrong ones, each worth its rows."""
    candidates = [
        [answer] if index % 2 else [[*answer[:3], 5, 6, 7], answer] for index, answer in enumerate(expected[0])
    ]
    free = PassCost((1, 4096), (1.0, 1.001))
    limits = replace(LARGEST, budget_rows=budget_rows)
    tokens, seen = answers(model.weights, model.backend, model.prompts, limits, free, candidates)
    assert tokens == expected[0]
    assert seen >= expected[1]


def test_passes_done_again_in_pieces_change_nothing(model: Model, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    piece, calls = Passes.piece, iter(range(10**6))

    def fails_often(self: Passes, segments):
        if next(calls) % 3 == 0 and sum(map(len, segments)) > 40:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return piece(self, segments)

    monkeypatch.setattr(Passes, "piece", fails_often)
    assert answers(model.weights, model.backend, model.prompts) == expected


def test_the_trial_is_kept_and_says_the_same_again(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError("tried again")

    monkeypatch.setattr(product_trial, "choose", never)
    again = invariance.settle(replace(model.backend), model.weights, LARGEST)
    assert again.invariance == model.backend.invariance


def test_the_trial_sees_a_product_that_splits_k(model: Model) -> None:
    """torch's own for few rows of a long sum, as it is on an H100; where it does not, there is nothing to see."""
    layer = model.weights.layers[0]
    x = torch.randn(4096, layer.down.shape[1], device="cuda").to(BF16)
    whole = torch.nn.functional.linear(x, layer.down)
    differs = [n for n in sizes(4096) if not torch.equal(torch.nn.functional.linear(x[:n], layer.down), whole[:n])]
    kept = next(table for key, table in model.backend.linear.ways.items() if key.inputs == layer.down.shape[1])
    assert all(kept[size].name != TORCH for size in differs)


def test_our_product_alone_keeps_the_promise(model: Model) -> None:
    """As on a device whose library is of no use."""
    ways = {
        key: {size: Way(OURS, 0 if size < 64 else 5) for size in table}
        for key, table in model.backend.linear.ways.items()
    }
    alone = replace(model.backend, linear=type(model.backend.linear)(model.backend.linear._run, ways))
    first = answers(model.weights, alone, model.prompts)
    assert answers(model.weights, alone, model.prompts, replace(LARGEST, budget_rows=123, live=11)) == first


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    config = Phi3Config(
        vocab_size=1000, hidden_size=256, intermediate_size=320, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=None, tie_word_embeddings=False, max_position_embeddings=512,
        original_max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("random")
    Phi3ForCausalLM(config).save_pretrained(str(folder))
    return folder


def test_layers_streamed_in_chunks_give_the_bits_of_resident_ones(checkpoint: Path) -> None:
    device = torch.device("cuda")
    asked = prompts(1000, 40)
    held = loader.load(checkpoint, BF16, device, rounding=True)
    chosen = invariance.settle(backend.choose(held.shape, BF16, device), held, LARGEST)
    assert chosen.invariance.holds, chosen.invariance.why
    first = answers(held, chosen, asked)
    for chunk_rows in (7, 100, 1024):
        streamed = loader.open_streamed(checkpoint, BF16, device, rounding=True)
        limits = Limits(4096, 16384, 512, chunk_rows)
        again = invariance.settle(backend.choose(streamed.shape, BF16, device), streamed, limits)
        assert again.invariance.holds, again.invariance.why
        assert answers(streamed, again, asked, limits) == first


@pytest.mark.parametrize("without", [("paged",), ("paged", "flash"), ("kernels",), ("kernels", "flash")])
def test_other_ways_are_tried_and_marked(checkpoint: Path, without: tuple[str, ...]) -> None:
    """What holds is kept, what does not says why."""
    device = torch.device("cuda")
    weights = loader.load(checkpoint, BF16, device, rounding=True)
    chosen = backend.choose(weights.shape, BF16, device, frozenset(without))
    settled = invariance.settle(chosen, weights, LARGEST)
    print(f"{chosen.ops_name}, {chosen.attention_name}: {settled.invariance.holds}, {settled.invariance.why}")
    if not settled.invariance.holds:
        assert settled.linear is chosen.linear
        assert chosen.attention_name in settled.invariance.why or "steps" in settled.invariance.why
        return
    asked = prompts(1000, 40)
    first = answers(weights, settled, asked)
    assert answers(weights, settled, asked, replace(LARGEST, budget_rows=77)) == first


def test_logits_of_one_answer_are_those_of_the_set(model: Model, expected) -> None:
    """As `margins` and `compare` look into an answer."""
    engine = Engine(model.weights, LARGEST, UNKNOWN, Recorder(model.weights, model.backend).backend)
    for index in (0, 7, 20):
        recorder = Recorder(model.weights, model.backend)
        engine.backend = recorder.backend
        engine.logits([*model.prompts[index], *expected[0][index][:5]])
        assert recorder.seen <= expected[1]
