"""What of a stranger's source is too large or too deep is said, and not parsed."""

from __future__ import annotations

import pytest

from pipeline import paths
from pipeline.contest.source import bounds, third_party
from pipeline.contest.source.secrets import tokens_in

EMPTY = third_party.ThirdParty(code=(), ideas=(), models=(), data=(), packages=())


@pytest.mark.parametrize("kind", bounds.MOST_BYTES)
def test_a_byte_too_many_is_refused(kind: str) -> None:
    bounds.check(kind, b" " * bounds.MOST_BYTES[kind])
    with pytest.raises(ValueError, match="more than"):
        bounds.check(kind, b" " * (bounds.MOST_BYTES[kind] + 1))


@pytest.mark.parametrize("one", [b"[", b"{", b"- ", b"? ", b"-\t"])
def test_what_is_nested_too_deeply_is_refused(one: bytes) -> None:
    bounds.check("YAML", one * 30)
    with pytest.raises(ValueError, match="deep"):
        bounds.check("YAML", one * 70)


def test_our_own_files_are_far_within_the_bounds() -> None:
    ours = paths.ROOT / "THIRD_PARTY.yaml"
    assert third_party.parse(ours.read_bytes()).packages
    assert len(ours.read_bytes()) * 8 < bounds.MOST_BYTES["YAML"]
    assert all(len(path.read_bytes()) * 8 < 1 << 20 for path in (paths.ROOT / "pipeline").rglob("*.py"))


def test_a_file_beyond_the_bounds_is_named_in_place_of_what_it_imports() -> None:
    source = {"x.py": b"import theirs\n" + b"#" * (1 << 20), "requirements/x.lock": b"theirs==1\n" * 300_000}
    assert {each.where for each in third_party.uncited(source, EMPTY)} == set(source)
    assert all("read" in each.what for each in third_party.uncited(source, EMPTY))


def test_a_web_token_is_found_wherever_it_begins_a_word() -> None:
    token = "eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + ".c"
    for before in ("", " ", '"', "=", "\n", "Bearer "):
        assert tokens_in((before + token).encode()) == 1
    assert tokens_in(b"eyJ" + b"a" * 100) == 0


@pytest.mark.parametrize("before", ["", "é-", "a task-force; ", "ask-"])
def test_a_key_is_found_behind_words_that_end_like_one(before: str) -> None:
    key = "sk-" + "a" * 24
    assert tokens_in(f"{before} {key}".encode()) == 1
    assert tokens_in(f"{before}x{key}".encode()) == 0
