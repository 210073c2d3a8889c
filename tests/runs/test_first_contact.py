"""Inputs that a newcomer brings: none costs a run, and no answer differs from pipe() silently."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger
from transformers import AutoTokenizer

from pipeline import paths, text_generation
from pipeline.engine import memory
from pipeline.errors import FormError, IntegrityError, ResourceError
from pipeline.model import lock
from pipeline.record.outputs import read_outputs
from pipeline.runs import timed
from pipeline.runs.request import ENGINES, Request, begin
from pipeline.text.chat_template import Prompts
from pipeline.text.quick_prompts import QuickPrompts

pytestmark = pytest.mark.usefixtures("one_thread", "runs", "short_warm_up")


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


@pytest.mark.slow
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


# What can be known of a data file is said before a model is loaded


def never(*_: object, **__: object) -> None:
    raise AssertionError("a model was loaded")


NO_SYSTEM = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
NO_SYSTEM += "{% endif %}{{ m['content'] }}{% endfor %}"


def test_a_template_without_a_system_role_names_file_and_row_before_loading(
    copy: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": NO_SYSTEM}))
    (copy / lock.NAME).unlink()
    system = {"message": [{"role": "system", "content": "Be brief."}, *user("two")["message"]]}
    monkeypatch.setattr(timed.engines, "load", never)
    for engine in ENGINES:
        with pytest.raises(FormError) as caught:
            run(copy, write(tmp_path / "rows.jsonl", [user("one"), system]), engine=engine)
        assert (caught.value.code, caught.value.exit_status) == ("F204", 6)
        assert caught.value.where.endswith("rows.jsonl line 2")
        assert "System role not supported" in caught.value.actual
    assert not runs.exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _open_template(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "{% for m in messages %}"}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("tokenizer.json", _cut),
        ("tokenizer.json", Path.unlink),
        ("tokenizer_config.json", _cut),
        ("tokenizer_config.json", _open_template),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_named_before_loading(
    copy: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], None]
) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    (copy / lock.NAME).unlink()
    damage(copy / name)
    monkeypatch.setattr(timed.engines, "load", never)
    with pytest.raises(IntegrityError) as caught:
        run(copy, write(tmp_path / "rows.jsonl", [user("one")]))
    assert caught.value.code == "M311"
    assert not runs.exists()


def test_settings_that_transformers_refuses_are_named_in_python_too(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "bos_token_id": "x"}))
    try:
        refused = not AutoTokenizer.from_pretrained(str(copy))
    except Exception:  # of any of its classes
        refused = True
    if not refused:  # transformers 4.44 takes it, and so do we
        assert text_generation.load(copy).tokenizer is not None
        return
    with pytest.raises(IntegrityError) as caught:
        text_generation.load(copy)
    assert caught.value.code == "M311"
    assert "bos_token_id" in caught.value.actual


@pytest.mark.parametrize("template", [None, [{"name": "tool_use", "template": "x"}]], ids=["none", "no default"])
def test_a_checkpoint_without_a_chat_template_says_so_and_blames_no_row(
    copy: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, template: Any
) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    (copy / lock.NAME).unlink()
    monkeypatch.setattr(timed.engines, "load", never)
    for engine in ENGINES:
        with pytest.raises(IntegrityError) as caught:
            run(copy, write(tmp_path / "rows.jsonl", [user("one")]), engine=engine)
        assert (caught.value.code, caught.value.where) == ("M313", str(copy))
        assert "row" not in str(caught.value)
        assert "line" not in str(caught.value)
    assert not runs.exists()


@pytest.mark.slow
def test_the_timed_section_reads_fills_in_and_tokenises_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is another once the model is loaded: the answers are to what it holds then."""
    file = write(tmp_path / "rows.jsonl", [user("What is two and two?")])
    before = texts(run(tiny, file))
    other = write(tmp_path / "other.jsonl", [user("Name a river."), user("Name a stone.")])
    expected = texts(run(tiny, other))
    prepare = timed._prepare

    def change(*arguments: Any) -> Any:
        ready = prepare(*arguments)
        file.write_bytes(other.read_bytes())
        return ready

    monkeypatch.setattr(timed, "_prepare", change)
    assert texts(run(tiny, file)) == expected != before


