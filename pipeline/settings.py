"""Look-ups of `configs/` by name: data sets, models, devices, the model card, the run's fixed arguments.

A name with a typo gets the nearest names (UsageError), a file with a wrong key its path and that key (IntegrityError).
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline import paths
from pipeline.errors import IntegrityError, UsageError
from pipeline.schemas import DatasetConfig, DeviceConfig, HubModelConfig, ModelCard, ModelFile, RunConfig, StandinConfig

_Model = TypeVar("_Model", bound=BaseModel)


def read_yaml(content: str | bytes) -> Any:
    """Raises yaml.YAMLError. By libyaml where PyYAML brings it, as its wheels do: ten times as fast."""
    return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def load(path: Path, model: type[_Model]) -> _Model:
    """Read one YAML file. Raises IntegrityError (M101) that names the file and every wrong key."""
    try:
        return model.model_validate(read_yaml(path.read_text(encoding="utf-8")))
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


def dataset_aliases() -> dict[str, str]:
    """Other names that `--dataset` knows, and the sets that they mean. Raises IntegrityError (M102): a name of two."""
    names = dataset_names()
    aliases: dict[str, str] = {}
    for name in names:
        for alias in _dataset(name).aliases:
            if alias in names or alias in aliases:
                raise IntegrityError(
                    "M102",
                    f"two data sets are called {alias}",
                    where=paths.shown(paths.CONFIGS / "datasets" / f"{name}.yaml"),
                    expected="an alias that no other set has",
                    actual=f"{aliases.get(alias, alias)}.yaml has it as well",
                    fix="take it out of `aliases` of one of the two",
                )
            aliases[alias] = name
    return aliases


def dataset_name(name: str) -> str:
    """A set's own name for any that it has; what no set is called, a path as a rule, is left as it is."""
    may_be_alias = name not in dataset_names() and re.fullmatch(r"[\w-]+", name)
    return dataset_aliases().get(name, name) if may_be_alias else name


def dataset(name: str) -> DatasetConfig:
    """The configuration of a data set, by any of its names. Raises UsageError (U101) with the nearest names."""
    own = dataset_name(name)
    if own not in dataset_names():
        known = sorted([*dataset_names(), *dataset_aliases()])
        raise unknown("U101", "data set", name, known, "or a path to a .jsonl file")
    return _dataset(own)


def _dataset(name: str) -> DatasetConfig:
    return load(paths.CONFIGS / "datasets" / f"{name}.yaml", DatasetConfig)


def model(name: str) -> StandinConfig | HubModelConfig:
    """The configuration of a model. Raises UsageError (U102) with the nearest names."""
    if name not in model_names():
        raise unknown("U102", "model", name, model_names(), "or a path to a checkpoint's folder")
    return load(paths.CONFIGS / "models" / f"{name}.yaml", ModelFile).model


def device_names() -> list[str]:
    """Names that `invoke plan --device` knows."""
    return sorted(path.stem for path in (paths.CONFIGS / "devices").glob("*.yaml"))


def device(name: str) -> DeviceConfig:
    """The roofline of a device. Raises UsageError (U104) with the nearest names."""
    if name not in device_names():
        raise unknown("U104", "device", name, device_names(), "or one that you describe in configs/devices")
    return load(paths.CONFIGS / "devices" / f"{name}.yaml", DeviceConfig)


def model_card() -> ModelCard:
    """The published scores."""
    return load(paths.CONFIGS / "model_card.yaml", ModelCard)


def run() -> RunConfig:
    """The arguments that the organiser's script fixes."""
    return load(paths.CONFIGS / "run.yaml", RunConfig)


def unknown(code: str, kind: str, name: str, known: list[str], otherwise: str) -> UsageError:
    """The error for a name with a typo: nearest names first."""
    begin_so = [each for each in known if name and each.startswith(name)]
    near = (begin_so or difflib.get_close_matches(name, known, n=3, cutoff=0.5))[:3]
    return UsageError(
        code,
        f"there is no {kind} named {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""),
        expected=f"one of {', '.join(known)}, {otherwise}",
        actual=name,
        fix=f"name one of them, for instance {near[0] if near else known[0]}",
    )
