"""Checkpoint files to tensors, with the weights in memory exactly once.

Each tensor is allocated once, where it stays, and filled by plain reads (`read_tensors`). Nothing is mapped:
memory-mapped loading can need twice the weights (https://github.com/huggingface/safetensors/issues/758, /759;
transformers #47257). What is read is hashed on its way and compared with the checkpoint's lock (`shard`), so that the
bytes verified are the bytes loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from pipeline import paths
from pipeline.engine import memory
from pipeline.engine.free_memory import free_bytes
from pipeline.engine.shape import Shape
from pipeline.engine.weights import LayerWeights, Weights
from pipeline.errors import IntegrityError, in_words
from pipeline.model import layer_streaming, lock, read_tensors
from pipeline.model.config import OTHER_MODEL, read_shape
from pipeline.model.dtype import FLOATS, rewritten
from pipeline.model.safetensors_file import Entry, first_difference, read_header
from pipeline.model.shard import DTYPES

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

LAYER_TENSORS = {
    "norm_attention": "input_layernorm.weight",
    "qkv": "self_attn.qkv_proj.weight",
    "o": "self_attn.o_proj.weight",
    "norm_mlp": "post_attention_layernorm.weight",
    "gate_up": "mlp.gate_up_proj.weight",
    "down": "mlp.down_proj.weight",
}
"""Field of LayerWeights to the tensor's name behind `model.layers.N.`."""

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def load(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device | str,
    on_bytes: Callable[[int], object] | None = None,
    *,
    rounding: bool = False,
    place: Callable[[Tensor], Tensor] | None = None,
    tied_head: bool = False,
) -> Weights:
    """All weights of the checkpoint in `folder`, in `dtype` on `device`.

    What lies in memory is bit for bit what the files hold, or, from bfloat16 to float32, the same values. From float32
    to bfloat16 values are rounded to nearest even, as transformers does when asked for bfloat16; the caller must want
    that (`rounding`) and should tell the user.

    on_bytes: called with the number of bytes of each read, in all `file_bytes(folder)`.
    place: copies each projection as soon as it is read into what is kept of it (see `engine.projection.packer`); all
    are read into one buffer then, so that there are never two copies of the model.
    tied_head: `place` a tied embedding too, as the head, beside what is looked up by row: faster, and that much larger.

    Raises what `read_shape` and `plan` raise, IntegrityError (M409: float32 weights asked for in bfloat16 without
    `rounding`; M411: a file shrank while it was read; M412, M413: what was read is not what the lock says; M414: a tied
    head that is not the embedding), ResourceError (R401: not enough memory, R402: cannot be read).
    """
    shape = read_shape(folder)
    entries = plan(folder, shape)
    device = torch.device(device)
    if dtype is torch.bfloat16 and not rounding:
        _refuse_rounding(folder, entries)
    expected = expected_tensors(shape)
    places = {name: place for name, size in expected.items() if place and len(size) == 2 and name != EMBEDDING}
    largest = max((prod(expected[name]) for name in places), default=0)
    copied = prod(expected[EMBEDDING]) if tied_head else 0
    _need_memory((sum(map(prod, expected.values())) + largest + copied) * dtype.itemsize, device)
    _refuse_other_head(shape, entries)
    tensors = read_tensors.read(folder, in_order(entries), set(expected), dtype, device, on_bytes, places)
    layers = [{field: tensors[layer_tensor(i, field)] for field in LAYER_TENSORS} for i in range(shape.layers)]
    weights = _weights(shape, tensors, tuple(LayerWeights(**layer) for layer in layers))
    return replace(weights, head=place(weights.embed)) if place and tied_head else weights


def open_streamed(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device | str,
    on_bytes: Callable[[int], object] | None = None,
    *,
    rounding: bool = False,
) -> Weights:
    """Open a checkpoint as `load` does, but leave the layers on the disk: each walk through them reads them again.

    All files are read once here, and hashed: what `load` promises is true of the bytes as they are now.
    """
    shape = read_shape(folder)
    entries = plan(folder, shape)
    device = torch.device(device)
    if dtype is torch.bfloat16 and not rounding:
        _refuse_rounding(folder, entries)
    _need_memory(memory.streamed_bytes(shape, dtype), device)
    _refuse_other_head(shape, entries)
    outside = set(expected_tensors(replace(shape, layers=0)))
    tensors = read_tensors.read(folder, in_order(entries), outside, dtype, device, on_bytes)
    files = layer_streaming.Files(device, lock.fix(folder))
    by_layer = [{field: entries[layer_tensor(i, field)] for field in LAYER_TENSORS} for i in range(shape.layers)]
    return _weights(shape, tensors, layer_streaming.Layers(files, by_layer, dtype, device))


def _weights(shape: Shape, outside: Mapping[str, Tensor], layers: Iterable[LayerWeights]) -> Weights:
    embed = outside[EMBEDDING]
    head = embed if shape.tied else outside[HEAD]
    return Weights(shape=shape, embed=embed, layers=layers, norm=outside[NORM], head=head)


def layer_tensor(layer: int, field: str) -> str:
    """The name in the files of a tensor of LayerWeights."""
    return f"model.layers.{layer}.{LAYER_TENSORS[field]}"


def by_name(weights: Weights) -> Mapping[str, Tensor]:
    """The tensors of a loaded model by their names in the files; a tied head has none of its own."""
    named = {EMBEDDING: weights.embed, NORM: weights.norm}
    if not weights.shape.tied:
        named[HEAD] = weights.head
    if isinstance(weights.layers, layer_streaming.Layers):
        places = {layer_tensor(i, field): (i, field) for i in range(weights.shape.layers) for field in LAYER_TENSORS}
        return layer_streaming.ByName(named, weights.layers, places)
    for i, layer in enumerate(weights.layers):
        named |= {layer_tensor(i, field): getattr(layer, field) for field in LAYER_TENSORS}
    return named


