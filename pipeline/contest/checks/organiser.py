"""The organiser's own side of a verification: data, model, reference run and source, all from this disk.

Nothing is fetched: what is not here cannot be told, and the checks that need it say so. Each part is read once, so that
many submissions can be verified in one go.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import paths, settings
from pipeline.accuracy import compare
from pipeline.dataset import fetch, records
from pipeline.dataset.records import Record
from pipeline.engine.shape import Shape
from pipeline.errors import IntegrityError, UsageError
from pipeline.files import sha256_of
from pipeline.model import config, lock
from pipeline.record import run_folder
from pipeline.schemas import HubModelConfig, StandinConfig
from pipeline.text.chat_template import token_ids

ITEM_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Data:
    """A data set on this disk."""

    path: Path
    sha256: str
    rows: tuple[Record, ...]


@dataclass(frozen=True)
class Model:
    """A model as the organiser knows it: from its folder, or from what `configs/models` pins; None is not known."""

    name: str
    folder: Path | None
    lock_sha256: str | None
    weight_files: Mapping[str, str] | None
    """File name to sha256."""
    shape: Shape | None
    dtype: str | None
    """Dtype of the stored weights."""

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer; None if it is not on this disk."""
        if self.folder is None or not (self.folder / "tokenizer.json").is_file():
            return None
        from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

        return AutoTokenizer.from_pretrained(str(self.folder))

    @cached_property
    def stop_tokens(self) -> frozenset[int] | None:
        return None if self.folder is None else config.stop_tokens(self.folder)

    @property
    def tensors(self) -> int | None:
        return None if self.shape is None else self.shape.tensors

    @property
    def size_bytes(self) -> int | None:
        """Size of all weights as stored; None if shape or dtype is not known."""
        if self.shape is None or self.dtype not in ITEM_BYTES:
            return None
        return self.shape.parameters * ITEM_BYTES[self.dtype]


class Organiser:
    """The organiser's data, models and reference run: those named on the command line, else the known ones here."""

    def __init__(
        self,
        data: Path | None = None,
        reference: Path | None = None,
        model: str | None = None,
        checkout: Path = paths.ROOT,
        references: Sequence[Path] = (),
    ) -> None:
        """Raises UsageError, FormError, IntegrityError for a named file, run or model that cannot be read."""
        self.checkout = checkout
        self._models: dict[str, Model | None] = {}
        self._named_model = model
        self._named_data = None if data is None else _read_data(data)
        self._known_data: dict[str, Data | None] = {}
        self._prompts: dict[tuple[str, str, int], list[list[int]]] = {}
        named = [*([] if reference is None else [reference]), *references]
        self._references = [compare.read(run_folder.find(str(each))) for each in named]
        data_sha256 = None if self._named_data is None else self._named_data.sha256
        self.reference = _on(data_sha256, self._references) or next(iter(self._references), None)
        if model is not None and self.model(model) is None:
            raise UsageError(
                "U611",
                "there is no such model to verify with",
                where=model,
                expected="a name under configs/models, or a checkpoint's folder",
                fix="name the organiser's own copy",
            )

    def on_claimed_data(self, sha256: str) -> Organiser:
        """For the claims of a submission on data of this hash: itself, unless its named file is other data, which a
        submission is only run again on; then with the known sets and the reference run on these data."""
        if self._named_data is None or self._named_data.sha256 == sha256:
            return self
        other = copy.copy(self)
        other._named_data, other._prompts = None, {}
        other.reference = _on(sha256, self._references)
        return other

    def data(self, name: str) -> Data | None:
        """The named file, else the known set of this name if this disk has it as pinned, else None."""
        if self._named_data is not None:
            return self._named_data
        if name not in self._known_data:
            self._known_data[name] = _known_data(name)
        return self._known_data[name]

    def model(self, name: str) -> Model | None:
        """The named model, else the known model of the name that a submission gives, else None."""
        chosen = self._named_model or name
        if chosen not in self._models:
            # A path is the organiser's own to name; one that a submission names is not looked at.
            folder = Path(chosen) if self._named_model else None
            self._models[chosen] = _model(chosen, folder)
        return self._models[chosen]

    def prompts(self, data: str, model: str, rows: int) -> list[list[int]] | None:
        """Token ids of the first `rows` prompts, by the model's own template; None without data or tokenizer."""
        rows_here, model_here = self.data(data), self.model(model)
        if rows_here is None or model_here is None or model_here.tokenizer is None:
            return None
        key = (rows_here.sha256, model_here.name, max(0, rows))
        if key not in self._prompts:
            chats = [row.messages for row in rows_here.rows[: key[2]]]
            self._prompts[key] = token_ids(model_here.tokenizer, chats) if chats else []
        return self._prompts[key]


def _on(sha256: str | None, references: Sequence[compare.Run]) -> compare.Run | None:
    return next((each for each in references if each.manifest["dataset"]["sha256"] == sha256), None)


def _read_data(path: Path) -> Data:
    content = records.read_bytes(path)
    return Data(path, hashlib.sha256(content).hexdigest(), tuple(records.parse(path, content)))


def _known_data(name: str) -> Data | None:
    if name not in settings.dataset_names() or not fetch.place(name).is_file():
        return None
    pinned, path = settings.dataset(name).sha256, fetch.place(name)
    return _read_data(path) if pinned in {None, sha256_of(path)} else None


def _model(name: str, own: Path | None) -> Model | None:
    if name not in settings.model_names():
        return _of_folder(name, own) if own is not None and own.is_dir() else None
    known, folder = settings.model(name), paths.models() / name
    stored = _of_folder(name, folder) if (folder / "config.json").is_file() else None
    if isinstance(known, StandinConfig):
        pinned = lock.Lock(tuple(lock.LockedFile(file, sha256, 0) for file, sha256 in sorted(known.files.items())))
        if stored is not None and stored.lock_sha256 not in {None, pinned.root}:
            raise IntegrityError(
                "M711",
                "the organiser's own copy of the model differs from the pinned one",
                where=paths.shown(folder),
                expected=pinned.root,
                actual=stored.lock_sha256,
                fix=lock.fix(folder),
            )
        shape, dtype = (stored.shape, stored.dtype) if stored else (None, known.dtype)
        return Model(name, stored.folder if stored else None, pinned.root, _weights(pinned), shape, dtype)
    return stored or _of_the_hub(name, known)


def _of_folder(name: str, folder: Path) -> Model:
    locked = lock.known(folder)
    return Model(
        name,
        folder,
        locked.root if locked else None,
        _weights(locked) if locked else None,
        config.read_shape(folder),
        config.own_dtype(folder),
    )


def _of_the_hub(name: str, known: HubModelConfig) -> Model:
    """A model of the hub that is not on this disk: only its shape is known, its hashes only once it is fetched."""
    return Model(name, None, None, None, known.shape, "bfloat16")


def _weights(locked: lock.Lock) -> dict[str, str]:
    return {file.name: file.sha256 for file in locked.files if file.name.endswith(".safetensors")}
