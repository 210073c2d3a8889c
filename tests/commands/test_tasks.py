"""The commands as users type them: quick to list, from any folder, explained, and the Makefile only calls them."""

from __future__ import annotations

import inspect
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from invoke import Collection
from support.rows import write_rows

import tasks
from pipeline import paths
from pipeline.commands import next_step

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]
MAKEFILE = (paths.ROOT / "Makefile").read_text(encoding="utf-8")
TASKS = Collection.from_module(tasks).tasks


def makefile_calls() -> dict[str, list[str]]:
    """Target to its recipe, but for the one that makes the virtual environment."""
    found = re.findall(r"^([a-z][\w-]*):[^\n=]*\n((?:\t[^\n]*\n)+)", MAKEFILE, re.MULTILINE)
    return {target: recipe.strip().splitlines() for target, recipe in found}


@pytest.mark.alone
@pytest.mark.slow
def test_listing_costs_little_more_than_invoke_itself() -> None:
    def seconds(*command: str) -> float:
        """Processor time, the least of five: other programs' does not count, a slow machine is slow on both sides."""
        times = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *command], cwd=paths.ROOT, capture_output=True, check=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        return min(times)

    assert seconds("-m", "invoke", "--list") < 2.5 * seconds("-c", "import invoke.main")


def test_listing_imports_nothing_heavy() -> None:
    ask = (
        "import sys; from invoke.main import program; program.run(['invoke', '--list'], exit=False)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'loguru'} & set(sys.modules)\n"
        "sys.exit(str(heavy or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.strip() == ""
    assert "run" in done.stdout


def test_every_makefile_target_calls_one_task(invoke: Invoke) -> None:
    known = {task["name"] for task in json.loads(invoke("--list", "--list-format=json").stdout)["tasks"]}
    calls = makefile_calls()
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    assert set(calls) == phony
    assert {"help", "setup", "data", "run", "test"} <= phony
    assert "$(INVOKE)" not in calls.pop("help")[0]  # nothing has to be there for it
    for target, recipe in calls.items():
        assert len(recipe) == 1, target
        words = recipe[0].split()
        assert words[0] == "@$(INVOKE)", target
        assert words[1] in known, target
        assert target not in known or words[1:] == [target]


PYTHON = """#!/bin/sh
case "$*" in
  *venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
  *"$FAILS"*) echo "Collecting one==1 (from x)"; echo "no such hash" >&2; exit 1;;
  *no-deps*) echo "Downloading torch"; echo "pip $*" >> called;;
  *torch.txt*) echo "Requirement already satisfied: sympy"; echo "pip $*" >> called
    echo "$PYTHONDONTWRITEBYTECODE" > variable;;
  *pip*) echo "Collecting one==1 (from x)"; echo "Installing collected packages: one"; echo "pip $*" >> called;;
esac
"""


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls make in a folder with nothing but a Makefile, locks, and a Python that only says what pip would."""
    shutil.copy(paths.ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    for name in ("cpu.lock", "host.lock", "dev.lock", "torch.txt"):
        (tmp_path / "requirements" / name).touch()
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)

    def call(target: str, fails: str = "nothing") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "PYTHON=./python", target],
            cwd=tmp_path, env={**os.environ, "FAILS": fails, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip

    return call


@pytest.mark.checkout  # an image has no make
def test_make_help_needs_no_environment(bare: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    done = bare("help")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE) == list(makefile_calls())
    assert not (tmp_path / ".venv").exists()


@pytest.mark.checkout  # an image has no make
def test_setting_up_counts_packages_and_ends_where_pip_does(
    bare: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    failed = bare(".venv/.ready", fails="host.lock")
    assert failed.returncode != 0
    assert "no such hash" in failed.stderr
    assert not (tmp_path / ".venv/.ready").exists()
    done = bare(".venv/.ready")
    assert done.returncode == 0, done.stderr
    assert "  1: one==1" in done.stdout
    assert "Downloading torch" in done.stdout
    assert "already satisfied" not in done.stdout
    assert (tmp_path / ".venv/.ready").exists()
    installed = [re.findall(r"/([\w.]+)", line) for line in (tmp_path / "called").read_text().splitlines()]
    assert installed[-3:] == [["cpu.lock", "host.lock"], ["torch.txt"], ["torch.txt"]]
    assert (tmp_path / "variable").read_text() == "\n"  # what is not compiled here is compiled once, and kept
    assert bare(".venv/.tests").returncode == 0  # what tests need comes on top, once they are called
    assert "dev.lock" in (tmp_path / "called").read_text().splitlines()[-1]


def test_every_makefile_target_is_explained() -> None:
    targets = makefile_calls()
    assert "run" in targets
    for target in targets:
        assert re.search(rf"^{target}:.*##\s*\w", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("name", TASKS)
def test_every_argument_has_a_default(name: str) -> None:
    body = TASKS[name].body
    arguments = [
        argument
        for argument in list(inspect.signature(body).parameters.values())[1:]
        if argument.name not in (TASKS[name].positional or ())
    ]
    assert all(argument.default is not inspect.Parameter.empty for argument in arguments)
    # None or a number as default would make invoke take a value apart in ways of its own.
    assert all(isinstance(argument.default, str | bool) for argument in arguments)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_and_every_argument_is_explained(name: str) -> None:
    assert TASKS[name].__doc__
    helps = [argument.help for argument in TASKS[name].get_arguments()]  # once: invoke takes them out
    assert all(helps)
    assert all(each.count("(default:") <= 1 for each in helps)


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"help", "shell"}))
def test_every_task_says_what_people_do_next(name: str) -> None:
    lines = [line for key, line in next_step.NEXT.items() if key.split()[0] == name]
    assert lines
    assert f'then("{name}"' in inspect.getsource(TASKS[name].body)
    for named in re.findall(r"invoke ([a-z-]+)", " ".join(lines)):
        assert named in TASKS


def test_what_people_do_next_is_filled_in_and_not_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    next_step.then("compare", run="a b", other="c")
    next_step.then("compare", quiet=True, run="a b", other="c")
    assert capsys.readouterr().out == "\nnext: invoke report 'a b' --against c shows it as a page\n"


def test_help_for_run_explains_and_does_not_run(invoke: Invoke, runs: Path) -> None:
    done = invoke("--help", "run")
    assert done.returncode == 0
    for option in ("--dataset", "--model", "--engine", "--limit", "--repeat", "--max-new-tokens", "Example"):
        assert option in done.stdout
    assert not runs.exists()


@pytest.mark.parametrize("folder", [".", "pipeline", "pipeline/model", "tests"])
def test_help_from_any_folder_names_the_two_commands(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.delenv("PIPELINE_IMAGE", raising=False)
    done = invoke("help", folder=paths.ROOT / folder)
    assert done.returncode == 0
    assert "make run" in done.stdout
    assert "make test" in done.stdout


def test_in_the_image_help_says_how_to_call_docker(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_IMAGE", "yes")
    done = invoke("help")
    assert done.returncode == 0
    assert "docker run --rm --runtime nvidia" in done.stdout
    assert "make " not in done.stdout.replace("make the three folders", "")
    named = re.findall(r"^  ([a-z-]+)(?= |$).*", done.stdout.split("TASK is one of")[1], re.MULTILINE)
    assert named
    assert set(named) <= set(TASKS)


@pytest.mark.slow
def test_in_the_image_tests_that_need_a_checkout_are_left_out(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ("test", "--only", "tests/runs/test_timed.py", "--match", "commit_in_the_manifest")
    monkeypatch.setenv("PIPELINE_IMAGE", "yes")
    assert invoke(*one).returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_data_works_from_a_subfolder(invoke: Invoke) -> None:
    done = invoke("data", "--set", "obqa", folder=paths.ROOT / "pipeline")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^  obqa +30 +yes ", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_organisers_script_runs_as_a_user_runs_it(tiny: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", 2)
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    # The script asks for up to 500 tokens; random answers end soon when every eighth token ends them.
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(0, 49152, 8))}))
    done = subprocess.run(
        [sys.executable, str(paths.ROOT / "test_script.py"), str(model), str(data)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Elapsed_time:\s+[\d.]+$", done.stdout, re.MULTILINE)
    assert re.search(r"^Correctness: \d/2$", done.stdout, re.MULTILINE)
