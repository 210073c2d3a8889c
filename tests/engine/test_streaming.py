"""Weights that do not fit: layers come from a disk in every pass, and every token is the same."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_network import NEW, PROMPTS, SHAPE, STOP, Failing, weights
from support.watched_passes import watched

from pipeline import text_generation
from pipeline.engine import memory
from pipeline.engine.cost import UNKNOWN, PassCost
from pipeline.engine.engine import Engine, Result
from pipeline.engine.state import Limits
from pipeline.engine.weights import LayerWeights, Weights
from pipeline.errors import IntegrityError, PipelineError, ResourceError
from pipeline.model import attest, loader, lock
from pipeline.model import layer_streaming as stream
from pipeline.model.config import read_shape

pytestmark = pytest.mark.usefixtures("one_thread")

ASK = {"max_new_tokens": 12, "return_full_text": False, "do_sample": False}
CHATS = [[{"role": "user", "content": f"{text}\nchoices: ['one', 'two']"}] for text in ("a b c", "a b d", "", "x" * 40)]


class OneAtATime:
    """Layers in one buffer: what was yielded before is gone when the next is asked for."""

    def __init__(self, layers: tuple[LayerWeights, ...]) -> None:
        self.layers, self.sweeps = layers, 0

    def __iter__(self) -> Iterator[LayerWeights]:
        self.sweeps += 1
        buffer = LayerWeights(**{field: torch.empty_like(tensor) for field, tensor in vars(self.layers[0]).items()})
        for layer in self.layers:
            for field, tensor in vars(layer).items():
                getattr(buffer, field).copy_(tensor)
            yield buffer
            for tensor in vars(buffer).values():
                tensor.fill_(float("nan"))


def answer(held: Weights, limits: Limits, cost: PassCost = UNKNOWN) -> Result:
    candidates = [[[5, 6], [7]]] * len(PROMPTS)
    return Engine(held, limits, cost).generate(PROMPTS, max_new_tokens=NEW, stop_tokens=STOP, candidates=candidates)


@functools.cache
def resident() -> list[list[int]]:
    return answer(weights(), Limits(64, 600, 16)).tokens


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 200), st.integers(60, 600), st.sampled_from([1.0, 1000.0]))
@pytest.mark.slow
def test_chunks_that_go_through_streamed_layers_give_the_same_tokens(
    chunk_rows: int, budget_rows: int, slots: int, sweep_s: float
) -> None:
    layers = OneAtATime(weights().layers)
    limits = Limits(budget_rows, slots, 16, chunk_rows)
    result = answer(replace(weights(), layers=layers), limits, PassCost((1, 1000), (sweep_s, sweep_s + 1)))
    assert result.tokens == resident()
    assert layers.sweeps == result.stats.passes


@pytest.mark.parametrize("every", [260, 401, 900])
def test_failed_allocations_in_streamed_passes_change_no_token(every: int) -> None:
    failing = Failing(lambda count: count % every == 0)
    streamed = replace(weights(), layers=OneAtATime(weights().layers))
    engine = Engine(streamed, Limits(200, 400, 8, 24), make_passes=watched(failing))
    result = engine.generate(PROMPTS, max_new_tokens=NEW, stop_tokens=STOP)
    assert result.tokens == answer(weights(), Limits(64, 600, 16)).tokens
    assert result.stats.failed_allocations > 1


def too_little(folder: Path, dtype: torch.dtype = torch.float32) -> int:
    """Bytes in which the layers of a checkpoint and its longest context do not fit, but two of its layers do."""
    shape, cpu = read_shape(folder), torch.device("cpu")
    size_bytes = memory.streamed_bytes(shape, dtype)
    while True:
        size_bytes += 2**16
        try:
            if memory.must_stream(shape, dtype, cpu, size_bytes):
                return size_bytes
        except ResourceError:
            continue
        raise AssertionError("this checkpoint is resident as soon as it fits at all")


def test_a_model_that_does_not_fit_answers_the_same_from_the_disk(deep: Path) -> None:
    usual = text_generation.load(deep, dtype="float32", device="cpu")
    reads: list[int] = []
    tight = text_generation.load(
        deep, dtype="float32", device="cpu", memory_bytes=too_little(deep), on_bytes=reads.append
    )
    assert (usual.engine.weights.streamed, tight.engine.weights.streamed) == (False, True)
    assert sum(reads) == loader.file_bytes(deep)
    tight.warm_up()
    assert tight(CHATS, **ASK) == usual(CHATS, **ASK)
    assert tight.describe()["weights"] != usual.describe()["weights"]
    found = attest.attest(deep, tight.resident(), lock.current(deep))
    assert found.tensors == len(loader.plan(deep, read_shape(deep)))


def test_a_model_of_which_not_even_two_layers_fit_is_refused_with_numbers(deep: Path) -> None:
    with pytest.raises(ResourceError) as refused:
        text_generation.load(deep, dtype="float32", device="cpu", memory_bytes=2**16)
    assert refused.value.code == "R302"


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "model"))


def test_a_weight_that_changes_on_the_disk_during_a_run_is_named(deep: Path, tmp_path: Path) -> None:
    folder = copied(deep, tmp_path)
    tight = text_generation.load(folder, dtype="float32", device="cpu", memory_bytes=too_little(folder))
    entry = loader.plan(folder, read_shape(folder))["model.layers.7.mlp.down_proj.weight"]
    with entry.path.open("r+b") as file:
        file.seek(entry.offset + 5)
        byte = file.read(1)[0]
        file.seek(entry.offset + 5)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(PipelineError) as found:
        attest.attest(folder, tight.resident(), lock.current(folder))
    assert found.value.code in ("M421", "M422")
    assert entry.path.name in str(found.value)


def test_a_weight_file_that_shrinks_ends_the_run_with_a_message(deep: Path, tmp_path: Path) -> None:
    folder = copied(deep, tmp_path)
    tight = text_generation.load(folder, dtype="float32", device="cpu", memory_bytes=too_little(folder))
    for path in folder.glob("*.safetensors"):
        os.truncate(path, 1000)
    with pytest.raises(IntegrityError) as short:
        tight(CHATS, **ASK)
    assert short.value.code == "M431"


def test_a_weight_file_that_is_gone_before_it_is_first_read_is_named(deep: Path, tmp_path: Path) -> None:
    folder = copied(deep, tmp_path)
    tight = text_generation.load(folder, dtype="float32", device="cpu", memory_bytes=too_little(folder))
    for path in folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(ResourceError) as gone:
        tight(CHATS, **ASK)
    assert gone.value.code == "R431"


@pytest.mark.parametrize("broken_off_at", [0, 1, 2, 39])
def test_a_sweep_begins_anew_after_one_that_was_broken_off(deep: Path, broken_off_at: int) -> None:
    held = loader.open_streamed(deep, torch.float32, "cpu")
    assert isinstance(held.layers, stream.Layers)
    whole = loader.load(deep, torch.float32, "cpu")
    for index, _ in enumerate(held.layers):
        if index == broken_off_at:
            break
    for _ in range(2):
        for layer, expected in zip(held.layers, whole.layers, strict=True):
            assert all(torch.equal(getattr(layer, field), tensor) for field, tensor in vars(expected).items())
    held.layers.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_converted_as_the_loader_converts_them(deep: Path, dtype: torch.dtype) -> None:
    held = loader.by_name(loader.open_streamed(deep, dtype, "cpu", rounding=True))
    whole = loader.by_name(loader.load(deep, dtype, "cpu", rounding=True))
    assert set(held) == set(whole)
    assert all(torch.equal(held[name], tensor) for name, tensor in whole.items())


def test_the_bytes_of_a_layer_are_what_the_plan_counts() -> None:
    layer = sum(tensor.numel() for tensor in vars(weights().layers[0]).values())
    assert SHAPE.parameters_per_layer == layer
