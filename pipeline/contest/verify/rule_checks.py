"""The contest's rules (`configs/rules.yaml`), asked of a stranger's submission.

The same checks as `invoke rules` asks of one's own, on evidence of which nothing is the submission's word where the
organiser knows better. Rules that the checks beside this one answer with more are left to those.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline import settings
from pipeline.check import ACCURACY, FORM, HUMAN, INTEGRITY, INVALID_RUN, OK, UNKNOWN, CheckResult, Kind, plain
from pipeline.contest.checks.submitted import Submitted
from pipeline.contest.format import IMAGE
from pipeline.contest.rules import rules
from pipeline.contest.rules.evidence import Evidence, Pins
from pipeline.contest.rules.source_rules import METHOD
from pipeline.contest.team import TeamWords

ANSWERED = {
    "model": "model",
    "weights": "weights",
    "precision": "dtype",
    "dataset": "dataset",
    "whole-set": "rows",
    "sequence-length": "rows",
    "output-form": "form",
    "accuracy": "accuracy",
    "timed-section": "timeline",
    "valid-time": "board",
    "source": "source",
}
"""Rule id to the check of verification that decides it by computing what the rule's own check reads in the manifest."""

KINDS: tuple[Kind, ...] = (INTEGRITY, FORM, ACCURACY)
"""Kinds of failure that are kept; any other becomes INVALID_RUN."""

DOCUMENT = "method.md"
"""File name of the explanation in a submission."""

NEED_SOURCE = {"script", "no-secrets", "third-party"}
"""Ids of the rules that cannot be decided without the source."""


def checks(submitted: Submitted, source: Mapping[str, bytes] | None) -> list[CheckResult]:
    """All rules that no other check decides. `source`: the files of source.tar; None if it cannot be read."""
    judged = rules.judge(_evidence(submitted, source or {}))
    return [_check(each, submitted, source is None) for each in judged if each.id not in ANSWERED]


def _evidence(submitted: Submitted, source: Mapping[str, bytes]) -> Evidence:
    submission = submitted.submission
    rows = [
        {"index": index, "output": [{"generated_text": answer.text}], "token_ids": list(answer.token_ids)}
        for index, answer in sorted(submitted.by_row.items())
    ]
    arguments = settings.run().model_dump(include={"max_new_tokens", "return_full_text", "do_sample", "temperature"})
    return Evidence(
        manifest=submitted.manifest.model_dump(mode="json"),
        rows=rows,
        # The explanation is what is handed in, and may have been written after the run.
        source={**source, METHOD: _explanation(submitted)},
        team=TeamWords(
            submission.team.name, tuple(submission.team.members), submission.declarations, submission.image.reference
        ),
        image_packed=(submitted.folder / IMAGE).is_file(),
        image_digest=submission.image.digest,
        pins=Pins(arguments=arguments),
    )


def _explanation(submitted: Submitted) -> bytes:
    path = submitted.folder / DOCUMENT
    return path.read_bytes() if path.is_file() else b""


def _check(each: CheckResult, submitted: Submitted, no_source: bool) -> CheckResult:
    kind, actual, state = each.kind if each.kind in KINDS else INVALID_RUN, each.found, each.state
    if state == HUMAN:
        return CheckResult(f"rule-{each.id}", HUMAN, plain(each.fix), plain(each.found), kind=kind)
    if no_source and each.id in NEED_SOURCE:
        state, actual = UNKNOWN, "the source cannot be read"
    if submitted.submission.rehearsal and rules.is_waived(each):
        state, actual = OK, f"{actual}; not asked of a rehearsal"
    return CheckResult(f"rule-{each.id}", state, plain(each.expected), plain(actual), kind=kind)
