"""The loader puts into memory, bit for bit, what the files hold; damage of files is named."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import shutil
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import random_phi3
from transformers import Phi3ForCausalLM

from pipeline.engine.weights import Weights
from pipeline.errors import IntegrityError, ResourceError
from pipeline.files import sha256_of
from pipeline.model import attest, loader, lock
from pipeline.model import shard as reader
from pipeline.model.config import read_shape
from pipeline.model.dtype import pick_dtype


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors, as safetensors' own loader has them."""
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def loaded(weights: Weights) -> dict[str, torch.Tensor]:
    """By the names in the files, written out here once more."""
    tensors = {"model.embed_tokens.weight": weights.embed, "model.norm.weight": weights.norm}
    if not weights.shape.tied:
        tensors["lm_head.weight"] = weights.head
    for i, layer in enumerate(weights.layers):
        tensors |= {
            f"model.layers.{i}.input_layernorm.weight": layer.norm_attention,
            f"model.layers.{i}.self_attn.qkv_proj.weight": layer.qkv,
            f"model.layers.{i}.self_attn.o_proj.weight": layer.o,
            f"model.layers.{i}.post_attention_layernorm.weight": layer.norm_mlp,
            f"model.layers.{i}.mlp.gate_up_proj.weight": layer.gate_up,
            f"model.layers.{i}.mlp.down_proj.weight": layer.down,
        }
    return tensors


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@pytest.fixture(params=[64, 1000, reader.CHUNK_BYTES])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are read in many pieces, in a few, and in one."""
    monkeypatch.setattr(reader, "CHUNK_BYTES", request.param)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bit_for_bit(tmp_path: Path, dtype: torch.dtype, shards: bool, tied: bool, chunks: None) -> None:
    folder = random_phi3(tmp_path, dtype, tied=tied, shards=shards)
    reads: list[int] = []
    weights = loader.load(folder, dtype, "cpu", reads.append)
    ours, theirs = loaded(weights), stored(folder)
    assert ours.keys() == theirs.keys()
    assert all(same_bits(ours[name], theirs[name]) for name in theirs)
    assert weights.shape == read_shape(folder)
    assert (weights.head is weights.embed) == tied
    assert sum(reads) == loader.file_bytes(folder) == sum(t.nbytes for t in theirs.values())


@pytest.mark.parametrize("tied", [False, True])
def test_projections_that_are_copied_as_they_come_are_the_same(tmp_path: Path, tied: bool) -> None:
    folder = random_phi3(tmp_path, tied=tied)
    shapes: list[torch.Size] = []

    def place(weight: torch.Tensor) -> torch.Tensor:
        shapes.append(weight.shape)
        return weight.clone()

    weights = loader.load(folder, torch.float32, "cpu", place=place)
    assert all(same_bits(loaded(weights)[name], tensor) for name, tensor in stored(folder).items())
    # Four a layer and a head of its own; the embedding, looked up by row, is none of them.
    assert len(shapes) == 4 * weights.shape.layers + (not tied)
    assert (weights.head is weights.embed) == tied


def test_a_tied_head_is_copied_for_products_where_asked(tmp_path: Path) -> None:
    folder = random_phi3(tmp_path, tied=True)
    shapes: list[torch.Size] = []

    def place(weight: torch.Tensor) -> torch.Tensor:
        shapes.append(weight.shape)
        return weight.clone()

    weights = loader.load(folder, torch.float32, "cpu", place=place, tied_head=True)
    assert loaded(weights).keys() == stored(folder).keys()
    assert len(shapes) == 4 * weights.shape.layers + 1
    assert weights.head is not weights.embed
    assert same_bits(weights.head, weights.embed)


def test_converted(tmp_path: Path, chunks: None) -> None:
    for name, saved, asked in (("up", torch.bfloat16, torch.float32), ("down", torch.float32, torch.bfloat16)):
        folder = random_phi3(tmp_path / name, saved)
        ours = loaded(loader.load(folder, asked, "cpu", rounding=True))
        assert all(same_bits(ours[name], tensor.to(asked)) for name, tensor in stored(folder).items())


def refused(folder: Path, dtype: torch.dtype = torch.float32) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        loader.load(folder, dtype, "cpu")
    return caught.value


def test_rounding_must_be_wanted(tmp_path: Path) -> None:
    assert refused(random_phi3(tmp_path), torch.bfloat16).code == "M409"


def test_missing_shard(tmp_path: Path) -> None:
    shard = sorted(random_phi3(tmp_path).glob("model-*.safetensors"))[1]
    shard.unlink()
    error = refused(tmp_path)
    assert error.code == "M401"
    assert shard.name in error.where


def test_no_weights_at_all(tmp_path: Path) -> None:
    random_phi3(tmp_path, shards=False)
    (tmp_path / "model.safetensors").unlink()
    assert refused(tmp_path).code == "M401"


@pytest.mark.parametrize("content", [b"", b"abc", b"\x10\0\0\0\0\0\0\0{}", b"\xff" * 64, b"\2\0\0\0\0\0\0\0[]"])
def test_not_safetensors(tmp_path: Path, content: bytes) -> None:
    sorted(random_phi3(tmp_path).glob("model-*.safetensors"))[0].write_bytes(content)
    assert refused(tmp_path).code == "M402"


def test_overlapping_tensors(tmp_path: Path) -> None:
    path = random_phi3(tmp_path, shards=False) / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["model.norm.weight"]["data_offsets"] = header["model.layers.0.input_layernorm.weight"]["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    assert refused(tmp_path).code == "M402"


@pytest.mark.parametrize("change", [-1, +1])
def test_truncated_or_longer(tmp_path: Path, change: int) -> None:
    shard = sorted(random_phi3(tmp_path).glob("model-*.safetensors"))[-1]
    size = shard.stat().st_size
    os.truncate(shard, size + change)
    error = refused(tmp_path)
    assert error.code == "M403"
    assert (error.expected, error.actual) == (f"{size} bytes", f"{size + change} bytes")


def test_shrinking_while_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = random_phi3(tmp_path, shards=False)
    monkeypatch.setattr(reader.os, "preadv", lambda *_: 0)
    assert refused(folder).code == "M411"


def damaged_without_a_trace(folder: Path) -> Path:
    """A bit of a locked shard tips on the disk: its size and times, and so its stamp, are those that were locked."""
    shard = sorted(folder.glob("*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])
    stamps = json.loads((folder / lock.STAMPS).read_text())
    stamps[shard.name]["stamp"] = lock._stamp(shard)
    (folder / lock.STAMPS).write_text(json.dumps(stamps))
    return shard


@pytest.mark.parametrize("asked", [torch.float32, torch.bfloat16])
def test_what_is_read_is_what_was_locked(tmp_path: Path, asked: torch.dtype, chunks: None) -> None:
    locked = lock.verify(random_phi3(tmp_path))
    loader.load(tmp_path, asked, "cpu", rounding=True)
    shard = damaged_without_a_trace(tmp_path)
    assert lock.verify(tmp_path) == locked  # the stamp says that nothing changed
    with pytest.raises(IntegrityError) as caught:
        loader.load(tmp_path, asked, "cpu", rounding=True)
    error = caught.value
    assert (error.code, error.exit_status) == ("M412", 4)
    assert shard.name in error.where
    assert error.expected == next(file.sha256 for file in locked.files if file.name == shard.name)
    assert error.actual == sha256_of(shard)
    with pytest.raises(IntegrityError) as caught:
        lock.verify(tmp_path)  # which the fix calls: it does not believe the stamp any more
    assert caught.value.code == "M203"


def test_projections_that_are_copied_as_they_come_are_hashed_before_the_buffer_is_used_again(tmp_path: Path) -> None:
    lock.verify(random_phi3(tmp_path))
    for _ in range(20):
        loader.load(tmp_path, torch.float32, "cpu", place=torch.clone)


def test_a_shard_that_the_lock_does_not_know(tmp_path: Path) -> None:
    names = [path.name for path in random_phi3(tmp_path).iterdir()]
    shard = sorted(name for name in names if name.startswith("model-"))[0]
    lock.write(tmp_path, [name for name in names if name != shard])
    error = refused(tmp_path)
    assert error.code == "M413"
    assert shard in error.where


def pages_in_cache(path: Path) -> int:
    """How many of a file's pages the system holds in memory (mincore of a mapping that is never touched)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), pages) == 0
    return sum(page & 1 for page in pages)


