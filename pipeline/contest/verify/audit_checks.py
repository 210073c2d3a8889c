"""`invoke verify --audit`: whether the organiser's own copy of the model would have given the submitted tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.check import INTEGRITY, CheckResult, unknown
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.submitted import Submitted

# What imports torch, only where an audit is asked for: most verifications need none.
if TYPE_CHECKING:
    from pipeline.contest.audit.judging import Audit

EXPECTED = "tokens that the organiser's copy of the model chooses, but for rounding"


@dataclass(frozen=True)
class Request:
    """The audit was asked for, on this device."""

    device: str


def asked(device: str | None) -> Request:
    """The request for an audit on this device. Raises UsageError (U204) where there is no such device."""
    from pipeline.engine.device import pick_device  # noqa: PLC0415 - imports torch

    return Request(pick_device(device).type)


@dataclass(frozen=True)
class Done:
    audit: Audit
    device: str
    dtype: str
    elapsed_s: float

    def as_json(self) -> dict[str, Any]:
        figures = {"device": self.device, "dtype": self.dtype, "elapsed_s": self.elapsed_s}
        return figures | self.audit.as_json()


def checks(submitted: Submitted, organiser: Organiser, request: Request) -> tuple[list[CheckResult], Done | None]:
    """The audit's two checks, and its figures; unknown, and None, for want of model, data, or anything to look at."""
    from pipeline.contest.audit import judging, looking  # noqa: PLC0415 - they import torch

    run = submitted.manifest
    model, prompts = (
        organiser.model(run.model.name),
        organiser.prompts(run.dataset.name, run.model.name, run.dataset.rows),
    )
    if model is None or model.folder is None or prompts is None:
        return [_cannot(f"the organiser's copy of data or model ({run.model.name}) is not on this disk")], None
    if run.dtype not in looking.DTYPES:
        return [_cannot(f"the noise of {run.dtype} is not known here")], None
    vocab = 0 if model.shape is None else model.shape.vocab
    answers = {each.index: each.token_ids for each in submitted.answers if each.index < len(prompts)}
    strange = [row for row, tokens in sorted(answers.items()) if not tokens or max(tokens) >= vocab]
    if strange or not answers:
        return [_cannot(f"rows {strange[:8]}: no tokens, or none of this model")], None
    start = time.perf_counter()
    subject = looking.Subject(model.folder, run.dtype, dict(enumerate(prompts)), answers)
    made = judging.judge(looking.look(subject, request.device))
    return judging.checks(made), Done(made, request.device, run.dtype, time.perf_counter() - start)


def _cannot(why: str) -> CheckResult:
    return unknown("audit", INTEGRITY, why, EXPECTED)
