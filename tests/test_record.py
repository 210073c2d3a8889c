"""The run folder: whole lines whatever happens, a manifest that says why, errors of ours when it cannot be written."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from loguru import logger

from pipeline import paths, record
from pipeline.errors import ResourceError
from pipeline.record import RunFolder

OUTPUT = [{"generated_text": "Да\n\u2028"}]


def test_rows_read_back_by_index(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "x") as folder:
        for index in (2, 0, 1):
            folder.append(index, OUTPUT, [index])
    assert record.read_outputs(folder.path) == [
        {"index": index, "output": OUTPUT, "token_ids": [index]} for index in range(3)
    ]


def test_a_row_is_on_its_way_to_the_disk_at_once(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "x") as folder:
        folder.append(0, OUTPUT, [1])
        assert (folder.path / "outputs.jsonl").read_bytes().endswith(b"\n")


def test_a_folder_is_named_by_its_time_and_what_ran(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "not" / "there", "obqa-standin-ours") as folder:
        assert re.fullmatch(r"\d{8}T\d{6}-obqa-standin-ours", folder.path.name)


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = []
    for _ in range(5):
        with RunFolder(tmp_path, "x") as folder:
            folders.append(folder.path)
    assert len(set(folders)) == 5


def test_the_log_is_the_runs_own(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "x") as folder:
        logger.info("during {}", 1)
    logger.info("after")
    assert "during 1" in (folder.path / "run.log").read_text()
    assert "after" not in (folder.path / "run.log").read_text()


@pytest.mark.parametrize("error", [ValueError("why not"), KeyboardInterrupt(), MemoryError()])
def test_a_failure_leaves_the_finished_rows_and_says_why(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with RunFolder(tmp_path, "x") as folder:
            folder.append(0, OUTPUT, [1])
            raise error

    with pytest.raises(type(error)):
        fail()
    path = next(tmp_path.iterdir())
    failed = json.loads((path / "manifest.json").read_text())
    assert failed["schema"] == record.SCHEMA
    assert failed["failed"] == {"kind": type(error).__name__, "reason": str(error) or type(error).__name__}
    assert len(record.read_outputs(path)) == 1
    assert "ended early" in (path / "run.log").read_text()


def test_without_a_failure_the_manifest_is_what_was_given(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "x") as folder:
        folder.write_manifest({"a": "é"})
    assert json.loads((folder.path / "manifest.json").read_text()) == {"schema": record.SCHEMA, "a": "é"}


class NearlyFull(io.FileIO):
    """A file on a disk with so many bytes left. What does not fit is cut off, then refused, as Linux does it."""

    left_bytes = 200

    def write(self, data: bytes) -> int:
        part = bytes(data[: self.left_bytes])
        if not part:
            raise OSError(28, "No space left on device")
        NearlyFull.left_bytes -= len(part)
        return super().write(part)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NearlyFull, "left_bytes", 200)

    def nearly_full(self: RunFolder, name: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BufferedWriter(NearlyFull(self.path / name, "w")), encoding="utf-8")

    def fill() -> None:
        with RunFolder(tmp_path, "x") as folder:
            for index in range(100):
                folder.append(index, OUTPUT, [1])

    monkeypatch.setattr(RunFolder, "_open", nearly_full)
    with pytest.raises(ResourceError) as caught:
        fill()
    assert caught.value.code == "R101"
    assert [row["index"] for row in record.read_outputs(next(tmp_path.iterdir()))] == [0, 1]


def test_a_log_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    open_as_usual = RunFolder._open

    def full(self: RunFolder, name: str) -> object:
        return open_as_usual(self, name) if name != "run.log" else open("/dev/full", "w", encoding="utf-8")

    monkeypatch.setattr(RunFolder, "_open", full)
    with RunFolder(tmp_path, "x") as folder:
        logger.info("lost")
        folder.append(0, OUTPUT, [1])
    assert len(record.read_outputs(folder.path)) == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("parent", ["file", "file/below"])
def test_a_parent_that_is_a_file(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError) as caught:
        RunFolder(tmp_path / parent, "x")
    assert caught.value.exit_status == 5
    assert "file" in caught.value.where


def test_a_parent_without_permission(tmp_path: Path, as_nobody: Callable[..., str]) -> None:
    tmp_path.chmod(0o555)
    said = as_nobody(
        "from pathlib import Path; from pipeline.record import RunFolder; from pipeline.errors import ResourceError",
        "try: RunFolder(Path('runs'), 'x')\nexcept ResourceError as error: print(error)",
    )
    assert said.startswith("R102 ")
    assert "Permission denied" in said
    assert "PIPELINE_RUNS" in said


def test_the_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.commit() == {"commit": None, "dirty": None}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.commit() == {"commit": None, "dirty": None}


def test_the_environment_names_no_person_and_no_host() -> None:
    import getpass
    import platform

    told = json.dumps(record.environment())
    assert json.loads(told)["packages"]["torch"]
    assert platform.node() not in told
    assert f'"{getpass.getuser()}"' not in told
