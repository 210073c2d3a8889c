"""The device's own weight layout holds the same bits and gives the same products."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine import projection
from pipeline.engine.weights import LayerWeights, Shape, Weights

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = Shape(
    vocab=101, hidden=72, layers=2, heads=3, kv_heads=1, head_dim=24, intermediate=40, norm_eps=1e-5, rope_theta=1e4,
    max_positions=64, window=None, tied=True,
)  # fmt: skip
CPU = torch.device("cpu")
DTYPES = [
    pytest.param(
        dtype,
        marks=pytest.mark.skipif(not projection.can_pack(dtype, CPU), reason="this torch does not pack here"),
        id=str(dtype),
    )
    for dtype in (torch.float32, torch.bfloat16)
]


def make(dtype: torch.dtype, tied: bool) -> Weights:
    torch.manual_seed(0)

    def tensor(*size: int) -> Tensor:
        return torch.randn(*size).to(dtype)

    s = replace(SHAPE, tied=tied)
    layers = tuple(
        LayerWeights(
            norm_attention=tensor(s.hidden),
            qkv=tensor(s.qkv_rows, s.hidden),
            o=tensor(s.hidden, s.heads * s.head_dim),
            norm_mlp=tensor(s.hidden),
            gate_up=tensor(2 * s.intermediate, s.hidden),
            down=tensor(s.hidden, s.intermediate),
        )
        for _ in range(s.layers)
    )
    embed = tensor(s.vocab, s.hidden)
    return Weights(s, embed, layers, tensor(s.hidden), embed if tied else tensor(s.vocab, s.hidden))


def projections(weights: Weights) -> list[Tensor]:
    return [t for layer in weights.layers for t in (layer.qkv, layer.o, layer.gate_up, layer.down)]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_can_be_had_back(dtype: torch.dtype, tied: bool) -> None:
    weights = make(dtype, tied)
    originals = [t.clone() for t in [*projections(weights), weights.head]]
    packed = projection.pack(weights)
    for original, after in zip(originals, [*projections(packed), packed.head], strict=True):
        back = after.to_dense()
        assert (back.dtype, back.shape) == (dtype, original.shape)
        assert torch.equal(back.view(torch.uint8), original.view(torch.uint8))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_originals_are_emptied_and_what_is_looked_up_stays(dtype: torch.dtype, tied: bool) -> None:
    weights = make(dtype, tied)
    embed = weights.embed.clone()
    packed = projection.pack(weights)
    assert all(t.untyped_storage().nbytes() == 0 for t in projections(weights))
    assert torch.equal(packed.embed, embed)
    assert (weights.head.numel() == 0) != tied
    assert packed.norm is weights.norm
    assert all(a.norm_mlp is b.norm_mlp for a, b in zip(packed.layers, weights.layers, strict=True))


@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 128, 129, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_plain_linear_within_rounding(dtype: torch.dtype, rows: int) -> None:
    weights = make(dtype, tied=False)
    originals = [t.clone() for t in [*projections(weights), weights.head]]
    packed = projection.pack(weights)
    for original, after in zip(originals, [*projections(packed), packed.head], strict=True):
        x = torch.randn(rows, original.shape[1]).to(dtype)
        found = projection.linear(x, after)
        exact = F.linear(x.double(), original.double())
        # Any order of float32 sums is within n·eps of the sum of absolute products; then rounded once to the dtype.
        bound = original.shape[1] * 2.0**-24 * F.linear(x.double().abs(), original.double().abs())
        bound += torch.finfo(dtype).eps * (exact.abs() + bound)
        assert (found.dtype, found.shape) == (dtype, exact.shape)
        assert ((found.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_how_many_others_it_came_with_beyond_rounding(dtype: torch.dtype) -> None:
    packed = projection.pack(make(dtype, tied=True))
    x = torch.randn(130, SHAPE.hidden).to(dtype)
    whole = projection.linear(x, packed.head).double()
    single = torch.cat([projection.linear(row[None], packed.head) for row in x]).double()
    assert (whole - single).abs().max() <= 40 * torch.finfo(dtype).eps * whole.abs().max()


def test_where_it_cannot_pack_the_weights_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "can_pack", lambda dtype, device: False)
    weights = make(torch.float32, tied=True)
    assert projection.pack(weights) is weights
    x = torch.randn(3, SHAPE.hidden)
    assert torch.equal(projection.linear(x, weights.layers[0].qkv), F.linear(x, weights.layers[0].qkv))


@pytest.mark.parametrize(
    ("dtype", "device"),
    [(torch.float64, "cpu"), (torch.float16, "cpu"), (torch.float32, "meta"), (torch.bfloat16, "cuda")],
)
def test_other_dtypes_and_devices_are_not_packed(dtype: torch.dtype, device: str) -> None:
    assert not projection.can_pack(dtype, torch.device(device))


def test_a_torch_without_the_layout_is_not_asked_to_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not projection.can_pack(torch.float32, CPU)


def test_a_layout_that_computes_wrongly_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "linear", lambda x, weight: torch.zeros(3, 7, dtype=x.dtype))
    assert not projection.can_pack(torch.float32, CPU)
