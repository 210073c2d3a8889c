"""The lock notices every missing, truncated and altered file, and reads no file twice without need."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from fnmatch import fnmatch
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


def test_a_folder_in_the_place_of_the_stamps_costs_only_time(folder: Path, hashed: list[str]) -> None:
    lock.write(folder, ["model.safetensors", "config.json"])
    (folder / lock.STAMPS).unlink()
    (folder / lock.STAMPS).mkdir()
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


def test_a_folder_that_is_no_checkpoint_s_is_left_as_it_is(tmp_path: Path) -> None:
    for name in ("notes.txt", "settings.json", "readme.md"):
        (tmp_path / name).write_text("{}")
    before = sorted(tmp_path.iterdir())
    assert code_of(tmp_path) == "M206"
    (tmp_path / "config.json").write_text("{}")
    assert code_of(tmp_path) == "M206"
    (tmp_path / "config.json").unlink()
    assert sorted(tmp_path.iterdir()) == before


BESIDE = [
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tool_use.jinja",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.4.0.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "generation_config.json",
    "adapter_config.json",
    "model.safetensors.index.json",
]


@pytest.mark.parametrize("name", BESIDE)
def test_a_file_that_transformers_would_read_beside_a_lock_is_named(folder: Path, name: str) -> None:
    lock.verify(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    with pytest.raises(IntegrityError) as caught:
        lock.verify(folder)
    assert (caught.value.code, caught.value.exit_status) == ("M207", 4)
    assert name in caught.value.where
    assert "delete" in caught.value.fix
    (folder / lock.NAME).unlink()
    assert name in [file.name for file in lock.verify(folder).files]
    lock.verify(folder)


def test_files_beside_a_model_that_we_fetch_may_be_moved_or_deleted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole copy from the hub has files of slow tokenizers that our list leaves out."""
    monkeypatch.setenv("PIPELINE_MODELS", str(folder.parent))
    lock.verify(folder)
    for name in ("added_tokens.json", "tokenizer.model"):
        (folder / name).write_text("{}")
    with pytest.raises(IntegrityError) as caught:
        lock.verify(folder)
    assert f"(mv {folder}/added_tokens.json {folder}/tokenizer.model …), or delete them" in caught.value.fix
    assert "lock.json" not in caught.value.fix


def test_what_nobody_reads_may_lie_beside_a_lock(folder: Path) -> None:
    lock.verify(folder)
    for name in ("README.md", "notes.txt", "results.json", ".cache.json"):
        (folder / name).write_text("{}")
    lock.verify(folder)


LOOK = """
import os, sys
folder, seen = os.path.abspath(sys.argv[1]), set()
def note(path):
    if isinstance(path, str | bytes | os.PathLike):
        path = os.path.abspath(os.fsdecode(path))
        if path.startswith(folder + "/"):
            seen.add(path[len(folder) + 1 :])
def noting(module, name):
    original = getattr(module, name)
    def call(path=".", *arguments, **options):
        note(path)
        return original(path, *arguments, **options)
    setattr(module, name, call)
for module, name in ((os, "stat"), (os, "listdir"), (os.path, "exists"), (os.path, "isfile"), (os.path, "isdir")):
    noting(module, name)
sys.addaudithook(lambda event, arguments: note(arguments[0]) if event == "open" else None)
from transformers import AutoTokenizer, Phi3ForCausalLM, pipeline
tokenizer = AutoTokenizer.from_pretrained(folder)
pipeline("text-generation", model=Phi3ForCausalLM.from_pretrained(folder), tokenizer=tokenizer)
names = {name for kind in type(tokenizer).__mro__ for name in getattr(kind, "vocab_files_names", {}).values()}
print("\\n".join(["seen", *sorted(seen | names)]))
"""


@pytest.mark.slow
def test_whatever_the_installed_transformers_looks_for_is_among_what_is_locked(tiny: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOOK, str(tiny)], capture_output=True, text=True, check=True)
    names = done.stdout.partition("seen\n")[2].split()
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= set(names)
    folders = {"additional_chat_templates"}  # all in it is
    assert [n for n in names if n not in folders and not any(fnmatch(n, pattern) for pattern in lock.READ)] == []


def test_read_without_a_lock(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        lock.read(tmp_path)
    assert caught.value.code == "M204"
