"""Look-ups of `configs/` by name: data sets, models, devices, the model card, the run's fixed arguments.

A name with a typo gets the nearest names (UsageError), a file with a wrong key its path and that key (IntegrityError).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline import paths, schemas
from pipeline.errors import IntegrityError, UsageError
from pipeline.schemas import DatasetConfig, HubModelConfig, ModelCard, ModelFile, RunConfig, StandinConfig
from pipeline.schemas.devices import DeviceConfig

_Model = TypeVar("_Model", bound=BaseModel)

MOST_SHOWN = 5
"""Names in a message."""


def read_yaml(content: str | bytes) -> Any:
    """The value in a YAML text.

    Raises yaml.YAMLError. By libyaml where PyYAML brings it, as its wheels do: ten times as fast.
    """
    return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def yaml_events(content: str | bytes) -> Iterator[yaml.Event]:
    """The file's events, before anything is made of them. Raises as `read_yaml` does, and by the same library."""
    return yaml.parse(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def load(path: Path, model: type[_Model]) -> _Model:
    """Read one YAML file. Raises IntegrityError (M101) that names the file and every wrong key."""
    try:
        return model.model_validate(read_yaml(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        actual = schemas.words(error) if isinstance(error, ValidationError) else error
        raise IntegrityError(
            "M101",
            "a configuration file cannot be read",
            where=paths.shown(path),
            actual=actual,
            fix="correct the file",
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
    """A set's own name for any that it has, in whatever case; what no set is called, as a path, is left as it is."""
    if name in dataset_names() or not re.fullmatch(r"[\w-]+", name):
        return name
    folded = name.casefold()
    return folded if folded in dataset_names() else dataset_aliases().get(folded, name)


def dataset(name: str) -> DatasetConfig:
    """The configuration of a data set, by any of its names. Raises UsageError (U101) with the nearest names."""
    own = dataset_name(name)
    if own not in dataset_names():
        known = sorted([*dataset_names(), *dataset_aliases()])
        raise unknown("U101", "data set", name, known, "or a path to a .jsonl file", "invoke data --list")
    return _dataset(own)


def _dataset(name: str) -> DatasetConfig:
    return load(paths.CONFIGS / "datasets" / f"{name}.yaml", DatasetConfig)


def model(name: str) -> StandinConfig | HubModelConfig:
    """The configuration of a model. Raises UsageError (U102) with the nearest names."""
    if name not in model_names():
        raise unknown("U102", "model", name, model_names(), "or a path to a checkpoint's folder")
    return load(paths.CONFIGS / "models" / f"{name}.yaml", ModelFile).model


def device_names() -> list[str]:
    """Names that `invoke plan --device` knows: the project's, and those of devices that a run here measured."""
    return sorted({path.stem for folder in device_folders() for path in folder.glob("*.yaml")})


def device_folders() -> tuple[Path, Path]:
    """The project's device files, and those that `invoke plan --save-device` writes; of one name the first counts."""
    return paths.CONFIGS / "devices", paths.data() / "devices"


def device(name: str) -> DeviceConfig:
    """The roofline of a device. Raises UsageError (U104) with the nearest names."""
    if name not in device_names():
        raise unknown("U104", "device", name, device_names(), "or one that you describe in configs/devices")
    places = (folder / f"{name}.yaml" for folder in device_folders())
    return load(next(path for path in places if path.exists()), DeviceConfig)


def device_title(manifest: Mapping[str, Any]) -> str:
    """How a saved device of the machine that made a run is called."""
    environment, board = manifest["environment"], manifest["board"]["before"]["board"]
    named = board.get("title") if board["is_jetson"] else environment["gpu"] or environment["processor"]
    threads = f", {environment['threads']} threads" if manifest["device"] == "cpu" else ""
    return f"{named or 'this machine'}{threads}"


def model_card() -> ModelCard:
    """The published scores."""
    return load(paths.CONFIGS / "model_card.yaml", ModelCard)


def run() -> RunConfig:
    """The arguments that the organiser's script fixes."""
    return load(paths.CONFIGS / "run.yaml", RunConfig)


def unknown(code: str, kind: str, name: str, known: list[str], otherwise: str, listing: str = "") -> UsageError:
    """The error for a name with a typo: the nearest names in whatever case, and the command that lists all of many."""
    near = nearest(name, known)
    shown = known if len(known) <= MOST_SHOWN else [*near, *(each for each in known if each not in near)][:MOST_SHOWN]
    more = f" ({len(known)} in all{': ' * bool(listing)}{listing})" if len(known) > MOST_SHOWN else ""
    return UsageError(
        code,
        f"there is no {kind} named {name!r}" + (f"; did you mean {' or '.join(near[:3])}?" if near else ""),
        expected=f"one of {', '.join(shown) or '(there are none yet)'}{more}{otherwise and f', {otherwise}'}",
        actual=name,
        fix=f"name one of them, for instance {near[0] if near else known[0]}" if known else f"make a {kind} first",
    )


def nearest(name: str, known: list[str]) -> list[str]:
    """The names that are most like it, in whatever case; none where none is."""
    by_folded = {each.casefold(): each for each in known}
    folded = name.casefold()
    begin_so = [by_folded[each] for each in by_folded if folded and each.startswith(folded)]
    close = difflib.get_close_matches(folded, by_folded, n=MOST_SHOWN, cutoff=0.5)
    return (begin_so or [by_folded[each] for each in close])[:MOST_SHOWN]
