"""The adapter's merge is the same bits everywhere, and set-up refuses an adapter that does not fit."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline import paths, settings
from pipeline.errors import IntegrityError
from pipeline.model import adapter, standin
from pipeline.model import fetch as setup
from pipeline.schemas import AdapterConfig

SHAPES = {
    "model.layers.0.self_attn.qkv_proj.weight": (960, 576),
    "model.layers.0.mlp.down_proj.weight": (576, 1536),
    "model.layers.1.mlp.gate_up_proj.weight": (3072, 576),
    "model.norm.weight": (576,),
}
PROJECTIONS = [name.removesuffix(".weight") for name in SHAPES if "_proj" in name]


def halves(rank: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name in PROJECTIONS:
        outputs, inputs = SHAPES[f"{name}.weight"]
        made[f"{name}.lora_a"] = torch.randn(rank, inputs, generator=generator).to(torch.bfloat16)
        made[f"{name}.lora_b"] = torch.randn(outputs, rank, generator=generator).mul(0.01).to(torch.bfloat16)
    return made


def saved(path: Path, tensors: dict[str, torch.Tensor], scale: str | None = "2.0") -> Path:
    save_file(tensors, path, metadata={"format": "pt", **({"scale": scale} if scale else {})})
    return path


@pytest.fixture
def shipped(tmp_path: Path) -> adapter.Adapter:
    return adapter.read(saved(tmp_path / "adapter.safetensors", halves()))


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def test_merge_is_the_product_within_rounding(shipped: adapter.Adapter, weights: dict[str, np.ndarray]) -> None:
    merge = adapter.transform(shipped, SHAPES)
    original = halves()
    for name in PROJECTIONS:
        a, b = (original[f"{name}.lora_{half}"].double().numpy() for half in "ab")
        weight = weights[f"{name}.weight"]
        before = weight.copy()
        merged = merge(f"{name}.weight", weight)
        exact = weight.astype(np.float64) + 2.0 * (b @ a)
        bound = 2**-24 * (np.abs(exact) + 6 * 2.0 * (np.abs(b) @ np.abs(a)))  # one rounding an operation
        assert merged.dtype == np.float32
        assert (np.abs(merged - exact) <= bound + 1e-12).all()
        assert np.array_equal(weight, before)
    assert merge("model.norm.weight", weights["model.norm.weight"]) is weights["model.norm.weight"]


def test_merge_is_the_formula_bit_for_bit() -> None:
    """One element after the other, in Python."""
    rng = np.random.default_rng(2)
    weight, a, b = (rng.normal(size=size).astype(np.float32) for size in ((7, 5), (3, 5), (7, 3)))
    merged = adapter.merged(weight, a, b, 1.5)
    for i in range(7):
        for k in range(5):
            total = None
            for j in range(3):
                product = np.float32(np.float32(1.5) * b[i, j]) * a[j, k]
                total = product if total is None else np.float32(total + product)
            assert merged[i, k] == np.float32(weight[i, k] + total)


def test_merge_is_the_same_again_in_threads_and_in_other_blocks(
    shipped: adapter.Adapter, weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = adapter.transform(shipped, SHAPES)
    first = {name: merge(name, weights[name]).tobytes() for name in SHAPES}
    order = list(SHAPES) * 3
    random.Random(0).shuffle(order)
    monkeypatch.setattr(adapter, "BLOCK_ELEMENTS", 5000)
    with ThreadPoolExecutor(4) as pool:
        for name, merged in zip(order, pool.map(lambda n: merge(n, weights[n]), order), strict=True):
            assert merged.tobytes() == first[name]


def test_merge_of_fixed_numbers() -> None:
    """The bits that this merge has on every machine, of numbers that no library's generator makes."""
    numbers = (np.arange(4096, dtype=np.int64) * 2654435761 % 2**32).astype(np.float32) / np.float32(2**32)
    weight, a, b = numbers[:2048].reshape(32, 64), numbers[2048:2560].reshape(8, 64), numbers[2560:2816].reshape(32, 8)
    merged = adapter.merged(weight, a, b, 0.3)
    assert (
        hashlib.sha256(merged.astype("<f4").tobytes()).hexdigest()
        == "7da914d86df39b13ad085f562682fd66d3fe718c7e8324a83c471beb7700dd3f"
    )


