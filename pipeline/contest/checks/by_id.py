"""Every check of a run by its id, as verdicts and the contest's rules name it: the one place where each is decided."""

from __future__ import annotations

from pipeline.check import INVALID_RUN, CheckResult, unknown
from pipeline.contest.checks import (
    answer_checks,
    board_checks,
    device_checks,
    engine_checks,
    provenance_checks,
    timing_checks,
)
from pipeline.contest.checks.facts import Check, Facts
from pipeline.errors import PipelineError

CHECKS: dict[str, Check] = {
    **answer_checks.CHECKS,
    **timing_checks.CHECKS,
    **engine_checks.CHECKS,
    **board_checks.CHECKS,
    **device_checks.CHECKS,
    **provenance_checks.CHECKS,
}

READ = ("manifest", "form", "source")
"""Ids of what is decided where a run's files are read; without these, nothing else of it can be."""


def made(id: str, facts: Facts) -> CheckResult:
    """The result of one check; unknown where the organiser's own files are in trouble."""
    try:
        return CHECKS[id](facts)
    except PipelineError as error:
        why = f"{error.code} {error.what}: {error.actual}"
        return unknown(id, INVALID_RUN, why, "the organiser's own files in order")
