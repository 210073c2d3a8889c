"""What became of a run, from what the organiser saw of it; never from what a queue says."""

from __future__ import annotations

from typing import Final

from pipeline.check import listed
from pipeline.contest.rerun.measure import OUT_OF_MEMORY
from pipeline.contest.verify.again.once import One
from pipeline.queues.job import NODE
from pipeline.queues.states import MOST_STARTED

FINE: Final = "ok"
DID_NOT_START: Final = "did not start"
OUT: Final = "out of memory"
TIMEOUT: Final = "timeout"
WRONG_FORM: Final = "wrong form"
WRONG_ANSWERS: Final = "wrong answers"
NOT_RUN: Final = "not run"
"""Another run of the submission passed its limit."""

ALLOWED = {NODE: MOST_STARTED, DID_NOT_START: 2}
"""How often a kind may be seen before it is the run's; once unless it is named here."""
ENDED = {0, 8}
"""Statuses of a run that came to its end; 8 is its own word on a disturbed board."""


def of(one: One) -> tuple[str, str]:
    """The kind, and why."""
    wrong, status = one.measured.wrong, one.measured.status
    why = listed(wrong) or f"status {status}"
    if OUT_OF_MEMORY in wrong or any(each.startswith("no end within") for each in wrong):
        return OUT if OUT_OF_MEMORY in wrong else TIMEOUT, why
    if status is not None and status not in ENDED:
        return DID_NOT_START, f"status {status}; {why}"
    if status is not None and (one.manifest is None or one.answers is None):
        return WRONG_FORM, why
    if wrong or one.elapsed_s is None:
        return WRONG_ANSWERS, why
    disturbed = one.seen.reasons if one.seen is not None else ()
    return (NODE, listed(disturbed)) if disturbed else (FINE, "")
