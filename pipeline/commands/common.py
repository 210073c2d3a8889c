"""Shared by all invoke tasks around their one call: messages instead of tracebacks, numbers out of text.

Nothing heavy is imported here, nor at the head of the tasks' modules: each task imports what it calls, so
that `invoke --list` is instant.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from invoke import Context, Exit

from pipeline import paths, table

_ANSWERS = "Nothing is half-written; what was answered is in the run folder."
LEFT_BEHIND = {
    **dict.fromkeys(("run", "evaluate", "stress", "reproduce"), _ANSWERS),
    "verify": "There is no verdict.",
    "judge": "Finished runs are kept, and running ones go on; call the same command again to continue.",
    "submit": "Nothing is packed.",
    "setup": "Nothing is half-written; call the same command again to continue.",
    "data": "Nothing is half-written; call the same command again to continue.",
    **dict.fromkeys(
        ("test", "test_oldest", "bench", "lint", "image", "image_test", "shell"), "It did not come to its end."
    ),
}
"""By task: what is true when it was interrupted."""


def guarded(body: Callable[..., Any]) -> Callable[..., Any]:
    """Run a task's body so that a user sees our message and the exit status of its kind, never a traceback."""

    @functools.wraps(body)
    def wrapper(context: Context, *args: Any, **kwargs: Any) -> Any:
        from pipeline import errors, files

        signal.signal(signal.SIGTERM, _stop)
        sys.unraisablehook = _not_ignored
        try:
            _quiet_log()
            return body(context, *args, **kwargs)
        except errors.PipelineError as error:
            raise Exit(f"\n{table.fitted(error, sys.stderr)}", code=error.exit_status) from error
        except ModuleNotFoundError as error:
            lacking = errors.missing_package(error)
            raise Exit(f"\n{table.fitted(lacking, sys.stderr)}", code=lacking.exit_status) from error
        except BrokenPipeError:
            raise  # for the program: nobody reads on
        except OSError as error:
            # Where the operating system refuses something that no module expected: still a message, not a traceback.
            refused = files.refused(error)
            raise Exit(f"\n{table.fitted(refused, sys.stderr)}", code=refused.exit_status) from error
        except KeyboardInterrupt as stop:
            raise Exit(
                f"\nInterrupted. {LEFT_BEHIND.get(body.__name__, 'Nothing is half-written.')}",
                code=143 if stop.args else 130,
            ) from None

    return wrapper


def on_checkout(body: Callable[..., Any]) -> Callable[..., Any]:
    """For a task that works on a checkout of this project. Raises NoCheckout (E331) where there is none."""

    @functools.wraps(body)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from pipeline.errors import NoCheckout

        if not paths.CHECKOUT:
            raise NoCheckout(
                "E331",
                "this task works on a checkout of the project, and there is none",
                where=paths.PACKAGE,
                expected="the repository's files around the package",
                actual="an installed wheel",
                fix="call it with invoke in a clone of the repository",
            )
        return body(*args, **kwargs)

    wrapper.__dict__["needs_checkout"] = True
    return wrapper


def needs_checkout(body: Callable[..., Any]) -> bool:
    """Whether a task's body is an `on_checkout` one."""
    return bool(body.__dict__.get("needs_checkout"))


def _stop(*_: object) -> None:
    """`docker stop` and a shutdown ask by SIGTERM: an end as by Ctrl-C, with the reason in the run folder."""
    raise KeyboardInterrupt("stopped (SIGTERM)")


def _not_ignored(unraisable: sys.UnraisableHookArgs) -> None:
    """Python ignores an interrupt that comes while an object is being deleted, traceback and all: it comes again."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    stopped = unraisable.exc_value is not None and unraisable.exc_value.args
    which = signal.SIGTERM if stopped else signal.SIGINT
    again = threading.Timer(0.02, signal.pthread_kill, [threading.main_thread().ident, which])
    again.daemon = True
    again.start()


def _quiet_log() -> None:
    """Only warnings on the terminal; a run's folder gets everything."""
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="WARNING", format="{level}: {message}")


TORCH = "starting torch"
TRANSFORMERS = "starting transformers"
"""What is said while modules are imported that need it, which takes seconds."""


@contextlib.contextmanager
def saying(what: str) -> Iterator[None]:
    """Says on a terminal what takes a moment, until it is over: `with saying(TORCH): from … import …`; "": nothing."""
    from pipeline.process import importing

    shown = f"{what} …" if what and sys.stderr.isatty() else ""
    sys.stderr.write(shown and f"{shown}\r")  # what is printed meanwhile goes over it
    sys.stderr.flush()
    try:
        with importing() if what in (TORCH, TRANSFORMERS) else contextlib.nullcontext():
            yield
    finally:
        sys.stderr.write("\r" + " " * len(shown) + "\r" if shown else "")
        sys.stderr.flush()


def whole(option: str, text: str) -> int | None:
    """A whole number given as text; nothing for an empty one. Raises UsageError (U401)."""
    from pipeline.errors import UsageError

    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            "U401",
            f"--{option} must be a whole number",
            expected="digits",
            actual=text,
            fix=f"write for instance --{option} 10",
        ) from None


def names_of(text: str) -> list[str]:
    """Names by commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def show(made: Any, as_json: Callable[[Any], Any], text: Callable[[Any], str], json: bool) -> None:
    """Print what a task made: as one JSON value for programs, else as text for people."""
    from json import dumps

    ascii_only = not sys.stdout.encoding.lower().startswith("utf")  # JSON has its own escapes for what is not
    print(dumps(as_json(made), ensure_ascii=ascii_only, indent=2, default=str) if json else table.fitted(text(made)))


def call(command: list[str], folder: Path = paths.ROOT, **environment: str) -> None:
    """Run a command in the checkout, its output on ours; a failure ends with its status and no words of ours."""
    status = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(paths.ROOT), **environment}, check=False
    ).returncode
    if status:
        raise Exit(code=status)
