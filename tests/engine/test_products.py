"""Which way computes a product: the trial finds a class of equal bits, and no size is used that was not tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine import product_trial
from pipeline.engine.padding import padded, roomy, sizes
from pipeline.engine.product_trial import NoClass
from pipeline.engine.products import CUBLASLT, OURS, TORCH, Key, Products, Way, summary

pytestmark = pytest.mark.usefixtures("one_thread")

OUTPUTS, INPUTS = 24, 40
WEIGHT = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(0)).bfloat16()
SIZES = sizes(640)


def whole(x: Tensor) -> Tensor:
    """The sum over K in one go, row by row."""
    return torch.cat([F.linear(row[None].double(), WEIGHT.double()) for row in x]).bfloat16()


def in_parts(x: Tensor) -> Tensor:
    """Another order of sums, and so other bits: two halves of K, each rounded."""
    half = INPUTS // 2
    first = F.linear(x[:, :half].double(), WEIGHT[:, :half].double()).bfloat16()
    return first + F.linear(x[:, half:].double(), WEIGHT[:, half:].double()).bfloat16()


def device(torchs: Callable[[Tensor], Tensor], others: dict[str, Callable[[Tensor], Tensor]] | None = None):
    """A stand-in for a device's products, by name."""
    table = {TORCH: torchs, **(others or {})}

    def run(way: Way, x: Tensor, weight: Tensor) -> Tensor:
        return table[way.name](x)

    def propose(size: int, weight: Tensor, stride: int) -> Sequence[Way]:
        return [Way(name) for name in (others or {})]

    return run, propose


def clock(seconds: dict[str, float]):
    """Says of each call that it took so long, by who ran in it."""
    ran: list[str] = []

    def watched(run):
        def call(way: Way, x: Tensor, weight: Tensor) -> Tensor:
            ran.append(way.name)
            return run(way, x, weight)

        return call

    def read(call: Callable[[], object]) -> float:
        ran.clear()
        call()
        return seconds[ran[0]] * len(ran)

    return watched, read


def choose(run, propose, seconds: dict[str, float] | None = None) -> dict[int, Way]:
    watched, read = clock(seconds or dict.fromkeys((TORCH, CUBLASLT, OURS), 1.0))
    return product_trial.choose(watched(run), propose, [WEIGHT], INPUTS, SIZES, read)


def test_torch_is_kept_where_its_rows_have_the_same_bits_at_every_size() -> None:
    assert choose(*device(whole, {OURS: in_parts})) == dict.fromkeys(SIZES, Way(TORCH))


def test_what_torch_does_otherwise_at_small_sizes_is_done_by_what_is_in_the_class_of_large_ones() -> None:
    run, propose = device(lambda x: in_parts(x) if len(x) <= 64 else whole(x), {CUBLASLT: in_parts, OURS: whole})
    assert choose(run, propose) == {size: Way(OURS if size <= 64 else TORCH) for size in SIZES}


@pytest.mark.slow
def test_small_sizes_take_the_fastest_of_the_class_and_large_ones_what_is_clearly_faster() -> None:
    run, propose = device(whole, {CUBLASLT: in_parts, OURS: whole})
    faster = choose(run, propose, {TORCH: 1.0, CUBLASLT: 0.1, OURS: 0.9})
    assert faster == dict.fromkeys(SIZES, Way(OURS))
    little = choose(run, propose, {TORCH: 1.0, CUBLASLT: 0.1, OURS: 0.97})
    assert little == dict.fromkeys(SIZES, Way(TORCH))


@pytest.mark.slow
def test_a_small_size_that_takes_longer_than_a_larger_one_is_left_out_and_computed_with_that() -> None:
    slow = {192: 1.3, 448: 1.2, 480: 1.05, 640: 9.0}  # 480 is not clearly slower, and 640 not small

    def read(call: Callable[[], object]) -> float:
        call()
        return slow.get(ran[-1], 1.0)

    ran: list[int] = []
    products_of, propose = device(whole)

    def run(way: Way, x: Tensor, weight: Tensor) -> Tensor:
        ran.append(len(x))
        return products_of(way, x, weight)

    table = product_trial.choose(run, propose, [WEIGHT], INPUTS, SIZES, read)
    assert set(SIZES) - set(table) == {192, 448}
    watched = Watched()
    products = Products(watched, {Key(OUTPUTS, INPUTS, INPUTS): table})
    x = torch.randn(420, INPUTS).bfloat16()
    assert products(x, WEIGHT).shape == (420, OUTPUTS)
    assert watched.sizes == [480]


