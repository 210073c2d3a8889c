"""Inputs that a newcomer brings: none costs a run, and no answer differs from pipe() silently."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from pipeline import paths
from pipeline.errors import IntegrityError
from pipeline.model import lock
from pipeline.record.outputs import read_outputs
from pipeline.runs import timed
from pipeline.runs.request import ENGINES, Request

pytestmark = pytest.mark.usefixtures("one_thread", "runs")


def user(text: str) -> dict[str, Any]:
    return {"message": [{"role": "user", "content": text}], "answer": "four"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(model: Path, file: Path, **request: Any) -> timed.Summary:
    request = {"max_new_tokens": 8, **request}
    return timed.run(Request(dataset=str(file), model=str(model), **request), lambda line: None)


def texts(done: timed.Summary) -> list[str]:
    return [row["output"][0]["generated_text"] for row in read_outputs(done.folder)]


# What only saves time

CHOICES = [
    "choices: ['three', 'four']\n",
    'choices: ["\\ud83d\\ude00", "\\ud83d\\ude22"]\n',
    "choices: ['\\ud83d', 'a \\ude00']\n",
    'choices: ["\\u0000", true, null]\n',
    "choices: ['\\x00', b'x', 1e999]\n",
    "choices: ['<|im_end|>', '']\n",
]


def test_whatever_the_choices_are_every_row_is_answered_as_by_pipe(tiny: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [user(f"Which face is glad?\n{line}") for line in CHOICES])
    ours, theirs = (texts(run(tiny, file, engine=engine)) for engine in ENGINES)
    assert len(ours) == len(CHOICES)
    assert ours == theirs


# One row against all


def test_a_row_beyond_the_context_is_answered_as_by_pipe_with_one_warning(tiny: Path, tmp_path: Path) -> None:
    rows = [user("What is two and two?"), user("river stone lamp " * 230), user("one"), user("lamp " * 600)]
    file = write(tmp_path / "rows.jsonl", rows)
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        ours = texts(run(tiny, file))
    finally:
        logger.remove(sink)
    assert ours == texts(run(tiny, file, engine="reference"))
    assert len(ours) == 4
    assert len(lines) == 1
    assert lines[0].strip().endswith(f"{paths.shown(file)} line 2, {paths.shown(file)} line 4")


# What is loaded is what is locked


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A locked checkpoint that a test may change."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


TEMPLATE = "{% for m in messages %}{{ m['content'] + ' Answer in one word.' }}{% endfor %}"


def test_a_template_laid_beside_a_lock_is_refused_before_anything_is_made(
    copy: Path, tmp_path: Path, runs: Path
) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    (copy / lock.NAME).unlink()
    lock.verify(copy)
    (copy / "chat_template.jinja").write_text(TEMPLATE)
    with pytest.raises(IntegrityError) as caught:
        run(copy, write(tmp_path / "rows.jsonl", [user("one")]))
    assert caught.value.code == "M207"
    assert not runs.exists()


def test_a_folder_that_holds_no_model_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data.json").write_text("{}")
    (folder / "config.json").write_text('{"model_type": "something"}')
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(IntegrityError) as caught:
        run(folder, write(tmp_path / "rows.jsonl", [user("one")]))
    assert caught.value.code == "M303"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "data.json", "model.safetensors"]
