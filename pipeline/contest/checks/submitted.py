"""The types of a submission's claims: `submission.json`, the run's manifest, and its answers.

Nothing here is believed. These are the claims that the checks hold against what they compute themselves; a claim that
is missing or of another type makes the submission unreadable.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pipeline.contest.format import RUN

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=4000)]
Count = Annotated[int, Field(ge=0)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class Claim(BaseModel):
    """An object of submitted JSON, strictly typed ("1" is no number); unknown keys are kept for the contest's rules."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")


class TeamClaim(Claim):
    name: Text
    members: list[Text]


class ModelClaim(Claim):
    name: Text
    lock_sha256: Sha256


class DatasetClaim(Claim):
    name: Text
    sha256: Sha256
    rows: int


class ImageClaim(Claim):
    reference: Text | None = None
    digest: Text | None = None


class Submission(Claim):
    schema_: int = Field(alias="schema")
    rehearsal: bool
    team: TeamClaim
    run: Text
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]
    model: ModelClaim
    dataset: DatasetClaim
    image: ImageClaim
    declarations: dict[str, bool]
    files: dict[str, int]


class Request(Claim):
    dataset: Text
    model: Text
    limit: int | None
    repeat: int
    batch_size: int | None
    dtype: Text | None
    device: Text | None
    engine: Text | None = None
    max_new_tokens: int | None = None


class Code(Claim):
    commit: Text | None
    dirty: bool | None


class Environment(Claim):
    python: Text
    machine: Text | None = None
    cores: int | None
    gpu: Text | None
    processor: Text | None
    packages: dict[str, Text | None]


class Phases(Claim):
    load: float
    warm_up: float
    timed: Annotated[list[float], Field(min_length=1, max_length=1000)]
    attestation: float


class Timeline(Claim):
    load: Pair
    warm_up: Pair
    telemetry: Pair
    timed: Annotated[list[Pair], Field(min_length=1, max_length=1000)]
    attestation: Pair


class Section(Claim):
    passes: int
    answer_tokens: int
    outputs_sha256: Sha256


class NetworkClaim(Claim):
    interfaces: list[Text]
    received_bytes: int
    sent_bytes: int


class Score(Claim):
    correct: int
    scored: int


class Stats(Claim):
    prompt_tokens: int
    tree_tokens: int
    answer_tokens: int
    passes: int
    passes_s: float
    prompt_rows: Count | None = None
    answer_rows: Count | None = None
    failed_allocations: Count | None = None
    drafts_accepted: dict[str, Count] | None = None


class Cost(Claim):
    rows: list[int]
    elapsed_s: list[float]


class Engine(Claim):
    name: Text
    weights: Text | None = None
    """How the weights lay in memory; only our engine reports it."""
    stats: Stats | None = None
    cost: Cost | None = None


class Weights(Claim):
    lock_sha256: Sha256
    tensors: int
    size_bytes: int
    rounded: bool
    files: dict[str, Sha256]


class PeakMemory(Claim):
    host_bytes: int
    gpu_bytes: int | None


class BoardClaim(Claim):
    is_jetson: bool
    l4t: Text | None
    jetpack: Text | None
    module: Text | None
    model: Text | None
    kernel: Text | None
    memory_bytes: int | None
    in_container: bool


class ModeClaim(Claim):
    id: int
    name: Text


class StateClaim(Claim):
    board: BoardClaim
    mode: ModeClaim | None
    clocks_locked: bool | None


class BeforeAndAfter(Claim):
    before: StateClaim
    after: StateClaim


class TelemetryClaim(Claim):
    samples: int
    elapsed_s: float
    others_share: float | None


class VerdictClaim(Claim):
    state: Text
    reasons: list[Text]
    notes: list[Text]


class Manifest(Claim):
    """The manifest of a finished run that has a time; a resumed run has none."""

    state: Literal["finished"]
    command: Annotated[list[Text], Field(min_length=1)]
    request: Request
    arguments: dict[str, Any]
    dtype: Text
    device: Text
    model: ModelClaim
    code: Code
    environment: Environment
    began_utc: Annotated[AwareDatetime, Field(strict=False)]
    ended_utc: Annotated[AwareDatetime, Field(strict=False)]
    dataset: DatasetClaim
    phases_s: Phases
    timeline_s: Timeline
    sections: Annotated[list[Section], Field(min_length=1, max_length=1000)]
    network: NetworkClaim | None
    elapsed_s: float
    answer_tokens: int
    score: Score
    engine: Engine
    weights: Weights
    peak_memory: PeakMemory
    board: BeforeAndAfter
    telemetry: TelemetryClaim
    verdict: VerdictClaim

    @property
    def submitted(self) -> datetime:
        return self.ended_utc


@dataclass(frozen=True)
class Answer:
    index: int
    text: str
    token_ids: tuple[int, ...]
    at_s: float | None
    """Seconds from the start of the section to the end of this answer."""


@dataclass(frozen=True)
class Submitted:
    folder: Path
    """Folder of the unpacked submission."""
    submission: Submission
    manifest: Manifest
    answers: tuple[Answer, ...]
    """The answers in the file's order, which is the order in which they were finished."""
    run_folder: Path | None = None
    """The run's own folder, where it lies outside of the submission's."""

    @property
    def run(self) -> Path:
        return self.run_folder or self.folder / RUN

    @property
    def by_row(self) -> dict[int, Answer]:
        return {answer.index: answer for answer in self.answers}
