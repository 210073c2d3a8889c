"""A new user's typo ends in our words, with the nearest name and status 2, never in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

import tasks
from pipeline import paths, schemas, settings
from pipeline.contest.checks import read_submitted
from pipeline.contest.team import Team
from pipeline.engine import device
from pipeline.errors import IntegrityError, UsageError
from pipeline.model import fetch as model_setup
from pipeline.record import run_folder

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPT = "from pipeline.commands.program import *; OwnProgram(namespace=namespace, binary=SCRIPT).run()"

MISTYPED: dict[str, tuple[list[str], str, str]] = {
    "a task": (["runn"], "U403", "did you mean run?"),
    "an option": (["run", "--datset", "obqa"], "U402", "did you mean --dataset"),
    "an option, with =": (["run", "--datset=obqa"], "U402", "did you mean --dataset"),
    "a value that is missing": (["run", "--dataset"], "U404", "--dataset needs a value"),
    "a value that is an option": (["run", "--dataset", "--limit", "3"], "U404", "--dataset needs a value"),
    "a place that is empty": (["compare", "A"], "U405", "compare needs RUN-B"),
    "both places": (["compare"], "U405", "compare needs RUN-A RUN-B"),
    "a value too many": (["run", "obqa"], "U403", "run takes no value 'obqa'"),
    "the task of a help": (["--help", "runn"], "U403", "did you mean run?"),
    "a short flag": (["run", "-m", "obqa"], "U402", "no option -m of run"),
    "another case": (["RUN"], "U403", "did you mean run"),
}


@pytest.mark.parametrize("case", MISTYPED)
def test_a_typo_in_a_task_or_an_option_gets_our_words(invoke: Invoke, case: str) -> None:
    arguments, code, shown = MISTYPED[case]
    done = invoke(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"\n{code} ")
    assert shown in done.stderr
    assert "  do:       " in done.stderr
    assert not {"Traceback", "inv[oke]", "No idea"} & set(done.stderr.split())


def test_the_console_script_has_the_same_words(runs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "run", "--datset", "x"],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "U402" in done.stderr
    assert "phi3-pipeline --help run" in done.stderr


@pytest.mark.parametrize("words", [["compare", "--help"], ["compare", "A", "--help"], ["run", "--help"]])
def test_help_may_come_behind_the_task_too(invoke: Invoke, words: list[str]) -> None:
    done = invoke(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == invoke("--help", words[0]).stdout


def test_help_shows_defaults_and_no_short_flag(invoke: Invoke) -> None:
    told = " ".join(invoke("--help", "run").stdout.split())
    assert "(default: obqa)" in told
    assert "(default: standin)" in told
    for task in tasks.namespace.tasks.values():
        assert [name for argument in task.get_arguments() for name in argument.names if len(name) == 1] == [
            name for name in task.argspec(task.body).parameters if len(name) == 1
        ]


@pytest.mark.parametrize("arguments", ["runn", "compare a b"])
def test_whoever_reads_no_message_ends_it_quietly(arguments: str, runs: Path) -> None:
    command = f"{sys.executable} -m invoke {arguments} 2>&1 >/dev/null | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) in {("141", ""), ("2", "")}


def test_the_script_s_hook_ends_quietly_where_nobody_reads_on() -> None:
    ask = "from pipeline.errors import end_plainly; end_plainly(); print('x' * 10**6, flush=True)"
    command = f'{sys.executable} -c "{ask}" | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("141", "")


@pytest.mark.parametrize("arguments", ["help", "--list", "--help run", "data --list"])
def test_whoever_reads_only_the_first_line_ends_it_quietly(arguments: str) -> None:
    command = f"{sys.executable} -m invoke {arguments} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.strip() in {"0", "141"}


def test_the_script_ends_in_our_error_at_a_wrong_path() -> None:
    done = subprocess.run(
        [sys.executable, "test_script.py", "nowhere"], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert done.stderr.startswith("M301 ")
    assert "Traceback" not in done.stderr


def test_a_python_without_our_packages_says_make_run() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "test_script.py"], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr.startswith("E332 this Python has no ")
    assert "make run" in done.stderr


@pytest.mark.parametrize("lacks", ["numpy", "torch", "loguru", "transformers"])
@pytest.mark.slow
def test_load_names_the_package_that_is_missing_and_what_to_do(lacks: str) -> None:
    code = (
        f"import sys\nsys.modules[{lacks!r}] = None\n"
        "try:\n    from pipeline.text_generation import load\n    load('nowhere')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"E332 this Python has no {lacks}\n"), done.stderr
    assert "run make run once" in done.stdout


def test_a_set_is_found_in_any_case() -> None:
    assert settings.dataset_name("OBQA") == "obqa"
    assert settings.dataset_name("BoolQ") == settings.dataset_name("boolq")
    assert settings.dataset_name("My/Prompts.jsonl") == "My/Prompts.jsonl"


def test_a_long_list_of_names_is_cut_to_the_nearest_and_the_command_that_lists_all() -> None:
    with pytest.raises(UsageError) as caught:
        settings.dataset("gsm9k")
    assert caught.value.expected.startswith("one of gsm8k, ")
    assert caught.value.expected.count(", ") == settings.MOST_SHOWN
    assert "invoke data --list" in caught.value.expected


@pytest.mark.parametrize(
    ("hub_id", "remedy"),
    [
        ("microsoft/Phi-3-medium-4k-instruct", "--model phi3-medium"),
        ("somebody/Some-Model", "hf download somebody/Some-Model"),
    ],
)
def test_an_id_of_the_hub_says_how_to_get_a_checkpoint(hub_id: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        model_setup.resolve(hub_id)
    assert caught.value.code == "U105"
    assert remedy in caught.value.fix


def test_without_a_gpu_cuda_says_why_and_names_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError) as caught:
        device.pick_device("cuda")
    assert caught.value.code == "U206"
    assert "torch" in caught.value.actual
    assert "invoke doctor" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: Blue\nmembers: Kim\n", "members is to be a list"),
        ("name: Blue\nmembers: [Kim]\ncolour: blue\n", "colour is not a known key"),
        ("members: [Kim]\n", "name is missing"),
        ("[1, 2]\n", "the whole is to have keys and values"),
    ],
)
def test_pydantic_s_own_words_reach_nobody(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "team.yaml").write_text(text)
    with pytest.raises(IntegrityError) as caught:
        settings.load(tmp_path / "team.yaml", Team)
    assert words in caught.value.actual
    assert not any(each in caught.value.actual for each in ("pydantic", "http", "Input should", "type="))


def test_a_submission_s_wrong_json_is_named_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": run_folder.SCHEMA, "state": 3}))
    _, check = read_submitted.read_manifest(tmp_path)
    assert "state is to be " in check.found
    assert " is missing" in check.found
    assert not any(each in check.found for each in ("pydantic", "http", "Input should", "Field required", "cannot be"))


def test_every_value_of_the_words_can_be_filled_in() -> None:
    with pytest.raises(ValidationError) as caught:
        schemas.RunConfig.model_validate({"max_new_tokens": -1, "x": 1})
    assert "{" not in schemas.words(caught.value)


def test_a_closed_output_of_a_run_is_no_failure_of_the_disk(invoke: Invoke, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "data", "--list"],
        cwd=paths.ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
