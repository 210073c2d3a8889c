"""Checkpoint files to tensors, with the weights in memory exactly once.

Each tensor is allocated once, where it stays, and filled by positioned reads: on the CPU straight into its memory, on a
GPU through one small pinned buffer. Nothing is mapped: memory-mapped loading can need twice the weights
(https://github.com/huggingface/safetensors/issues/758, /759; transformers #47257).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from math import prod
from pathlib import Path

import psutil
import torch
from torch import Tensor

from pipeline import paths
from pipeline.engine.weights import LayerWeights, Shape, Weights
from pipeline.errors import IntegrityError, ResourceError
from pipeline.model import lock
from pipeline.model.config import read_shape
from pipeline.model.safetensors_file import Entry, read_header

DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32}

CHUNK_BYTES = 16 << 20
"""One read. On a GPU also the size of the buffer."""

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

EMBEDDING = "model.embed_tokens.weight"


def load(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device | str,
    on_bytes: Callable[[int], object] | None = None,
    *,
    rounding: bool = False,
    place: Callable[[Tensor], Tensor] | None = None,
) -> Weights:
    """All weights of the checkpoint in `folder`, in `dtype` on `device`.

    What lies in memory is bit for bit what the files hold, or, from bfloat16 to float32, the same values. From float32
    to bfloat16 values are rounded to nearest even, as transformers does when asked for bfloat16; the caller must want
    that (`rounding`) and should tell the user.

    on_bytes: told the bytes of each read; all together they are `file_bytes(folder)`.
    place: copies each projection as soon as it is read into what is kept of it (see `engine.projection.packer`); all
    are read into one buffer then, so that there are never two copies of the model.

    Raises what `read_shape` and `plan` raise, IntegrityError (M409: float32 weights asked for in bfloat16 without
    `rounding`; M411: a file shrank while it was read), ResourceError (R401: not enough memory, R402: cannot be read).
    """
    shape = read_shape(folder)
    entries = plan(folder, shape)
    device = torch.device(device)
    if dtype is torch.bfloat16 and not rounding:
        _refuse_rounding(folder, entries)
    _need_memory(sum(prod(entry.shape) for entry in entries.values()) * dtype.itemsize, device)

    tensors: dict[str, Tensor] = {}
    reader = _Reader(dtype, device, on_bytes or (lambda _: None), lock.fix(folder))
    placed = {name for name, entry in entries.items() if place and len(entry.shape) == 2 and name != EMBEDDING}
    scratch = reader.allocate("the largest projection", (max((prod(entries[n].shape) for n in placed), default=0),))
    # File by file, front to back: what a disk likes best.
    for entry in sorted(entries.values(), key=lambda e: (e.path, e.offset)):
        if place and entry.name in placed:
            tensors[entry.name] = place(reader.read(entry, scratch[: prod(entry.shape)].view(entry.shape)))
        else:
            tensors[entry.name] = reader.read(entry, reader.allocate(entry.name, entry.shape))
    embed = tensors[EMBEDDING]
    return Weights(
        shape=shape,
        embed=embed,
        layers=tuple(
            LayerWeights(**{field: tensors[f"model.layers.{i}.{name}"] for field, name in LAYER_TENSORS.items()})
            for i in range(shape.layers)
        ),
        norm=tensors["model.norm.weight"],
        head=embed if shape.tied else tensors["lm_head.weight"],
    )


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
        "model.norm.weight": (shape.hidden,),
    }
    if not shape.tied:
        whole["lm_head.weight"] = (shape.vocab, shape.hidden)
    for i in range(shape.layers):
        whole |= {f"model.layers.{i}.{name}": layer[field] for field, name in LAYER_TENSORS.items()}
    return whole


def plan(folder: Path, shape: Shape) -> dict[str, Entry]:
    """Where every tensor of the model lies. Reads headers only.

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
                fix,
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
            "M404", "the index of the weight files cannot be read", index, lock.fix(folder), actual=error
        ) from error
    return [folder / shard for shard in shards]


