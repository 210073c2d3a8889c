"""Whatever an output can show or take, and whenever Ctrl-C comes: a message or nothing, never a traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import invoke_command

from pipeline import paths

PROGRAM = """
import gc, os, signal, sys, time
from invoke import Collection, task
from pipeline.commands.common import guarded, show
from pipeline.commands.own_program import OwnProgram

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind its back ignores Ctrl-C

@task
@guarded
def work(context, limit=""):
    "A task."
    {body}

OwnProgram(namespace=Collection(work), binary="ours").run()
"""


def ran(body: str, *words: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program of ours with one task, which does this."""
    code = PROGRAM.format(body=body.replace("\n", "\n    "))
    return subprocess.run(
        [sys.executable, "-c", code, "work", *words],
        cwd=paths.ROOT,
        env={**os.environ, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=20,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8:strict"])
def test_no_character_that_an_output_lacks_ends_a_task(encoding: str) -> None:
    done = ran('print("before \\u2026 \\udcff after")', PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("before ")
    assert done.stdout.endswith(" after\n")


def test_json_stays_json_where_the_output_is_not_utf_8() -> None:
    done = ran('show({"team": "삼성ü"}, dict, str, json=True)', PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout) == {"team": "삼성ü"}


@pytest.mark.parametrize("printed", ["'a'", "'a' * 10**6"])
def test_an_output_without_room_is_a_message(printed: str) -> None:
    with open("/dev/full", "w") as full:
        done = ran(f"print({printed})", stdout=full.fileno())
    assert done.returncode == 5
    assert re.search("R10[45].*\n  where:    (what is printed|the output)", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("sent", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupt_that_python_would_ignore_comes_again(sent: str, status: int) -> None:
    body = f"""
class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.{sent})
        time.sleep(0.01)
Deleted()
time.sleep(10)"""
    done = ran(body)
    assert done.returncode == status
    assert done.stderr == "\nInterrupted. Nothing is half-written.\n"


def test_ctrl_c_while_python_puts_its_things_away_is_quiet() -> None:
    done = ran("import atexit; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT)); print('done')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_an_option_that_is_given_twice_is_named() -> None:
    done = ran("print(limit)", "--limit", "3", "--limit", "5")
    assert done.returncode == 2
    assert done.stderr.startswith("\nU408 --limit is given twice\n  where:    work\n  actual:   5\n")


def test_a_word_of_any_length_is_cut() -> None:
    done = ran("print(limit)", "x" * 5000)
    assert done.returncode == 2
    assert len(done.stderr) < 500


# Ctrl-C in a task that only looks


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_an_interrupted_rules_says_what_is_true_and_leaves_nothing(
    tmp_path: Path, runs: Path, sent: int, status: int
) -> None:
    began, git = tmp_path / "began", tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(f"#!/bin/sh\n: > {began}\nexec sleep 60\n")
    git.chmod(0o755)
    asking = subprocess.Popen(
        invoke_command("rules"),
        cwd=paths.ROOT,
        env={**os.environ, "PATH": f"{git.parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not began.exists() and asking.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    asking.send_signal(sent)
    printed, told = asking.communicate(timeout=30)
    assert asking.returncode == status
    assert (printed, told) == ("", "\nInterrupted. Nothing is half-written.\n")
    assert not runs.exists()


BENCH = {"no such model": ("--model", "nosuch", "U102"), "no rows": ("--rows", "0", "U409")}


@pytest.mark.parametrize("case", BENCH)
def test_a_bench_that_cannot_be_says_so_at_once_and_leaves_no_folder(tmp_path: Path, runs: Path, case: str) -> None:
    option, value, code = BENCH[case]
    done = subprocess.run(
        invoke_command("bench", option, value), cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"\n{code} ")
    assert not runs.exists()