def test_a_load_leaves_nothing_in_the_page_cache(tmp_path: Path) -> None:
    path = random_phi3(tmp_path, shards=False) / "model.safetensors"
    with path.open("rb") as file:
        os.fsync(file.fileno())
        file.read()
        before = pages_in_cache(path)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        least = pages_in_cache(path)  # none, but on a file system that is memory itself
        file.seek(0)
        file.read()
    assert pages_in_cache(path) == before == -(-path.stat().st_size // mmap.PAGESIZE)
    loader.load(tmp_path, torch.float32, "cpu")
    assert pages_in_cache(path) == least


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../x.safetensors"}}'])
def test_index_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    (random_phi3(tmp_path) / loader.INDEX).write_text(content)
    assert refused(tmp_path).code == "M404"


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("M405", lambda t: t.pop("model.layers.1.mlp.down_proj.weight")),
        ("M407", lambda t: t.update({"model.norm.weight": torch.ones(63)})),
        ("M408", lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.float16)})),
        ("M410", lambda t: t.update({"model.layers.3.mlp.down_proj.weight": torch.ones(64, 96)})),
    ],
)
def test_other_tensors(tmp_path: Path, code: str, change: object) -> None:
    folder = random_phi3(tmp_path, shards=False)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    assert refused(folder).code == code


def with_a_head(folder: Path, change: float = 0.0) -> Path:
    """A tied checkpoint whose file has the head once more, at its end or wherever its name falls."""
    random_phi3(folder, tied=True, shards=False)
    tensors = load_file(folder / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].clone()
    head[7, 3] += change
    save_file({**tensors, "lm_head.weight": head}, folder / "model.safetensors")
    return folder


