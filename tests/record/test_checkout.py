"""What is the project's source, with git and without it, and which changes of it count against a run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.contest.source import commit as source
from pipeline.record import checkout

pytestmark = pytest.mark.checkout

SOURCE = {
    "pyproject.toml": "",
    ".gitignore": "",
    "pipeline/a.py": "a = 1\n",
    "configs/run.yaml": "",
    "README.md": "words",
}
MADE = ("models/m/model.safetensors", ".venv/lib/x.py", ".venv-oldest/x.py", "runs/one/outputs.jsonl", "team.yaml")
MADE += ("data/sets/obqa.jsonl", "pipeline/__pycache__/a.cpython-310.pyc", "a.egg-info/PKG-INFO", "build/lib/a.py")


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    folder = tmp_path / "project"
    for name, text in {**SOURCE, ".gitignore": "\n".join(checkout.MADE_HERE)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All")
    for name in MADE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("made")
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in checkout.files(folder)}


def test_what_set_up_and_runs_make_is_listed_once() -> None:
    lines = (paths.ROOT / ".gitignore").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == list(checkout.MADE_HERE)


def test_the_source_is_the_same_without_git(project: Path) -> None:
    (project / "later.py").write_text("")
    (project / "link.py").symlink_to("later.py")
    with_git = names(project)
    shutil.rmtree(project / ".git")
    assert names(project) == with_git == {*SOURCE, "later.py"}


@pytest.mark.parametrize("without_git", [False, True])
def test_what_is_too_large_for_source_is_not_read(project: Path, without_git: bool) -> None:
    with (project / "mine.safetensors").open("wb") as file:
        file.truncate(source.LARGEST_BYTES + 1)
    if without_git:
        shutil.rmtree(project / ".git")
    assert source.tree(project).keys() == SOURCE.keys()


CHANGES: dict[str, tuple[Callable[[Path], object], list[str], list[str]]] = {
    "nothing": (lambda folder: None, [], []),
    "own data": (lambda folder: _write(folder, "my/prompts.jsonl"), [], []),
    "data in the top folder": (lambda folder: _write(folder, "prompts.jsonl"), [], []),
    "a test of one's own": (lambda folder: _write(folder, "tests/mine.py"), [], []),
    "a tracked text": (lambda folder: _write(folder, "README.md"), [], ["README.md"]),
    "a tracked module": (lambda folder: _write(folder, "pipeline/a.py"), ["pipeline/a.py"], ["pipeline/a.py"]),
    "a staged module": (
        lambda folder: (_write(folder, "pipeline/a.py"), git(folder, "add", "--all")),
        ["pipeline/a.py"],
        ["pipeline/a.py"],
    ),
    "a module that is gone": (
        lambda folder: (folder / "pipeline/a.py").unlink(),
        ["pipeline/a.py"],
        ["pipeline/a.py"],
    ),
    "a module moved away": (
        lambda folder: git(folder, "mv", "pipeline/a.py", "old.txt"),
        ["pipeline/a.py"],
        ["old.txt", "pipeline/a.py"],
    ),
    "a new module": (lambda folder: _write(folder, "pipeline/b ä.py"), ["pipeline/b ä.py"], ["pipeline/b ä.py"]),
    "a new configuration": (
        lambda folder: _write(folder, "configs/x/y.yaml"),
        ["configs/x/y.yaml"],
        ["configs/x/y.yaml"],
    ),
    "what Python would import": (
        lambda folder: _write(folder, "torch/__init__.py"),
        ["torch/__init__.py"],
        ["torch/__init__.py"],
    ),
    "invoke's settings": (lambda folder: _write(folder, "invoke.yaml"), ["invoke.yaml"], ["invoke.yaml"]),
}


def _write(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("changed\n")


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_takes_part_in_a_run_counts(project: Path, change: str) -> None:
    do, of_a_run, of_a_submission = CHANGES[change]
    do(project)
    assert sorted(checkout.changed(project)) == of_a_run
    assert sorted(checkout.changed(project, documents=True)) == of_a_submission


def test_the_remedies_work(project: Path) -> None:
    _write(project, "pipeline/b.py")
    _write(project, "pipeline/a.py")
    git(project, "stash", "--include-untracked")
    assert checkout.changed(project) == []
    git(project, "stash", "pop")
    git(project, "add", *checkout.changed(project))
    git(project, "commit", "--message", "Mine")
    assert checkout.changed(project) == []


def test_a_user_s_settings_of_git_hide_nothing(project: Path) -> None:
    git(project, "config", "status.showUntrackedFiles", "no")
    git(project, "config", "status.relativePaths", "true")
    _write(project, "pipeline/b.py")
    assert checkout.changed(project) == ["pipeline/b.py"]


def test_an_archive_unpacked_below_another_repository_is_none_of_its(project: Path) -> None:
    unpacked = project / "unpacked"
    for name in SOURCE:
        (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project / name, unpacked / name)
    assert (checkout.commit(unpacked), checkout.changed(unpacked)) == (None, None)
    assert names(unpacked) == set(SOURCE)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "Vendored")
    _write(unpacked, "pipeline/a.py")
    assert checkout.commit(unpacked) is not None
    assert checkout.changed(unpacked) == ["pipeline/a.py"]
