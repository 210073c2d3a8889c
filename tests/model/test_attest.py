"""Attestation: a bit that differs between memory and the locked files is found, and its tensor named."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from support.checkpoints import flip_a_bit, random_phi3

from pipeline import reference, text_generation
from pipeline.engine import projection
from pipeline.errors import IntegrityError
from pipeline.model import loader, lock
from pipeline.model import shard as reader
from pipeline.model.attest import attest

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CPU = torch.device("cpu")


def resident(folder: Path, dtype: torch.dtype, device: str = "cpu", *, packed: bool = True) -> dict[str, torch.Tensor]:
    """The tensors as a run has them: on a CPU, projections in oneDNN's layout where this torch has it."""
    place = projection.packer(dtype, torch.device(device)) if packed else None
    return loader.by_name(loader.load(folder, dtype, device, rounding=True, place=place))


def differing(folder: Path, tensors: dict[str, torch.Tensor]) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        attest(folder, tensors, lock.read(folder))
    return caught.value


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A locked checkpoint in several shards."""
    random_phi3(tmp_path, tied=request.param)
    lock.verify(tmp_path)
    return tmp_path


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("asked", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_bytes", [1000, reader.CHUNK_BYTES])
def test_what_was_loaded_is_attested(
    tmp_path: Path,
    saved: torch.dtype,
    asked: torch.dtype,
    device: str,
    chunk_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk_bytes)
    locked = lock.verify(random_phi3(tmp_path, saved))
    done = attest(tmp_path, resident(tmp_path, asked, device), locked)
    stored = [tensor for path in tmp_path.glob("*.safetensors") for tensor in load_file(path).values()]
    assert (done.tensors, done.size_bytes) == (len(stored), sum(tensor.nbytes for tensor in stored))
    assert done.lock_sha256 == locked.root
    assert done.rounded == (saved is torch.float32 and asked is torch.bfloat16)
    assert done.elapsed_s > 0


def test_nothing_but_headers_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = resident(folder, torch.float32)
    for path in folder.glob("*.safetensors"):
        # Gone behind the header, though as long as before: only memory can still tell the hash.
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(8 + int.from_bytes(file.read(8), "little"))
            file.truncate(size)
    assert attest(folder, tensors, lock.read(folder)).tensors == len(tensors)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "index", "shown"),
    [
        ("model.embed_tokens.weight", 300 * 64 - 1, "[299, 63]"),
        ("model.layers.1.mlp.down_proj.weight", 97, "[1, 1]"),
        ("model.layers.2.post_attention_layernorm.weight", 5, "[5]"),
        ("model.norm.weight", 0, "[0]"),
    ],
)
def test_one_bit_in_memory_is_found_and_its_tensor_named(
    folder: Path, device: str, dtype: torch.dtype, name: str, index: int, shown: str
) -> None:
    tensors = resident(folder, dtype, device, packed=False)
    attest(folder, tensors, lock.read(folder))
    flip_a_bit(tensors[name], index, bit=3)
    error = differing(folder, tensors)
    assert (error.code, error.exit_status) == ("M421", 4)
    assert name in error.what
    assert error.where.endswith(f"{name}{shown}")
    expected, actual = (int(re.search("0x([0-9a-f]+)", text)[1], 16) for text in (error.expected, error.actual))
    assert expected ^ actual == 1 << 3
    assert "; 1 of the" in error.actual
    flip_a_bit(tensors[name], index, bit=3)
    attest(folder, tensors, lock.read(folder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_bit_below_onednns_layout_is_found(folder: Path, dtype: torch.dtype) -> None:
    name = "model.layers.0.self_attn.qkv_proj.weight"
    tensors = resident(folder, dtype)
    pack = projection.packer(dtype, CPU) or torch.clone
    dense = tensors[name].to_dense() if tensors[name].is_mkldnn else tensors[name]
    flip_a_bit(dense, 64 * 7 + 9, bit=0)
    error = differing(folder, {**tensors, name: pack(dense)})
    assert (error.code, error.where.endswith(f"{name}[7, 9]")) == ("M421", True)


def test_two_tensors_that_changed_places_are_found(folder: Path) -> None:
    tensors = resident(folder, torch.float32)
    first, second = "model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"
    error = differing(folder, {**tensors, first: tensors[second], second: tensors[first]})
    assert error.code == "M421"
    assert "down_proj" in error.what


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_that_follows_a_file_that_changed_is_no_excuse(folder: Path, dtype: torch.dtype) -> None:
    locked = lock.read(folder)
    path = sorted(folder.glob("*.safetensors"))[-1]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (folder / lock.NAME).unlink()
    with pytest.raises(IntegrityError) as caught:
        attest(folder, resident(folder, dtype), locked)
    assert caught.value.code == "M422"
    assert caught.value.where.endswith(path.name)


@pytest.mark.parametrize("engine", [text_generation, reference])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_engines_as_a_run_loads_them(tiny: Path, engine: ModuleType, dtype: str) -> None:
    tensors = engine.load(tiny, dtype=dtype, device="cpu").resident()
    assert attest(tiny, tensors, lock.read(tiny)).tensors == 2 * 6 + 2
    flip_a_bit(tensors["model.norm.weight"].detach(), 3, bit=0)
    assert differing(tiny, tensors).where.endswith("model.norm.weight[3]")