SAYS_NOTHING_OF_TORCH = """
import sys
from pathlib import Path
from pipeline.commands import answer
from invoke import Exit
status = 0
try:
    {call}
except Exit as end:
    print(end.message)
    status = end.code
assert not {{"torch", "transformers"}} & set(sys.modules), "what is heavy was imported"
sys.exit(status)
"""


@pytest.mark.parametrize(
    "call",
    [
        "answer.run.body(None, dataset={file!r}, model={model!r})",
        "answer.evaluate.body(None, sets='obqa', model={model!r}, limit='3')",
    ],
    ids=["run", "evaluate"],
)
def test_what_can_be_known_is_said_before_anything_heavy_is_imported(
    copy: Path, tmp_path: Path, runs: Path, call: str
) -> None:
    """By the command, with a template that takes nobody's chat."""
    (copy / "chat_template.jinja").write_text("{{ raise_exception('No chats, please') }}")
    (copy / lock.NAME).unlink()
    file = write(tmp_path / "rows.jsonl", [user("one"), user("two")])
    code = SAYS_NOTHING_OF_TORCH.format(call=call.format(file=str(file), model=str(copy)))
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert "F204" in done.stdout
    assert "No chats, please" in done.stdout
    assert time.monotonic() - start < 20  # 1 s on two quiet cores
    assert not runs.exists()


def test_a_thousand_rows_are_looked_at_in_no_time(tiny: Path, tmp_path: Path) -> None:
    """Form, template and lengths, all that a run does before torch is imported: 3 s of a user's time, most of it not
    the rows'."""
    file = write(
        tmp_path / "rows.jsonl", [user(f"Read the passage and answer. {i} " + "lamp " * 150) for i in range(1000)]
    )
    start = time.process_time()
    looked = begin(Request(dataset=str(file), model=str(tiny)))
    assert time.process_time() - start < 3  # of all threads
    assert looked.longest is not None
    assert looked.longest.tokens > 150


def test_lengths_without_transformers_are_those_of_transformers(tiny: Path, standin: Path) -> None:
    chats = [row["message"] for row in (user("What is two and two?"), user("lamp \u4e2d\u6587 <|im_end|>\n" * 9))]
    system = [{"role": "system", "content": "Be brief."}, *chats[0]]
    for folder in (tiny, standin):
        exact = Prompts(AutoTokenizer.from_pretrained(folder))
        assert QuickPrompts(folder)([*chats, system]) == exact([*chats, system])


def test_what_memory_cannot_hold_is_refused_before_loading_by_its_line(
    tiny: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed.engines, "load", never)
    monkeypatch.setattr(memory, "most_tokens", lambda *_: 700)
    file = write(tmp_path / "rows.jsonl", [user("one"), user("lamp " * 900)])
    with pytest.raises(ResourceError) as caught:
        run(tiny, file)
    assert (caught.value.code, caught.value.where) == ("R301", f"{paths.shown(file)} line 2")
    assert not runs.exists()


def test_the_room_that_is_foreseen_is_no_less_than_the_loaded_engines(tiny: Path) -> None:
    pipe = text_generation.load(tiny, device="cpu")
    free = pipe.planned.free_bytes + pipe.engine.weights.shape.parameters * 4
    foreseen = memory.most_tokens(pipe.engine.weights.shape, torch.float32, torch.device("cpu"), free)
    assert 0 <= foreseen - pipe.planned.most_slots <= 0.05 * foreseen


def test_a_pipe_is_not_opened_for_the_look(tiny: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    assert begin(Request(dataset=str(pipe), model=str(tiny))).longest is None  # and does not wait for a writer
