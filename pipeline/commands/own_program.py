"""invoke's command line with our words: a typo in a task or an option gets the nearest name and status 2, help shows
defaults, and whoever reads only the first lines of an output ends it quietly.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

from invoke import Exit, ParseError, Program, Task

from pipeline import table
from pipeline.errors import CLOSED_PIPE, ResourceError, UsageError, let_go_of, take_any_text

TAKES_MANY = "similarity"
"""The task behind whose places any number of further names may stand."""
HELPFUL = 5
"""Names in a message, at most."""


class OwnProgram(Program):
    """Reads tasks and their options; invoke's core options are read before, and keep its words."""

    def parse_tasks(self) -> None:
        take_any_text(sys.stdout)
        with quiet_end(), self._our_words():
            self._help_behind_a_task()
            self._any_number_of_names()
            super().parse_tasks()

    def _help_behind_a_task(self) -> None:
        """Let `compare --help` be `--help compare`: invoke would ask for what compare needs, or take it for that."""
        words = self.core.unparsed
        if {"--help", "-h"} & set(words) and words[0] in self.collection.task_names:
            self.core[0].args.help.value = words[0]
            self.core.unparsed[:] = []

    def parse_cleanup(self) -> None:
        with quiet_end(), self._our_words():
            super().parse_cleanup()

    def execute(self) -> None:
        try:
            with quiet_end():
                super().execute()
        finally:  # all is done: Ctrl-C would only show where Python was in putting its things away
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _any_number_of_names(self) -> None:
        """Let a shell's `*.tar` stand where invoke takes two names: more go behind --, where the task reads them."""
        words = self.core.unparsed
        if words[:1] != [TAKES_MANY]:
            return
        task = self.collection[TAKES_MANY]
        parameters = task.argspec(task.body).parameters.values()
        valued = {f"--{each.name}" for each in parameters if isinstance(each.default, str)}
        names = [i for i in range(1, len(words)) if not words[i].startswith("-") and words[i - 1] not in valued]
        if further := names[len(task.positional) :]:
            more = [words[i] for i in further]
            words[:] = [word for i, word in enumerate(words) if i not in further]
            sys.argv[:] = [*sys.argv, *([] if "--" in sys.argv else ["--"]), *more]

    @property
    def binary(self) -> str:
        """The program's name as one types it: invoke calls itself inv[oke]."""
        return super().binary.replace("inv[oke]", "invoke")

    @contextlib.contextmanager
    def _our_words(self) -> Iterator[None]:
        try:
            yield
        except ParseError as error:
            trouble = self._usage(error)
            raise Exit(f"\n{table.fitted(trouble, sys.stderr)}", code=trouble.exit_status) from error
        except ValueError as error:
            trouble = UsageError(
                "U406", "a value is of the wrong kind", actual=error, fix=f"{self.binary} --help TASK has every option"
            )
            raise Exit(f"\n{table.fitted(trouble, sys.stderr)}", code=trouble.exit_status) from error

    def _usage(self, error: ParseError) -> UsageError:
        context = error.context
        task = getattr(context, "name", None)
        word = re.fullmatch(r"No idea what '(.*)' is!", str(error), re.DOTALL)
        helps = f"{self.binary} --help {task}" if task else f"{self.binary} --list"
        if word is None:
            return self._incomplete(str(error), task, helps)
        from pipeline.settings import nearest  # reads YAML, which a command without a typo need not

        if word[1].startswith("-"):
            flags = [flag for flag in getattr(context, "flags", {}) if flag.startswith("--")]
            near = nearest(word[1], flags)
            of = f" of {task}" if task else ""
            return UsageError(
                "U402",
                f"there is no option {word[1]}{of}{_meant(near)}",
                expected=_some(near or flags) if flags else "a task before its options",
                fix=f"{helps} has every option" if task else f"write the task first: {helps} has them all",
            )
        if twice := self._given_twice(word[1]):
            return UsageError(
                "U408", f"{twice} is given twice", where=task, actual=_cut(word[1]), fix=f"give {twice} once"
            )
        near = nearest(word[1], list(self.parser.contexts))
        named = _cut(word[1])
        what = f"{task} takes no value {named!r}, and no task is called so" if task else f"there is no task {named}"
        return UsageError(
            "U403",
            f"{what}{_meant(near)}",
            expected=_some(near) or "a task",
            fix=f"{self.binary} --list has every task" + f", {helps} its options" * bool(task),
        )

    def _given_twice(self, word: str) -> str | None:
        """The option before a word that nobody takes, if it is there a second time: invoke has its value already."""
        words = self.core.unparsed
        befores = [words[i - 1] for i in range(1, len(words)) if words[i] == word and words[i - 1].startswith("--")]
        return next((before for before in befores if words.count(before) > 1), None)

    def _incomplete(self, text: str, task: str | None, helps: str) -> UsageError:
        """The error for a value that is missing, of an option or in a place; anything else in invoke's words."""
        if option := re.search(r"<Argument: ([\w-]+).*needed value", text):
            what, code = f"--{option[1]} needs a value, and none follows it", "U404"
        elif places := re.search(r"required positional arguments: (.*)", text):
            named = " ".join(name.upper().replace("_", "-") for name in re.findall(r"'(.*?)'", places[1]))
            what, code = f"{task} needs {named}", "U405"
            return UsageError(code, what, fix=f"write {self.binary} {task} {named}: {helps} explains it")
        else:
            what, code = " ".join(text.split()), "U407"
        return UsageError(code, what, where=task, fix=f"{helps} has every option")


@contextlib.contextmanager
def quiet_end() -> Iterator[None]:
    """End with CLOSED_PIPE and no word where nobody reads what is printed, as after `| head -1`, be it an output or the
    message of an error, which invoke would print with the status; and with R105 where no disk takes it."""
    try:
        try:
            yield
        except Exit as end:
            if end.message:
                print(end.message, file=sys.stderr, flush=True)
            raise Exit(code=end.code) from end
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        let_go_of(sys.stdout, sys.stderr)
        raise Exit(code=CLOSED_PIPE) from None
    except OSError as error:
        let_go_of(sys.stdout)
        trouble = ResourceError(
            "R105",
            "what is printed cannot be written",
            where="the output",
            actual=error.strerror,
            fix="make room where it goes, or let it go elsewhere; what the task itself has written is there",
        )
        print(f"\n{table.fitted(trouble, sys.stderr)}", file=sys.stderr)
        raise Exit(code=trouble.exit_status) from None


def _cut(word: str, longest: int = 80) -> str:
    return word if len(word) <= longest else f"{word[: longest - 1]}…"


def _meant(near: list[str]) -> str:
    return f"; did you mean {' or '.join(near[:2])}?" if near else ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:HELPFUL]) + ", …" * (len(names) > HELPFUL)


def with_defaults(task: Task[Any]) -> Task[Any]:
    """The task with its defaults in its help, and without invoke's short flags, which mean another thing in each."""
    task.auto_shortflags = False
    for name, parameter in task.argspec(task.body).parameters.items():
        key = next((each for each in (name, name.strip("_").replace("_", "-")) if each in task.help), None)
        if key is not None and isinstance(parameter.default, str) and parameter.default:
            task.help[key] = f"{task.help[key]} (default: {parameter.default})"
    return task


def put_in_place() -> None:
    """Let the program that is running, which is invoke's own, read tasks and options as ours does."""
    from invoke.main import program

    if type(program) is Program:
        program.__class__ = OwnProgram
