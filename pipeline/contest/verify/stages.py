"""The stages of a verification: a file is read, then every check is made, each call apart and within limits (`apart`).

A check that fails itself, or passes its limits, ends in CANNOT TELL by its name, and hides no other's result.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.check import FORM, INTEGRITY, INVALID_RUN, CheckResult, Kind, decided, unknown
from pipeline.contest import apart
from pipeline.contest.apart import Call, Stopped
from pipeline.contest.archive import unpack
from pipeline.contest.archive.unpack import Unpacked
from pipeline.contest.checks import answer_checks, by_id, read_submitted
from pipeline.contest.checks.answer_checks import Accuracy
from pipeline.contest.checks.facts import Facts
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.submitted import Answer, Manifest, Submission, Submitted
from pipeline.contest.format import RUN
from pipeline.contest.rules.rules import Rules
from pipeline.contest.verify import packed_checks, receipt, rule_checks
from pipeline.errors import FormError, IntegrityError, PipelineError

Output = TypeVar("Output")
LOG = "verify.log"
UNPACKED_WANTED = "an archive of plain files, complete, each as its list says"
BYTES_A_SECOND = 50_000_000
"""How fast any machine unpacks and hashes at least."""


@dataclass(frozen=True)
class Read:
    """A file as it was read: what could not be is None."""

    name: str
    results: tuple[CheckResult, ...]
    unpacked: Unpacked | None = None
    submission: Submission | None = None
    manifest: Manifest | None = None
    answers: tuple[Answer, ...] | None = None

    @property
    def submitted(self) -> Submitted | None:
        """None where one of its parts could not be read: then nothing else of it can be checked."""
        if self.unpacked is None or self.submission is None or self.manifest is None or self.answers is None:
            return None
        return Submitted(self.unpacked.folder, self.submission, self.manifest, self.answers)


@dataclass(frozen=True)
class Checked:
    results: tuple[CheckResult, ...]
    accuracy: Accuracy | None
    prints: Mapping[str, str | None]
    trouble: str
    """Tracebacks of checks that raised an error."""


def read(tar: Path, folder: Path) -> Read:
    """Unpack and read a submission. Raises ResourceError where the disk is full."""
    unpacking = _Unpacking(tar, folder)
    cpu_s = apart.CPU_S + tar.stat().st_size // BYTES_A_SECOND
    calls = [
        Call("unpack", unpacking.unpack, cpu_s),
        Call("submission", lambda: unpacking.then(partial(read_submitted.read_submission, folder))),
        Call("manifest", lambda: unpacking.then(partial(read_submitted.read_manifest, folder / RUN))),
        Call("form", lambda: unpacking.then(partial(read_submitted.read_answers, folder / RUN))),
    ]
    values: list[Any] = []
    results: list[CheckResult] = []
    for call, made in apart.each(calls):
        value, judged = (None, stopped(call.id, made)) if isinstance(made, Stopped) else made
        values.append(value)
        results.append(judged)
        if value is None and call.id == "unpack":
            return Read(tar.name.removesuffix(".tar"), (judged,))
    return Read(values[0].name, tuple(results), *values)


@dataclass
class _Unpacking:
    """The first call of a process, without which the others have nothing to read."""

    tar: Path
    folder: Path
    failed: bool = False

    def unpack(self) -> tuple[Unpacked | None, CheckResult]:
        unpacked, result = _unpacked(self.tar, self.folder)
        self.failed = unpacked is None
        return unpacked, result

    def then(self, read: Callable[[], tuple[Any, CheckResult]]) -> tuple[Any, CheckResult] | None:
        return None if self.failed else read()


def _unpacked(tar: Path, folder: Path) -> tuple[Unpacked | None, CheckResult]:
    try:
        unpacked = unpack.unpack(tar, folder)
    except (IntegrityError, FormError) as error:
        why = f"{error.code} {error.what} ({error.where})" + f": {error.actual}" * (error.actual is not None)
        kind: Kind = INTEGRITY if isinstance(error, IntegrityError) else FORM
        return None, decided("unpack", kind, False, why, UNPACKED_WANTED)
    return unpacked, decided("unpack", INTEGRITY, True, f"{len(unpacked.hashes)} files", UNPACKED_WANTED)


def stopped(id: str, why: Stopped, expected: str = "a result within the limits of a check") -> CheckResult:
    return unknown(id, INVALID_RUN, why.why, expected)


@dataclass(frozen=True)
class _Packed:
    """The source of a submission, read once by the process that makes the checks, and handed to no other."""

    submitted: Submitted
    organiser: Organiser
    rules: Rules

    @cached_property
    def source(self) -> tuple[CheckResult, dict[str, bytes] | None]:
        return packed_checks.source(self.submitted, self.organiser)

    @cached_property
    def judge(self) -> rule_checks.Judge:
        return rule_checks.Judge(self.rules, self.submitted, self.source[1])


def check(submitted: Submitted, organiser: Organiser) -> Checked:
    """Every check of what a submission claims."""
    facts, packed = Facts(submitted, organiser), _Packed(submitted, organiser, rule_checks.of_their_own())
    _warm(facts)
    made: dict[str, Callable[[], CheckResult]] = {id: partial(by_id.made, id, facts) for id in by_id.CHECKS}
    made["listing"] = partial(packed_checks.listing, submitted)
    made["documents"] = lambda: packed_checks.documents(submitted, packed.source[1])
    made["source"] = lambda: packed.source[0]
    for rule in packed.rules.rules:
        made[f"rule-{rule.id}"] = partial(_rule, rule.id, packed)
    calls = [Call(id, partial(guarded, id, make)) for id, make in made.items()]
    calls += [Call("accuracy-counted", lambda: _accuracy(facts)), Call("prints", partial(receipt.prints, submitted))]
    results: list[CheckResult] = []
    troubles: list[str] = []
    accuracy: Accuracy | None = None
    prints: Mapping[str, str | None] = {}
    for call, outcome in apart.each(calls):
        if call.id == "accuracy-counted":  # its own check has said why where there is none
            accuracy = None if isinstance(outcome, Stopped) else outcome
        elif call.id == "prints":
            prints = {} if isinstance(outcome, Stopped) else outcome
        elif isinstance(outcome, Stopped):
            results.append(stopped(call.id, outcome))
        else:
            results.append(outcome[0])
            troubles.append(outcome[1])
    return Checked(tuple(results), accuracy, prints, "\n".join(filter(None, troubles)))


def _warm(facts: Facts) -> None:
    """Read the organiser's own parts here, where the next submission finds them; what fails is said by the checks."""
    with contextlib.suppress(Exception):
        _ = facts.data, facts.prompts, facts.model and facts.model.stop_tokens


def _rule(id: str, packed: _Packed) -> CheckResult:
    return packed.judge.check(id)


def _accuracy(facts: Facts) -> Accuracy | None:
    with contextlib.suppress(Exception):
        return answer_checks.accuracy(facts)
    return None


def guarded(id: str, make: Callable[[], Output]) -> tuple[Output | CheckResult, str]:
    """The result of a check, or that it cannot tell, with the traceback of its own error."""
    try:
        return make(), ""
    except MemoryError:
        raise
    except PipelineError as error:  # of the organiser's own files
        return _in_trouble(id, error), ""
    except Exception as error:  # a mistake of ours must not cost the verdict, and must be seen
        return _failed(id, error), traceback.format_exc()


def _in_trouble(id: str, error: PipelineError) -> CheckResult:
    why = f"{error.code} {error.what}: {error.actual}"
    return unknown(id, INVALID_RUN, why, "the organiser's own files in order")


def _failed(id: str, error: Exception) -> CheckResult:
    why = f"the check failed itself, please report it: {type(error).__name__}: {error}"
    return unknown(id, INVALID_RUN, why, f"a result; {LOG} has the traceback")
