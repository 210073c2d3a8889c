"""Every failure that a user can meet, one class per kind.

An error says what is wrong, where, what was expected and what was found, and what to do about it.
The class decides the exit status, the code names the single check, so that scripts can tell kinds
apart and people can look a message up. A task prints `str(error)` and exits; no traceback.

| exit status | kind |
| --- | --- |
| 2 | usage: an argument that cannot be |
| 3 | environment: the machine or an installed package does not do |
| 4 | integrity: a file is not what its lock says, or a model that we do not run |
| 5 | resource: disk, memory, permission |
| 6 | form: a data file that does not have the organiser's form |
| 7 | accuracy: two runs that should agree do not |
| 8 | invalid run: the run ended, its time does not count |
| 9 | cannot tell: something is missing that a judgement needs |
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TextIO


class PipelineError(Exception):
    """Base of all. `code` is a letter and three digits; one code stands for one check.

    `where` is a file, a line, an argument; `expected` and `actual` are shown when given;
    `fix` is a sentence that the reader can act on.
    """

    exit_status = 1

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        actual: object = None,
        fix: str,
    ) -> None:
        self.code, self.what, self.fix = code, what, fix
        self.where = None if where is None else str(where)
        self.expected = None if expected is None else str(expected)
        self.actual = None if actual is None else str(actual)
        super().__init__(what)

    def __str__(self) -> str:
        lines = [f"{self.code} {self.what}"]
        for label in ("where", "expected", "actual"):
            value = getattr(self, label)
            if value is not None:
                lines.append(f"  {label + ':':<10}{value}")
        lines.append(f"  {'do:':<10}{self.fix}")
        return "\n".join(lines).translate(_UNSEEN)


_CONTROLS = (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_UNSEEN = {number: "�" for number in _CONTROLS if chr(number) not in "\n\t"}
"""A file's name or its content may hold what moves the cursor or turns the direction of a line: it is shown as �."""


def in_words(error: Exception) -> str:
    """Why a file is not as expected, for a message's `actual`: without Python's own names for it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return f"its parts are of other kinds ({error})" if isinstance(error, TypeError | AttributeError) else str(error)


INTERRUPTED = 130
"""128 and SIGINT."""
CLOSED_PIPE = 141
"""128 and SIGPIPE: the status of a program whose reader has gone."""


OF_THE_TESTS = ("pytest", "hypothesis", "ruff", "mypy")
"""Packages that `make run` does not install."""


def take_any_text(*streams: TextIO) -> None:
    """Let no character end a program: one that an output's encoding lacks (a terminal that is not UTF-8, a file's name
    that is no text) is written as its number."""
    for stream in streams:
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def let_go_of(*streams: TextIO) -> None:
    """Let what of their buffers nobody reads, or no disk takes, go nowhere, so that Python does not complain of it."""
    for stream in streams:
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def missing_package(error: ModuleNotFoundError) -> PipelineError:
    """The error for a Python without our packages (E332); an ImportError too, for who imports us and expects one."""
    if isinstance(error, MissingPackage):
        return error
    maker = "make test" if error.name in OF_THE_TESTS else "make run"
    missing = MissingPackage(
        "E332",
        f"this Python has no {error.name}",
        where=sys.executable,
        expected=f"the environment that {maker} makes",
        fix=f"run {maker} once, then call with .venv/bin on the path (.venv/bin/python …)",
    )
    missing.name = error.name
    return missing


def end_plainly() -> None:
    """For a script: what a user can meet ends with our message and its status, and not with a traceback; an output that
    nobody reads on, as after `| head -1`, and Ctrl-C, with a status and no word."""
    take_any_text(sys.stdout)

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        if isinstance(error, BrokenPipeError):
            let_go_of(sys.stdout, sys.stderr)
            sys.exit(CLOSED_PIPE)
        known = missing_package(error) if isinstance(error, ModuleNotFoundError) else error
        if not isinstance(known, PipelineError):
            sys.__excepthook__(kind, error, trace)
            return
        print(known, file=sys.stderr)
        sys.exit(known.exit_status)

    sys.excepthook = hook


class UsageError(PipelineError):
    """An argument that cannot be: a name with a typo, a number that is none. Codes U…"""

    exit_status = 2


class EnvironmentProblem(PipelineError):
    """The machine or an installed package does not do. Codes E…"""

    exit_status = 3


class MissingPackage(EnvironmentProblem, ModuleNotFoundError):
    """A Python without a package that we need. Code E332."""


class NoCheckout(EnvironmentProblem):
    """A task that works on a checkout, called where only the wheel is installed. Code E331."""


class IntegrityError(PipelineError):
    """A file differs from its lock, or a checkpoint is one that the engine does not run. Codes M…"""

    exit_status = 4


class ResourceError(PipelineError):
    """No disk space, no memory, no permission. Codes R…"""

    exit_status = 5


class FormError(PipelineError):
    """A data file that does not have the organiser's form. Codes F…"""

    exit_status = 6


class AccuracyError(PipelineError):
    """Two runs that should agree do not. Codes A…"""

    exit_status = 7


class InvalidRun(PipelineError):
    """The run ended, but its time does not count. Codes I…"""

    exit_status = 8


class CannotTell(PipelineError):
    """Something is missing that a judgement needs. Codes C…"""

    exit_status = 9
