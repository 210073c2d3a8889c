"""A run and the organiser's side to it: what the checks look at, each part made once and only if a check asks for it.

Nothing here imports torch, so that a few checks are decided in no time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from pipeline import settings
from pipeline.accuracy import compare
from pipeline.accuracy.compare import Comparison
from pipeline.accuracy.scoring import Verdicts, verdicts
from pipeline.check import CheckResult
from pipeline.contest.checks import read_telemetry
from pipeline.contest.checks.organiser import Data, Model, Organiser
from pipeline.contest.checks.submitted import Manifest, Submitted
from pipeline.dataset import fetch
from pipeline.device.telemetry import Recording
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Facts:
    submitted: Submitted
    organiser: Organiser

    @property
    def manifest(self) -> Manifest:
        return self.submitted.manifest

    @property
    def of_the_contest(self) -> Facts:
        """The same run as a submission to the contest itself, whatever it is now."""
        submission = self.submitted.submission.model_copy(update={"rehearsal": False})
        return Facts(replace(self.submitted, submission=submission), self.organiser)

    @cached_property
    def data(self) -> Data | None:
        return self.organiser.data(self.manifest.dataset.name)

    @cached_property
    def model(self) -> Model | None:
        return self.organiser.model(self.manifest.model.name)

    @cached_property
    def prompts(self) -> list[list[int]] | None:
        """Token ids of the prompts, by the organiser's tokenizer."""
        dataset = self.manifest.dataset
        return self.organiser.prompts(dataset.name, self.manifest.model.name, dataset.rows)

    @cached_property
    def recording(self) -> tuple[Recording | None, str]:
        """The samples in telemetry.csv, or why it cannot be read."""
        return read_telemetry.read(self.submitted.run, self.manifest)

    @cached_property
    def judged(self) -> Verdicts | None:
        """The answers, scored by the set's own rule if the data is that set, else by the organiser's exact match."""
        if self.data is None:
            return None
        name, by_row = self.manifest.dataset.name, self.submitted.by_row
        rows = [row for row in self.data.rows if row.index in by_row]
        known = name in settings.dataset_names() and settings.dataset(name).sha256 == self.data.sha256
        if known and not can_score(name):
            return None
        return verdicts(name if known else "", rows, [by_row[row.index].text for row in rows], execute_code=False)

    @cached_property
    def compared(self) -> Comparison | str:
        """The run against the organiser's run of the reference, or why it cannot be compared."""
        reference, data = self.organiser.reference, self.data
        if reference is None or data is None:
            nothing = "no reference run was given (--reference RUN)"
            return nothing if reference is None else "the organiser's data is not here"
        if reference.manifest["dataset"]["sha256"] != data.sha256:
            return "the reference run answered other data"
        if not can_score(reference.manifest["dataset"]["name"]):
            return "the set's scoring file is not here (invoke data)"
        common = sorted(set(reference.outputs) & set(self.submitted.by_row) & set(range(len(data.rows))))
        if not common:
            return "the reference run has no row in common"
        mine = compare.Run(self.submitted.run, self.manifest.model_dump(), _as_outputs(self.submitted))
        try:
            return compare.paired(reference, mine, list(data.rows), common, execute_code=False)
        except PipelineError as error:
            return error.what


Check = Callable[[Facts], CheckResult]


def can_score(name: str) -> bool:
    """Whether the scoring file that the set's rule needs, if any, is on this disk: nothing is fetched."""
    needs = name in settings.dataset_names() and settings.dataset(name).form.scoring
    return not needs or fetch.scoring_place(name).is_file()


def _as_outputs(submitted: Submitted) -> dict[int, dict[str, object]]:
    return {
        answer.index: {
            "index": answer.index,
            "output": [{"generated_text": answer.text}],
            "token_ids": list(answer.token_ids),
        }
        for answer in submitted.answers
    }
