"""The contest's rules (`configs/rules.yaml`), asked of a stranger's submission.

The same checks as `invoke rules` asks of one's own, on evidence of which nothing is the submission's word where the
organiser knows better. Rules that the checks beside this one answer with more are left to those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pipeline.check import ACCURACY, FORM, HUMAN, INTEGRITY, INVALID_RUN, UNKNOWN, WARN, CheckResult, Kind, plain
from pipeline.contest.checks.submitted import Submitted
from pipeline.contest.format import IMAGE
from pipeline.contest.rules import evidence, rules
from pipeline.contest.rules.source_rules import METHOD
from pipeline.contest.team import TeamWords

KINDS: tuple[Kind, ...] = (INTEGRITY, FORM, ACCURACY)
"""Kinds of failure that are kept; any other becomes INVALID_RUN."""

DOCUMENT = "method.md"
"""File name of the explanation in a submission."""

NEED_SOURCE = {"script", "no-secrets", "third-party"}
"""Ids of the rules that cannot be decided without the source."""


def version() -> int:
    """The version of the rules by which a verdict is given."""
    return rules.load().version


def of_their_own() -> rules.Rules:
    """All rules that no other check of the verdict decides."""
    every = rules.load()
    return every.model_copy(update={"rules": tuple(each for each in every.rules if not each.verified)})


@dataclass(frozen=True)
class Judge:
    """`source`: the files of source.tar; None if it cannot be read."""

    rules: rules.Rules
    submitted: Submitted
    source: Mapping[str, bytes] | None

    def check(self, id: str) -> CheckResult:
        one = tuple(each for each in self.rules.rules if each.id == id)
        [judged] = rules.judge(self._evidence, self.rules.model_copy(update={"rules": one}))
        return _check(judged, self.submitted, self.source is None)

    @cached_property
    def _evidence(self) -> evidence.Evidence:
        return _evidence(self.submitted, self.source or {})


def _evidence(submitted: Submitted, source: Mapping[str, bytes]) -> evidence.Evidence:
    submission = submitted.submission
    return evidence.Evidence(
        manifest=submitted.manifest.model_dump(mode="json"),
        # The explanation is what is handed in, and may have been written after the run.
        source={**source, METHOD: _explanation(submitted)},
        team=TeamWords(
            submission.team.name, tuple(submission.team.members), submission.declarations, submission.image.reference
        ),
        image_packed=(submitted.folder / IMAGE).is_file(),
        image_digest=submission.image.digest,
        arguments=evidence.arguments(),
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
        state, actual = WARN, f"{actual}; not checked in a rehearsal"
    return CheckResult(f"rule-{each.id}", state, plain(each.expected), plain(actual), kind=kind)
