"""The device's own weight layout holds the same bits and gives the same products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loguru import logger
from torch import Tensor

from pipeline.engine import projection

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
# Where this torch has no such layout the packer leaves the weights alone, and the same must hold.
DTYPES = [torch.float32, torch.bfloat16]


def make(dtype: torch.dtype) -> list[Tensor]:
    """Projections of the shapes that a model has, and odd ones."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(size, generator=generator).to(dtype) for size in [(120, 72), (72, 72), (80, 72), (72, 40), (101, 7)]
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_can_be_had_back(dtype: torch.dtype) -> None:
    place = projection.packer(dtype, CPU) or torch.clone
    for original in make(dtype):
        kept = place(original.clone())
        back = kept.to_dense() if kept.is_mkldnn else kept
        assert (back.dtype, back.shape) == (dtype, original.shape)
        assert torch.equal(back.view(torch.uint8), original.view(torch.uint8))


@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 128, 129, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_plain_linear_within_rounding(dtype: torch.dtype, rows: int) -> None:
    place = projection.packer(dtype, CPU) or torch.clone
    for original in make(dtype):
        x = torch.randn(rows, original.shape[1]).to(dtype)
        found = projection.linear(x, place(original))
        exact = F.linear(x.double(), original.double())
        # Any order of float32 sums is within n·eps of the sum of absolute products; then rounded once to the dtype.
        bound = original.shape[1] * 2.0**-24 * F.linear(x.double().abs(), original.double().abs())
        bound += torch.finfo(dtype).eps * (exact.abs() + bound)
        assert (found.dtype, found.shape) == (dtype, exact.shape)
        assert ((found.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_how_many_others_it_came_with_beyond_rounding(dtype: torch.dtype) -> None:
    weight = (projection.packer(dtype, CPU) or torch.clone)(make(dtype)[0])
    x = torch.randn(130, 72).to(dtype)
    whole = projection.linear(x, weight).double()
    single = torch.cat([projection.linear(row[None], weight) for row in x]).double()
    assert (whole - single).abs().max() <= 40 * torch.finfo(dtype).eps * whole.abs().max()


def test_where_it_cannot_pack_the_weights_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "can_pack", lambda dtype, device: False)
    assert projection.packer(torch.float32, CPU) is None
    weight = make(torch.float32)[0]
    x = torch.randn(3, 72)
    assert torch.equal(projection.linear(x, weight), F.linear(x, weight))


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


def test_a_layout_that_fails_is_not_used_and_the_log_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Tensor:
        raise RuntimeError("no kernel for\nthis processor")

    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    try:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None, raising=False)  # some builds have none
        monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", lambda *_: None, raising=False)
        monkeypatch.setattr(projection, "linear", fails)
        assert not projection.can_pack(torch.float32, CPU)
    finally:
        logger.remove(sink)
    (line,) = lines
    assert "no kernel for" in line
    assert line.count("\n") == 1
