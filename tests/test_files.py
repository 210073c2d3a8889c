"""JSON files are written whole or not at all, and read back as what was written, whatever a file is called."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import ResourceError


def test_json_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    value = {"team": "삼성", "path": os.fsdecode(b"set-\xff.jsonl"), "rows": [1, 2.5, None, True]}
    path = tmp_path / "new" / "value.json"
    files.write_json(path, value)
    content = path.read_text(encoding="utf-8")
    assert json.loads(content) == value
    assert "삼성" in content
    assert content.startswith('{\n  "team"')
    assert content.endswith("}\n")
    assert files.json_bytes(value) == content.encode()


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["value.json"]


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError) as caught:
        files.write_json(tmp_path / "file" / "value.json", {})
    assert caught.value.code == "R102"


def test_an_error_never_names_the_part_that_nobody_knows(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 240), tmp_path / "folder"):  # a name too long for its part, and a folder's
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises((OSError, ResourceError)) as caught, files.write_atomically(path) as file:
            file.write(b"x")
        error = caught.value
        shown = str(error) if isinstance(error, ResourceError) else str(files.refused(error))
        assert str(path) in shown
        assert ".part" not in shown


def test_a_pipe_is_written_into_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "page.html"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write_json(pipe, {"a": 1})
    assert json.loads(os.read(reader, 100)) == {"a": 1}
    os.close(reader)
    assert pipe.is_fifo()
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def test_a_device_without_room_stays_a_device(tmp_path: Path) -> None:
    before = os.stat("/dev/full").st_rdev
    with pytest.raises(ResourceError) as caught:
        files.write_json(Path("/dev/full"), {})
    assert caught.value.code == "R101"
    assert os.stat("/dev/full").st_rdev == before


def test_what_only_saves_time_may_have_a_folder_in_its_place(tmp_path: Path) -> None:
    files.remember(tmp_path, {"a": 1})
    assert files.remembered(tmp_path) == {}
