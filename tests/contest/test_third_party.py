"""What is used of others stands in THIRD_PARTY.yaml, and what stands there is used."""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from pipeline import paths, requirements_lock
from pipeline.contest.rules import evidence
from pipeline.contest.source import imports, third_party

PARTS = ("pipeline", "benchmarks", "tools", "tests", "configs", "requirements")
SOURCE = {
    path.relative_to(paths.ROOT).as_posix(): path.read_bytes()
    for top in (*(paths.ROOT / part for part in PARTS), paths.ROOT / "tasks.py", paths.ROOT / "test_script.py")
    for path in ([top] if top.is_file() else sorted(top.rglob("*")))
    if path.is_file() and "__pycache__" not in path.parts and "built" not in path.parts
}
PAPER = "2401.10774"
"""Apart from the word before it, which would make a citation of this file."""
CITED = third_party.parse((paths.ROOT / third_party.NAME).read_bytes())


SMALL = {name: text for name, text in SOURCE.items() if not name.endswith(".py") or name.startswith("pipeline/text/")}
"""Locks, texts and one room: to read the whole tree takes seconds."""


def found(**files: str) -> list[str]:
    """Of a small tree with one more file, whose name has `__` for a slash and `_py` for its ending."""
    more = {name.replace("__", "/").replace("_py", ".py"): text.encode() for name, text in files.items()}
    return [each.what for each in third_party.uncited({**SMALL, **more}, CITED)]


def test_this_tree_cites_all_that_it_uses() -> None:
    assert [str(each) for each in third_party.uncited(SOURCE, CITED)] == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import vllm", "import vllm"),
        ("def f():\n    from flash_attn.ops import x\n", "import flash_attn"),
        ("import importlib\nimportlib.import_module('xformers.ops')", "import xformers"),
        ("x = __import__('bitsandbytes')", "import bitsandbytes"),
        ("x = \uff49mportlib.\uff49mport_module('xformers.ops')", "import xformers"),
        ("try:\n    pass\nexcept OSError:\n    import vllm\nelse:\n    pass\n", "import vllm"),
        ("match 1:\n    case 1:\n        import vllm\n", "import vllm"),
        ("# SPDX-License-" + "Identifier: MIT\n", "a file with somebody's licence header"),
        ("# Copy" + "right (c) 2023, Somebody\n", "a file with somebody's licence header"),
        (f"# arXiv: {PAPER}\n", f"arXiv {PAPER}"),
        ("x = (", "a Python file that cannot be read"),
    ],
)
def test_what_is_not_cited_is_found(text: str, what: str) -> None:
    assert found(pipeline__more_py=text) == [what]


@pytest.mark.parametrize("damage", ["", "[]", '{"%s": []}', '{"%s": {"%s": 3}}', '{"%s": {"%s": [1]}}'])
def test_what_was_parsed_is_remembered_by_content_and_a_damaged_memory_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    memory, parsed = tmp_path / ".imports.json", []
    real = imports._names
    monkeypatch.setattr(imports, "_names", lambda content: parsed.append(content) or real(content))

    def found_in(content: bytes) -> list[str]:
        remembering = imports.Imports(memory)
        found = [each.what for each in third_party.uncited({**SMALL, "x.py": content}, CITED, remembering)]
        remembering.keep()
        return found

    assert found_in(b"import vllm") == ["import vllm"]
    assert b"import vllm" in parsed
    parsed.clear()
    assert found_in(b"import vllm") == ["import vllm"]
    assert parsed == []
    assert found_in(b"import theirs") == ["import theirs"]
    assert parsed == [b"import theirs"]
    (parser,) = json.loads(memory.read_text())
    key = hashlib.sha256(b"import theirs").hexdigest()
    memory.write_text(damage.replace("%s", parser, 1).replace("%s", key))
    assert found_in(b"import theirs") == ["import theirs"]


def test_a_strangers_source_is_parsed_every_time() -> None:
    assert evidence.Evidence().imports._memory is None


@pytest.mark.parametrize("text", ["import pipeline.errors", "from . import x", "import json, numpy.linalg"])
def test_what_is_ours_standard_or_cited_is_not(text: str) -> None:
    assert found(pipeline__more_py=text) == []


def test_a_locked_package_is_to_be_cited() -> None:
    more = {**SOURCE, "requirements/extra.lock": b"Vector_DB==1.0 \\\n    --hash=sha256:00\n"}
    assert [each.what for each in third_party.uncited(more, CITED)] == ["package vector-db"]


def test_a_model_and_a_data_set_are_to_be_cited() -> None:
    more = {**SOURCE, "configs/models/other.yaml": b"", "configs/datasets/secret.yaml": b""}
    assert [each.what for each in third_party.uncited(more, CITED)] == ["other", "secret"]


@pytest.mark.slow
def test_a_file_that_is_cited_may_carry_its_header_and_must_be_there() -> None:
    header = b"// Copy" + b"right (c) 2023\n"
    cited = CITED.model_copy(
        update={"code": (third_party.Copied(path="a.cu", licence="MIT", source="https://example.org"),)}
    )
    assert third_party.uncited({**SOURCE, "a.cu": header}, cited) == []
    assert [each.what for each in third_party.uncited(SOURCE, cited)] == ["a cited file that is not there"]


def test_nothing_stands_in_the_file_that_is_not_used() -> None:
    contents = [content.decode() for path, content in SOURCE.items() if path.startswith("requirements/")]
    locked = set().union(*map(requirements_lock.names, contents))
    assert [each.name for each in CITED.packages if canonicalize_name(each.name) not in locked] == []
    assert [each.where for each in CITED.ideas if each.where not in SOURCE] == []
    for folder, works in (("models", CITED.models), ("datasets", CITED.data)):
        names = [Path(path).stem for path in SOURCE if path.startswith(f"configs/{folder}/")]
        for pattern in (pattern for work in works for pattern in work.configs):
            assert any(fnmatch(name, pattern) for name in names), pattern


@pytest.mark.parametrize("content", [b"", b"packages: []", b"[", b"code: []\nideas: []\nmodels: []\ndata: []\nx: 1"])
def test_another_file_is_not_taken_for_one(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of pydantic or yaml, in their words
        third_party.parse(content)
