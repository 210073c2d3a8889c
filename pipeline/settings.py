"""Every YAML file under `configs/` as a pydantic model. Unknown keys are errors.

One file per data set and per model: adding one is adding a file, not code.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import paths
from pipeline.errors import IntegrityError, UsageError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Frozen, and closed: a key that nobody reads is a typo."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WheelSource(Strict):
    """One file inside a wheel of the Python package index. The wheel is read as a zip, never installed."""

    kind: Literal["wheel"]
    package: str
    version: str
    sha256: Sha256
    """Of the wheel."""
    size_bytes: int
    member: str
    """Path of the file inside the wheel."""


class HubSource(Strict):
    """One file of a repository on the Hugging Face hub at a fixed revision."""

    kind: Literal["hub"]
    repo: str
    repo_type: Literal["dataset", "model"]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    member: str


Source = Annotated[WheelSource | HubSource, Field(discriminator="kind")]


class DatasetConfig(Strict):
    """A data set that can be rebuilt byte for byte in the organiser's form."""

    name: str
    title: str
    converter: str
    """Which function of `pipeline.dataset.convert` makes records of the source's rows."""
    rows: int
    first_rows: int | None = None
    """Keep only so many rows from the start of the source."""
    sha256: Sha256
    """Of the finished JSONL file: whatever source it came from, these are its bytes."""
    licence: str
    sources: tuple[Source, ...]
    """Tried in order."""


class AdapterConfig(Strict):
    """A low-rank adapter that the project ships."""

    path: Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")]
    """Its file below `data/standin/` of the checkout."""
    sha256: Sha256


class StandinConfig(Strict):
    """How the embedded stand-in checkpoint is made from a quantised file inside a wheel."""

    kind: Literal["standin"]
    name: str
    title: str
    licence: str
    source: WheelSource
    dtype: Literal["float32", "bfloat16"]
    adapter: AdapterConfig | None = None
    """Merged into the weights; without one they are the quantised file's own."""
    files: dict[str, Sha256]
    """The finished checkpoint: sha256 of every file."""


class ShapeConfig(Strict):
    """What `invoke plan` needs of a checkpoint that is not here yet; once it is, its own config.json counts."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    norm_eps: float
    rope_theta: float
    max_positions: int
    window: int | None
    tied: bool


class HubModelConfig(Strict):
    """A checkpoint on the Hugging Face hub."""

    kind: Literal["hub"]
    name: str
    title: str
    licence: str
    repo: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: tuple[str, ...]
    shape: ShapeConfig


ModelConfig = Annotated[StandinConfig | HubModelConfig, Field(discriminator="kind")]


class _ModelFile(Strict):
    model: ModelConfig


class DeviceConfig(Strict):
    """A device that need not be here, as a roofline."""

    name: str
    title: str
    memory_mib: Annotated[int, Field(gt=0)]
    in_use_mib: Annotated[int, Field(ge=0)]
    """By everything but us."""
    flops_per_s: Annotated[float, Field(gt=0)]
    """Of dense matrix products in bfloat16, at best."""
    flops_share: Annotated[float, Field(gt=0, le=1)]
    """What matrix products reach of it."""
    bytes_per_s: Annotated[float, Field(gt=0)]
    bytes_share: Annotated[float, Field(gt=0, le=1)]


class RunConfig(Strict):
    """`configs/run.yaml`: what the organiser's script fixes, and the defaults of `invoke run`."""

    max_new_tokens: int
    return_full_text: bool
    do_sample: bool
    temperature: float
    seed: int
    warmup_messages: tuple[dict[str, str], ...]


_Model = TypeVar("_Model", bound=Strict)


def load(path: Path, model: type[_Model]) -> _Model:
    """Read one YAML file. Raises IntegrityError (M101) that names the file and every wrong key."""
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise IntegrityError(
            "M101", "a configuration file cannot be read", where=paths.shown(path), actual=error, fix="correct the file"
        ) from error


def dataset_names() -> list[str]:
    """Names that `--dataset` knows."""
    return sorted(path.stem for path in (paths.CONFIGS / "datasets").glob("*.yaml"))


def model_names() -> list[str]:
    """Names that `--model` knows."""
    return sorted(path.stem for path in (paths.CONFIGS / "models").glob("*.yaml"))


def dataset(name: str) -> DatasetConfig:
    """The configuration of a data set. Raises UsageError (U101) with the nearest names."""
    if name not in dataset_names():
        raise unknown("U101", "data set", name, dataset_names(), "or a path to a .jsonl file")
    return load(paths.CONFIGS / "datasets" / f"{name}.yaml", DatasetConfig)


def model(name: str) -> StandinConfig | HubModelConfig:
    """The configuration of a model. Raises UsageError (U102) with the nearest names."""
    if name not in model_names():
        raise unknown("U102", "model", name, model_names(), "or a path to a checkpoint's folder")
    return load(paths.CONFIGS / "models" / f"{name}.yaml", _ModelFile).model


def device_names() -> list[str]:
    """Names that `invoke plan --device` knows."""
    return sorted(path.stem for path in (paths.CONFIGS / "devices").glob("*.yaml"))


def device(name: str) -> DeviceConfig:
    """The roofline of a device. Raises UsageError (U104) with the nearest names."""
    if name not in device_names():
        raise unknown("U104", "device", name, device_names(), "or one that you describe in configs/devices")
    return load(paths.CONFIGS / "devices" / f"{name}.yaml", DeviceConfig)


def run() -> RunConfig:
    """What the organiser's script fixes."""
    return load(paths.CONFIGS / "run.yaml", RunConfig)


def unknown(code: str, kind: str, name: str, known: list[str], otherwise: str) -> UsageError:
    """The error for a name with a typo: nearest names first."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return UsageError(
        code,
        f"there is no {kind} named {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""),
        expected=f"one of {', '.join(known)}, {otherwise}",
        actual=name,
        fix=f"name one of them, for instance {near[0] if near else known[0]}",
    )
