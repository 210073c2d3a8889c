"""The hardest rows of a set come first, and they run as any file does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset import fetch, hardest, records
from pipeline.dataset.records import Record
from pipeline.files import sha256_of
from pipeline.model import lock


def row(index: int, content: str, answer: str | None = "a") -> Record:
    return Record(index, [{"role": "user", "content": content}], answer)


def test_every_kind_is_chosen_and_the_longest_prompt_comes_first() -> None:
    rows = [row(0, "q"), row(1, "q" * 90), row(2, "q\nchoices: ['a', 'b', 'c']"), row(3, "q", "b" * 50), row(4, "q")]
    assert hardest.choose(rows, each=1) == {
        1: ("longest prompt",),
        2: ("widest branching",),
        3: ("longest answer",),
    }


def test_many_turns_and_other_scripts_are_kinds_of_their_own() -> None:
    turns = [{"role": role, "content": "q"} for role in ("user", "assistant", "user")]
    rows = [row(0, "q" * 90), Record(1, turns, "a"), row(2, "한강"), row(3, "q")]
    assert hardest.choose(rows, each=1) == {0: ("longest prompt",), 2: ("least ASCII",), 1: ("most turns",)}


def test_a_row_may_be_chosen_for_several_reasons() -> None:
    assert hardest.choose([row(0, "q"), row(1, "qq", "bb")], each=1) == {1: ("longest prompt", "longest answer")}


def test_rows_that_are_all_alike() -> None:
    assert hardest.choose([row(index, "q") for index in range(5)], each=2) == dict.fromkeys((0, 1), ("as long as all",))


@given(st.lists(st.tuples(st.text(max_size=20), st.none() | st.text(max_size=20)), min_size=1, max_size=30))
def test_what_is_left_out_is_never_longer_than_what_is_in(made: list[tuple[str, str | None]]) -> None:
    rows = [row(index, content, answer) for index, (content, answer) in enumerate(made)]
    chosen = hardest.choose(rows, each=3)
    assert 1 <= len(chosen) <= 3 * len(hardest.KINDS)
    lengths = [len(rows[index].messages[0]["content"].encode()) for index in chosen]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == max(len(each.messages[0]["content"].encode()) for each in rows)
    answers = [len((each.answer or "").encode()) for each in rows]
    if len(set(answers)) > 1:
        assert max(answers[index] for index in chosen) == max(answers)


def test_the_organisers_longest_sample_is_among_the_hardest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fetch.ensure("boolq-validation")
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    prepared = hardest.prepare(str(source))
    assert list(prepared.chosen)[:2] == [3154, 55]
    every, read = records.read(source), records.read(prepared.path)
    assert [each.messages for each in read] == [every[index].messages for index in prepared.chosen]
    before = sha256_of(prepared.path)
    hardest.prepare(str(source))
    assert sha256_of(prepared.path) == before


@pytest.mark.slow
def test_on_the_command_line(
    tiny: Path, invoke: Callable, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fetch.ensure("obqa")
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    model = tmp_path / "model"
    shutil.copytree(tiny, model, ignore=shutil.ignore_patterns(lock.NAME))
    # Up to 500 tokens are asked for; random answers end soon when every eighth token ends them.
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(0, 49152, 8))}))
    done = invoke("stress", "--set", source, "--model", model)
    assert (done.returncode, done.stderr) == (0, "")
    assert "longest prompt" in done.stdout
    assert len(list(runs.iterdir())) == 1
    wrong = invoke("stress", "--set", "obqqa")
    assert wrong.returncode == 2
    assert "did you mean obqa" in wrong.stderr