def test_ranks_may_differ(tmp_path: Path) -> None:
    tensors = halves(5) | {n: t for n, t in halves(2).items() if "qkv" in n}
    read = adapter.read(saved(tmp_path / "a", tensors))
    assert sorted({len(a) for a, _ in read.pairs.values()}) == [2, 5]
    adapter.transform(read, SHAPES)


# --- refusals -----------------------------------------------------------------------------------------------


def test_missing_or_other_file(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        adapter.read(tmp_path / "none.safetensors")
    assert caught.value.code == "M501"
    path = saved(tmp_path / "a", halves())
    adapter.read(path, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(IntegrityError) as caught:
        adapter.read(path, "0" * 64)
    assert caught.value.code == "M502"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(IntegrityError) as caught:
        adapter.read(path)
    assert caught.value.code == "M403"


FIRST = f"{PROJECTIONS[0]}.lora_a"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop(FIRST),
        lambda t: t.clear(),
        lambda t: t.update({FIRST: t[FIRST].float()}),
        lambda t: t.update({FIRST: t[FIRST][1:].clone()}),
        lambda t: t.update({FIRST: t[FIRST] * float("nan")}),
        lambda t: t.update({"model.norm.weight": torch.zeros(3, 3, dtype=torch.bfloat16)}),
    ],
    ids=["half a pair", "nothing", "float32", "ranks of a pair differ", "not finite", "another name"],
)
def test_no_adapter(tmp_path: Path, change: object) -> None:
    tensors = halves()
    change(tensors)
    with pytest.raises(IntegrityError) as caught:
        adapter.read(saved(tmp_path / "a", tensors))
    assert caught.value.code == "M503"


@pytest.mark.parametrize("scale", [None, "two", "inf"])
def test_no_scale(tmp_path: Path, scale: str | None) -> None:
    with pytest.raises(IntegrityError) as caught:
        adapter.read(saved(tmp_path / "a", halves(), scale))
    assert caught.value.code == "M503"


def test_does_not_fit(shipped: adapter.Adapter) -> None:
    for shapes, code in (
        ({n: s for n, s in SHAPES.items() if "down" not in n}, "M504"),
        ({**SHAPES, "model.layers.0.mlp.down_proj.weight": (576, 1535)}, "M505"),
    ):
        with pytest.raises(IntegrityError) as caught:
            adapter.transform(shipped, shapes)
        assert caught.value.code == code


# --- set-up -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_set_up_merges_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the conversion replaced: what reaches it, and that a wrong hash stops before it."""
    asked = []

    def convert(reader: gguf.GGUFReader, part: Path, dtype: str, names: frozenset[str], on_bytes, transform) -> None:
        asked.append(transform)
        raise KeyboardInterrupt

    monkeypatch.setattr(standin, "convert", convert)
    monkeypatch.setenv("PIPELINE_DATA", str(paths.data()))
    monkeypatch.setenv("PIPELINE_MODELS", str(tmp_path / "models"))
    folder = tmp_path / "standin"
    folder.mkdir()
    monkeypatch.setattr(paths, "STANDIN", folder)
    path = saved(folder / "a.safetensors", halves())
    config = settings.model("standin")

    for sha256 in (hashlib.sha256(path.read_bytes()).hexdigest(), "0" * 64):
        pinned = config.model_copy(update={"adapter": AdapterConfig(path="a.safetensors", sha256=sha256)})
        monkeypatch.setattr(settings, "model", lambda _, pinned=pinned: pinned)
        with pytest.raises((KeyboardInterrupt, IntegrityError)) as caught:
            setup.ensure("standin", lambda _: None)
    assert caught.value.code == "M502"
    (transform,) = asked
    rows = np.ones((960, 576), dtype=np.float32)
    assert not np.array_equal(transform("model.layers.0.self_attn.qkv_proj.weight", rows), rows)
    assert transform("model.layers.7.self_attn.qkv_proj.weight", rows) is rows


@pytest.mark.parametrize("path", ["../a.safetensors", "/a.safetensors", "a.bin"])
def test_the_adapter_lies_in_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        AdapterConfig(path=path, sha256="0" * 64)