def test_a_tied_head_that_is_saved_once_more_is_the_embedding(tmp_path: Path) -> None:
    folder = with_a_head(tmp_path)
    locked = lock.verify(folder)
    for weights in (
        loader.load(folder, torch.float32, "cpu", place=torch.clone),
        loader.open_streamed(folder, torch.float32, "cpu"),
    ):
        assert weights.head is weights.embed
        named = loader.by_name(weights)
        found = attest.attest(folder, named, locked)
        assert found.tensors == len(loader.expected_tensors(weights.shape)) == len(named)
        assert found.files == {"model.safetensors": sha256_of(folder / "model.safetensors")}
    weights.embed[2, 1] += 1
    with pytest.raises(IntegrityError) as caught:
        attest.attest(folder, named, locked)
    assert caught.value.code == "M421"


def test_a_tied_head_of_its_own_is_refused_by_what_it_is(tmp_path: Path) -> None:
    folder = with_a_head(tmp_path, change=0.5)
    error = refused(folder)
    assert error.code == "M414"
    assert "token 7 is" in error.actual
    assert '"tie_word_embeddings": false' in error.fix
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": False}))
    weights = loader.load(folder, torch.float32, "cpu")  # as the remedy says
    assert (weights.head != weights.embed).nonzero().tolist() == [[7, 3]]


def test_a_checkpoint_in_float16_is_named_with_a_remedy_that_works(tmp_path: Path, small: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(small, folder)
    Phi3ForCausalLM.from_pretrained(small).half().save_pretrained(folder)
    with pytest.raises(IntegrityError) as caught:
        pick_dtype(None, folder)
    assert (caught.value.code, caught.value.actual) == ("M312", "float16")
    error = refused(folder)
    assert (error.code, error.actual) == ("M408", "F16")
    assert error.fix == caught.value.fix
    exec(error.fix.split('"')[1], {})
    made = tmp_path / "half-float32"
    assert pick_dtype(None, made) is torch.float32
    assert all(torch.equal(tensor, stored(made)[name].half()) for name, tensor in stored(folder).items())
    assert (made / "tokenizer_config.json").exists()
    loader.load(made, torch.float32, "cpu")


def test_a_config_that_says_float16_of_other_weights_names_the_option(tmp_path: Path) -> None:
    folder = random_phi3(tmp_path, torch.bfloat16)
    settings = json.loads((folder / "config.json").read_text())
    settings.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps({**settings, "torch_dtype": "float16"}))
    with pytest.raises(IntegrityError) as caught:
        pick_dtype(None, folder)
    assert caught.value.fix == "its tensors are BF16: give --dtype float32 or bfloat16"
    loader.load(folder, pick_dtype("bfloat16", folder), "cpu")


def test_tensor_twice(tmp_path: Path) -> None:
    first, second, *_ = sorted(random_phi3(tmp_path).glob("model-*.safetensors"))
    save_file({**load_file(second), "model.embed_tokens.weight": torch.ones(300, 64)}, second)
    assert "model.embed_tokens.weight" in load_file(first)
    assert refused(tmp_path).code == "M406"


def test_not_enough_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = random_phi3(tmp_path)
    monkeypatch.setattr(loader, "free_bytes", lambda _: 1000)
    with pytest.raises(ResourceError, match="do not fit") as caught:
        loader.load(folder, torch.float32, "cpu")
    assert caught.value.code == "R401"
    assert "MB" in caught.value.expected


def test_a_model_larger_than_this_machine_is_refused_at_once_with_numbers(tmp_path: Path) -> None:
    """A terabyte of vocabulary, in a file that has the size and next to no bytes."""
    folder = random_phi3(tmp_path, tied=True, shards=False)
    path = folder / "model.safetensors"
    tensors = {name: list(tensor.shape) for name, tensor in load_file(path).items()}
    vocab = 4 * 10**9
    (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), "vocab_size": vocab})
    )
    tensors["model.embed_tokens.weight"] = [vocab, 64]
    header, end = {}, 0
    for name, size in tensors.items():
        begin, end = end, end + 4 * prod(size)
        header[name] = {"dtype": "F32", "shape": size, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)
    reads: list[int] = []
    with pytest.raises(ResourceError) as caught:
        loader.load(folder, torch.float32, "cpu", reads.append)
    assert caught.value.code == "R401"
    assert caught.value.expected == f"{end / 1e6:.0f} MB"
    assert re.fullmatch(r"\d+ MB free", caught.value.actual)
    assert reads == []


def test_allocation_that_fails_after_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = random_phi3(tmp_path)
    original = torch.empty

    def fail(*arguments: object, **options: object) -> torch.Tensor:
        if options.get("device") == torch.device("cpu"):
            raise RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED")
        return original(*arguments, **options)

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(ResourceError) as caught:
        loader.load(folder, torch.float32, "cpu")
    assert caught.value.code == "R401"
