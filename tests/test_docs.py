"""What the documents name is there: files, commands with their options, error codes, sections that links lead to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from invoke import Collection

import tasks
from pipeline import paths

pytestmark = pytest.mark.checkout  # an image has no documents

ROOT = paths.ROOT
DOCUMENTS = sorted(
    [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]
)
TASKS = Collection.from_module(tasks).tasks
PLACES = "pipeline|tests|configs|docs|benchmarks|tools|requirements|data/standin|\\.ci"
ENDINGS = "py|md|yaml|html|css|js|cu|svg|lock"
MADE = {"team.yaml", "mine.py", "leaderboard.png", "method-rows.png", "method-cost.png"}
"""Files that a reader makes, or that a submission holds."""
GPUS = {"A100", "H100", "H200"}
CORE = {"--list", "--help", "--version"}
"""invoke's own options."""


def absent(text: str, document: Path) -> list[str]:
    """Files that a document names, by a path from the root, by a link, or by a bare name in code."""
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    by_path = re.findall(rf"(?<![\w/.:-])((?:{PLACES})/[\w./-]*\w)", text)
    bare = set(re.findall(rf"(?<![\w./*…-])([\w-]+\.(?:{ENDINGS}))(?![\w/])", code)) - MADE
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    folders = [ROOT / part for part in PLACES.replace("\\", "").split("|")]
    known = {path.name for path in [*ROOT.iterdir(), *(each for folder in folders for each in folder.rglob("*.*"))]}
    return [
        *(name for name in by_path if not (ROOT / name).exists() and "NAME" not in name),
        *(name for name in sorted(bare) if name not in known),
        *(name for name in links if not (document.parent / name).exists() and name not in MADE),
    ]


def mistaken(text: str) -> list[str]:
    """Commands with a task or an option that is not there."""
    wrong = []
    for line in re.findall(r"(?:`|^ *(?:\$ )?)(invoke [^`\n]*)", text, re.MULTILINE):
        words = re.split(r"[;|#…]| {2,}", line)[0].split()[1:]
        if not words or words[0].startswith(("-", "{{")):
            continue
        name = words[0].strip(".,:()")
        if name not in TASKS:
            wrong.append(f"invoke {name}")
            continue
        options = set(re.findall(r"(?<![\w'-])--[a-z][\w-]*", line.split("'")[0] if name == "shell" else line))
        known = {
            flag
            for argument in TASKS[name].get_arguments()
            for flag in (f"--{each.replace('_', '-')}" for each in argument.names)
        }
        wrong += [f"invoke {name} {option}" for option in sorted(options - known - CORE)]
    return wrong


def unknown_codes(text: str) -> list[str]:
    source = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "pipeline").rglob("*.py"))
    known = set(re.findall(r'"([A-Z]\d{3})"', source))
    letters = "".join(sorted({code[0] for code in known}))
    return sorted(set(re.findall(rf"\b[{letters}]\d{{3}}\b", text)) - known - GPUS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_all_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert absent(text, document) == []
    assert mistaken(text) == []
    assert unknown_codes(text) == []


def test_what_is_not_there_is_found() -> None:
    text = "`score.py`, `pipeline/runs/gone.py`, [x](gone.md), `invoke runn`, `invoke run --datset x`, M999"
    assert absent(text, ROOT / "README.md") == ["pipeline/runs/gone.py", "score.py", "gone.md"]
    assert mistaken(text) == ["invoke runn", "invoke run --datset"]
    assert unknown_codes(text) == ["M999"]


@pytest.mark.parametrize("path", sorted((paths.ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_a_benchmark_finds_the_pipeline_when_called_as_the_documents_say(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    imports = [text.find(f"\nfrom {package}") for package in ("pipeline", "benchmarks") if f"\nfrom {package}" in text]
    if "__main__" in text and imports:
        assert 0 < text.find("sys.path.insert(0, ") < min(imports)