class _Reader:
    """Reads tensors one after another, with one buffer for all where one is needed."""

    def __init__(self, dtype: torch.dtype, device: torch.device, on_bytes: Callable[[int], object], fix: str) -> None:
        self.dtype, self.device, self.on_bytes, self.fix = dtype, device, on_bytes, fix
        self.buffer: Tensor | None = None

    def allocate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        try:
            return torch.empty(shape, dtype=self.dtype, device=self.device)
        except (RuntimeError, MemoryError) as error:
            # RuntimeError also covers torch.OutOfMemoryError, and Tegra's failure that names NVML.
            size_bytes = torch.empty(shape, dtype=self.dtype, device="meta").nbytes
            raise _no_memory(f"{size_bytes / 1e6:.0f} MB more for {name}", error) from error

    def read(self, entry: Entry, tensor: Tensor) -> Tensor:
        """Fill `tensor`, contiguous and of the entry's shape, and return it."""
        flat = tensor.view(-1)
        try:
            handle = os.open(entry.path, os.O_RDONLY)
        except OSError as error:
            raise ResourceError(
                "R402",
                "a weight file cannot be read",
                where=paths.shown(entry.path),
                actual=error.strerror,
                fix="allow reading it",
            ) from error
        try:
            if self.device.type == "cpu" and DTYPES[entry.dtype] is self.dtype:
                self._fill(handle, entry, entry.offset, flat.view(torch.uint8))
            else:
                self._fill_through_buffer(handle, entry, flat)
        finally:
            os.close(handle)
        return tensor

    def _fill_through_buffer(self, handle: int, entry: Entry, flat: Tensor) -> None:
        if self.buffer is None:
            self.buffer = torch.empty(CHUNK_BYTES, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        stored = DTYPES[entry.dtype]
        step = CHUNK_BYTES // stored.itemsize
        for start in range(0, flat.numel(), step):
            part = flat[start : start + step]
            raw = self.buffer[: part.numel() * stored.itemsize]
            self._fill(handle, entry, entry.offset + start * stored.itemsize, raw)
            part.copy_(raw.view(stored))  # blocks, so the buffer is free again; converts where dtypes differ

    def _fill(self, handle: int, entry: Entry, offset: int, raw: Tensor) -> None:
        """Read from `offset` until `raw` (bytes, on the CPU) is full."""
        memory = memoryview(raw.numpy())
        done = 0
        while done < len(memory):
            count = os.preadv(handle, [memory[done : done + CHUNK_BYTES]], offset + done)
            if count == 0:
                raise _wrong("M411", "a weight file became shorter while it was read", entry.path, self.fix)
            done += count
            self.on_bytes(count)


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


def _need_memory(needed_bytes: int, device: torch.device) -> None:
    available_bytes = _available_bytes(device)
    if available_bytes is not None and available_bytes < needed_bytes:
        raise _no_memory(f"{needed_bytes / 1e6:.0f} MB", f"{available_bytes / 1e6:.0f} MB free")


def _available_bytes(device: torch.device) -> int | None:
    """None where nobody can say."""
    if device.type == "cpu":
        return psutil.virtual_memory().available
    if device.type == "cuda":
        if torch.cuda.get_device_properties(device).is_integrated:
            # Memory is the machine's own, and cudaMemGetInfo does not count the page cache, which gives way.
            return psutil.virtual_memory().available
        return torch.cuda.mem_get_info(device)[0]
    return None


def _no_memory(expected: str, actual: object) -> ResourceError:
    return ResourceError(
        "R401",
        "the weights do not fit into memory",
        expected=expected,
        actual=actual,
        fix="end other programs, or choose bfloat16 or a smaller model",
    )


def _wrong(
    code: str, what: str, where: Path, fix: str, *, expected: object = None, actual: object = None
) -> IntegrityError:
    return IntegrityError(code, what, where=paths.shown(where), expected=expected, actual=actual, fix=fix)
