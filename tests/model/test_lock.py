"""The lock notices every missing, truncated and altered file, and reads no file twice without need."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError
from pipeline.model import lock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights" * 1000)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be hashed."""
    names: list[str] = []
    original = lock.sha256_of
    monkeypatch.setattr(lock, "sha256_of", lambda path: (names.append(path.name), original(path))[1])
    return names


def code_of(folder: Path, **arguments: object) -> str:
    with pytest.raises(IntegrityError) as caught:
        lock.verify(folder, **arguments)
    return caught.value.code


def test_root_is_the_hash_of_what_sha256sum_prints(folder: Path) -> None:
    made = lock.write(folder, ["model.safetensors", "config.json"])
    lines = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("config.json", "model.safetensors")
    )
    assert made.root == hashlib.sha256(lines.encode()).hexdigest()
    assert json.loads((folder / "lock.json").read_text())["root"] == made.root
    assert lock.read(folder) == lock.verify(folder) == made


def test_unchanged_files_are_not_read_again(folder: Path, hashed: list[str]) -> None:
    lock.write(folder, ["model.safetensors", "config.json"])
    hashed.clear()
    lock.verify(folder)
    assert hashed == []
    lock.verify(folder, full=True)
    assert sorted(hashed) == ["config.json", "model.safetensors"]


def test_a_new_stamp_is_read_again(folder: Path, hashed: list[str]) -> None:
    lock.write(folder, ["model.safetensors", "config.json"])
    hashed.clear()
    os.utime(folder / "config.json", ns=(1, 1))
    lock.verify(folder)
    assert hashed == ["config.json"]


def test_missing(folder: Path) -> None:
    lock.write(folder, ["model.safetensors", "config.json"])
    (folder / "config.json").unlink()
    assert code_of(folder) == "M201"


def test_truncated(folder: Path, hashed: list[str]) -> None:
    lock.write(folder, ["model.safetensors", "config.json"])
    hashed.clear()
    os.truncate(folder / "model.safetensors", 6999)
    with pytest.raises(IntegrityError, match="truncated") as caught:
        lock.verify(folder)
    assert (caught.value.code, caught.value.expected, caught.value.actual) == ("M202", "7000 bytes", "6999 bytes")
    assert hashed == []


def test_altered_with_its_old_time_set_back(folder: Path) -> None:
    made = lock.write(folder, ["model.safetensors", "config.json"])
    path = folder / "model.safetensors"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(3500)
        file.write(b"W")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(IntegrityError) as caught:
        lock.verify(folder)
    assert caught.value.code == "M203"
    assert caught.value.expected == made.files[1].sha256
    assert caught.value.actual == hashlib.sha256(path.read_bytes()).hexdigest()


def test_fix_names_the_command_for_our_own_models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_MODELS", str(folder.parent))
    assert lock.fix(folder) == f"invoke setup --model {folder.name}"
    monkeypatch.setenv("PIPELINE_MODELS", str(folder))
    assert "copy the checkpoint anew" in lock.fix(folder)


@pytest.mark.parametrize("change", ["not json", "[]", "schema", "root", "sha256"])
def test_a_lock_that_cannot_be_read(folder: Path, change: str) -> None:
    lock.write(folder, ["model.safetensors", "config.json"])
    path = folder / "lock.json"
    value = json.loads(path.read_text())
    if change == "sha256":
        value["files"]["config.json"]["sha256"] = "0" * 64
    elif change in value:
        value[change] = "other"
    path.write_text(json.dumps(value) if change in {"sha256", "schema", "root"} else change)
    assert code_of(folder) == "M205"


def test_a_damaged_stamp_file_costs_only_time(folder: Path, hashed: list[str]) -> None:
    lock.write(folder, ["model.safetensors", "config.json"])
    (folder / lock.STAMPS).write_text('{"config.json": 3}')
    hashed.clear()
    lock.verify(folder)
    assert len(hashed) == 2


def test_a_folder_without_a_lock_gets_one_and_is_told(folder: Path) -> None:
    (folder / "notes.md").write_text("not of the model")
    said: list[str] = []
    made = lock.verify(folder, say=said.append)
    assert [file.name for file in made.files] == ["config.json", "model.safetensors"]
    assert "had no lock" in said[0]
    assert made.root in said[0]
    assert lock.verify(folder, say=said.append) == made
    assert len(said) == 1


def test_a_read_only_folder_without_a_lock_is_hashed_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, value: object) -> None:
        raise lock.ResourceError("R102", "a file cannot be written", fix="")

    monkeypatch.setattr(lock, "write_json", refuse)
    said: list[str] = []
    made = lock.verify(folder, say=said.append)
    assert "cannot be written to" in said[0]
    assert len(made.files) == 2
    assert not (folder / "lock.json").exists()


def test_nothing_to_lock(tmp_path: Path) -> None:
    assert code_of(tmp_path) == "M206"
    assert code_of(tmp_path / "absent") == "M206"


def test_read_without_a_lock(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        lock.read(tmp_path)
    assert caught.value.code == "M204"
