"""The result of a check, in one form for all who check: doctor, the contest's rules, the verification of a submission.

A check looks at one thing and changes nothing. What it could not see is `unknown`, and never taken for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

State = Literal["ok", "warn", "fail", "unknown", "human"]
OK: Final = "ok"
WARN: Final = "warn"
"""Good enough to go on, not as it should be."""
FAIL: Final = "fail"
UNKNOWN: Final = "unknown"
"""Nobody could tell, for want of something that `found` names."""
HUMAN: Final = "human"
"""For people to decide."""

Kind = Literal["usage", "environment", "integrity", "resource", "form", "accuracy", "invalid"]
"""The class of a failure, as the classes of `pipeline.errors` are: it decides the exit status."""
USAGE: Final = "usage"
ENVIRONMENT: Final = "environment"
INTEGRITY: Final = "integrity"
RESOURCE: Final = "resource"
FORM: Final = "form"
ACCURACY: Final = "accuracy"
INVALID_RUN: Final = "invalid"

LONGEST: Final = 400
"""Characters of a stranger's text that are printed."""


@dataclass(frozen=True)
class CheckResult:
    id: str
    state: State
    expected: str
    found: str
    fix: str = ""
    """The remedy where it is not ok, as a sentence."""
    kind: Kind | None = None
    """Class of the failure, should it fail."""
    mend: Callable[[], object] | None = field(default=None, compare=False, repr=False)
    """Does what `fix` says, where a program can; raises PipelineError when it cannot."""


def decided(id: str, kind: Kind, fine: bool | None, found: object, expected: object, fix: str = "") -> CheckResult:
    """The result of a yes or no, with strangers' words made safe to print; None: it could not be seen."""
    state: State = UNKNOWN if fine is None else OK if fine else FAIL
    return CheckResult(id, state, plain(expected), plain(found), fix, kind)


def unknown(id: str, kind: Kind, why: object, expected: object, fix: str = "") -> CheckResult:
    return decided(id, kind, None, why, expected, fix)


def plain(value: object) -> str:
    """A stranger's words, made safe to print: one line, no control characters, `LONGEST` characters at most."""
    text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(value)[: 2 * LONGEST])
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def listed(values: Iterable[object], most: int = 8) -> str:
    """The first few, and how many more."""
    every = list(values)
    return ", ".join(map(str, every[:most])) + (f" and {len(every) - most} more" if len(every) > most else "")