@pytest.mark.slow
def test_ours_computes_all_where_torch_is_in_no_class() -> None:
    run, propose = device(lambda x: whole(x) if len(x) % 128 else in_parts(x), {OURS: whole})
    assert {way.name for size, way in choose(run, propose).items() if size % 128 == 0} == {OURS}


def last_row_unwritten(x: Tensor) -> Tensor:
    y = whole(x)
    y[-1] = float("nan")
    return y


def place_matters(x: Tensor) -> Tensor:
    y = whole(x)
    y[5:9] = in_parts(x)[5:9]
    return y


def refused(x: Tensor) -> Tensor:
    raise RuntimeError("no kernel")


@pytest.mark.parametrize("broken", [last_row_unwritten, place_matters, refused])
def test_what_leaves_rows_out_or_lets_their_place_matter_is_in_no_class(broken: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(NoClass):
        choose(*device(broken))
    assert set(choose(*device(broken, {OURS: whole})).values()) == {Way(OURS)}


def test_where_no_class_covers_all_sizes_the_reason_says_where_it_ended() -> None:
    with pytest.raises(
        NoClass, match=r"bits of torch: no way gives them at 64 rows; .*bits of ours 0: no way .* 96 rows"
    ):
        choose(
            *device(
                lambda x: in_parts(x) if len(x) <= 64 else whole(x),
                {OURS: lambda x: -whole(x) if len(x) > 100 else refused(x)},
            )
        )


# Padding


def test_sizes_are_few_and_padding_adds_little() -> None:
    assert len(sizes(8192)) == 136
    for rows in range(1, 9000):
        size = padded(rows)
        assert size >= rows
        assert size in sizes(rows)
        assert size - rows <= max(15, 0.13 * rows)


class Watched:
    """Plain torch, which notes the sizes that it is called with, and what lies behind the rows that count."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, way: Way, x: Tensor, weight: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return F.linear(x, weight)


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 255, 257, 500, 640, 641, 1300])
def test_only_tried_sizes_are_computed_whatever_is_asked_for(rows: int) -> None:
    watched = Watched()
    products = Products(watched, {Key(OUTPUTS, INPUTS, INPUTS): dict.fromkeys(SIZES, Way(TORCH))})
    x = torch.randn(rows, INPUTS).bfloat16()
    found = products(x, WEIGHT)
    assert found.shape == (rows, OUTPUTS)
    assert torch.allclose(found.float(), F.linear(x, WEIGHT).float(), atol=0.1)
    assert set(watched.sizes) <= set(SIZES)


def test_rows_that_have_room_behind_them_are_not_copied() -> None:
    places = []

    def run(way: Way, x: Tensor, weight: Tensor) -> Tensor:
        places.append(x.data_ptr())
        return F.linear(x, weight)

    products = Products(run, {Key(OUTPUTS, INPUTS, stride): dict.fromkeys(SIZES, Way(TORCH)) for stride in (40, 80)})
    x = roomy(33, INPUTS, like=WEIGHT)
    wide = roomy(33, 2 * INPUTS, like=WEIGHT)[:, :INPUTS]
    for there in (x, wide):
        there.normal_()
        assert torch.equal(products(there, WEIGHT), F.linear(there.new_empty(48, 40).copy_(_rows(there)), WEIGHT)[:33])
        assert places.pop() == there.data_ptr()
    tight = torch.randn(33, INPUTS).bfloat16()
    products(tight, WEIGHT)
    assert places.pop() != tight.data_ptr()


def _rows(x: Tensor) -> Tensor:
    """x with zeros behind it."""
    return torch.cat([x, x.new_zeros(48 - len(x), x.shape[1])])


def test_a_weight_that_was_not_tried_is_refused_and_other_strides_are_made_what_was_tried() -> None:
    products = Products(Watched(), {Key(OUTPUTS, INPUTS, INPUTS): dict.fromkeys(SIZES, Way(TORCH))})
    strided = torch.randn(20, 3 * INPUTS).bfloat16()[:, :INPUTS]
    assert products(strided, WEIGHT).shape == (20, OUTPUTS)
    with pytest.raises(KeyError):
        products(strided, WEIGHT[:8])


def test_the_summary_names_ways_by_the_sizes_that_they_compute() -> None:
    ways = {Key(8, 4, 4): {16: Way(OURS, 1), 32: Way(OURS, 1), 48: Way(TORCH), 1152: Way(CUBLASLT)}}
    assert summary(ways) == {"8 × 4": "≤ 32: ours 1, ≤ 48: torch, ≤ 1,152: cublaslt"}