def in_order(entries: dict[str, Entry]) -> list[Entry]:
    """File by file, front to back: what a disk likes best."""
    return sorted(entries.values(), key=lambda entry: (entry.path, entry.offset))


def expected_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Phi3ForCausalLM checkpoint's tensors. A tied head has none of its own."""
    layer = {
        "norm_attention": (shape.hidden,),
        "qkv": (shape.qkv_rows, shape.hidden),
        "o": (shape.hidden, shape.heads * shape.head_dim),
        "norm_mlp": (shape.hidden,),
        "gate_up": (2 * shape.intermediate, shape.hidden),
        "down": (shape.hidden, shape.intermediate),
    }
    whole: dict[str, tuple[int, ...]] = {
        EMBEDDING: (shape.vocab, shape.hidden),
        NORM: (shape.hidden,),
    }
    if not shape.tied:
        whole[HEAD] = (shape.vocab, shape.hidden)
    for i in range(shape.layers):
        whole |= {layer_tensor(i, field): size for field, size in layer.items()}
    return whole


def plan(folder: Path, shape: Shape) -> dict[str, Entry]:
    """Find every tensor of the model in its files, by reading headers only. Returns name to place. A tied head that has
    a tensor of its own nevertheless is among them.

    Raises IntegrityError: M401 a weight file is missing, M402 one is not safetensors, M403 one is truncated, M404 the
    index of shards cannot be read, M405 a tensor is missing, M406 a tensor comes twice, M407 a tensor has another
    shape, M408 a tensor has a data type that we do not run, M410 there is a tensor that the model does not have.
    """
    fix = lock.fix(folder)
    entries: dict[str, Entry] = {}
    for path in _weight_files(folder):
        for entry in read_header(path, fix):
            if entry.name in entries:
                raise _wrong("M406", f"the tensor {entry.name} comes twice", entry.path, fix)
            entries[entry.name] = entry
    expected = expected_tensors(shape)
    if shape.tied and HEAD in entries:
        expected[HEAD] = expected[EMBEDDING]
    for name, size in expected.items():
        if name not in entries:
            raise _wrong("M405", f"the tensor {name} is missing", folder, fix)
        entry = entries[name]
        if entry.shape != size:
            raise _wrong(
                "M407", f"the tensor {name} has another shape", entry.path, fix, expected=size, actual=entry.shape
            )
        if entry.dtype not in DTYPES:
            raise _wrong(
                "M408",
                f"the tensor {name} has another data type",
                entry.path,
                rewritten(folder) if entry.dtype in FLOATS else OTHER_MODEL,
                expected="BF16 or F32",
                actual=entry.dtype,
            )
    for name in sorted(entries.keys() - expected.keys()):
        raise _wrong("M410", f"a model of this shape has no tensor {name}", entries[name].path, fix)
    return entries


def file_bytes(folder: Path) -> int:
    """Bytes of weights in the files: what a progress bar counts up to. Raises what `read_shape` and `plan` raise."""
    return sum(entry.size_bytes for entry in plan(folder, read_shape(folder)).values())


def _weight_files(folder: Path) -> list[Path]:
    """The one file, or the shards that the index names."""
    index = folder / INDEX
    if (folder / SINGLE).exists() or not index.exists():
        return [folder / SINGLE]  # as transformers: the single file goes first
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not shards or any(Path(shard).name != shard for shard in shards):
            raise ValueError(f"shards named {shards}")  # noqa: TRY301 - one message for all ways to be wrong
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _wrong(
            "M404", "the index of the weight files cannot be read", index, lock.fix(folder), actual=in_words(error)
        ) from error
    return [folder / shard for shard in shards]


def _refuse_rounding(folder: Path, entries: dict[str, Entry]) -> None:
    for entry in entries.values():
        if entry.dtype == "F32":
            raise _wrong(
                "M409",
                "the weights are float32 and would have to be rounded to bfloat16",
                entry.path,
                "ask for float32, or allow rounding",
                actual="float32",
                expected="bfloat16",
            )


def _refuse_other_head(shape: Shape, entries: dict[str, Entry]) -> None:
    """A tied head that some writers save nevertheless is the embedding, byte for byte; where it is not, config.json and
    the weights say different things, and transformers' releases do not agree which of them holds."""
    if not shape.tied or HEAD not in entries:
        return
    head = entries[HEAD]
    at = first_difference(entries[EMBEDDING], head)
    if at is not None:
        settings = paths.shown(head.path.parent / "config.json")
        raise _wrong(
            "M414",
            "config.json ties the head to the embedding, and the weights have another head",
            head.path,
            f'if the head was trained, write "tie_word_embeddings": false into {settings}; '
            f"otherwise save the checkpoint without {HEAD}",
            expected=f"{HEAD} equal to {EMBEDDING}, or none",
            actual=f"the row of token {at // (head.size_bytes // shape.vocab):,} is the first that differs",
        )


def _need_memory(needed_bytes: int, device: torch.device) -> None:
    if device.type == "meta":
        return
    available_bytes = free_bytes(device)
    if available_bytes < needed_bytes:
        raise read_tensors.no_memory(f"{needed_bytes / 1e6:.0f} MB", f"{available_bytes / 1e6:.0f} MB free")


def _wrong(
    code: str, what: str, where: Path, fix: str, *, expected: object = None, actual: object = None
) -> IntegrityError:
    return IntegrityError(code, what, where=paths.shown(where), expected=expected, actual=actual, fix=fix)
