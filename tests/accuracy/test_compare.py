"""Two runs, row by row: the table, the first token that differs, the verdict in words, and why they may differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import write_rows

from pipeline.accuracy import compare_text as comparison
from pipeline.accuracy.compare import Comparison, compare, judge
from pipeline.errors import AccuracyError, IntegrityError, UsageError
from pipeline.files import sha256_of
from pipeline.record import run_folder

MAKE = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Rows whose answer is always "one"."""
    return write_rows(tmp_path / "rows.jsonl", 8)


@pytest.fixture
def make(runs: Path, file: Path) -> MAKE:
    """Writes a run's folder as a run does."""

    def made(name: str, texts: dict[int, str], **manifest: Any) -> Path:
        (runs / name).mkdir(parents=True)
        with run_folder.RunFolder(runs / name) as folder:
            folder.begin({"dataset": {"name": str(file), "sha256": sha256_of(file), "rows": 8}, **manifest})
            for index, text in texts.items():
                folder.append(index, [{"generated_text": text}], [ord(letter) for letter in text] + [2])
            folder.finish({})
        return runs / name

    return made


TEXTS_A = {0: "one", 1: " one", 2: "one", 3: "two", 4: "two", 5: "one"}
ALL = dict.fromkeys(range(8), "one")
TEXTS_B = {0: "one", 1: "one", 2: "once", 3: "one", 4: "twofold", 6: "one"}


def test_the_table(make: MAKE) -> None:
    make("a", TEXTS_A)
    make("b", TEXTS_B)
    made = compare("a", "b")
    assert (made.both, made.only_a, made.only_b, made.neither) == (2, 1, 1, 1)
    assert (made.rows, made.scored, made.byte_equal, made.unpaired) == (5, 5, 1, (1, 1))
    assert (made.difference, made.p, made.verdict) == (0.0, 1.0, "cannot tell")
    assert [each.index for each in made.differing] == [1, 2, 3, 4]


def test_the_first_token_that_differs(make: MAKE) -> None:
    make("a", TEXTS_A)
    make("b", TEXTS_B)
    by_index = {each.index: each for each in compare("a", "b").differing}
    assert (by_index[2].position, by_index[2].tokens) == (2, (ord("e"), ord("c")))
    assert (by_index[4].position, by_index[4].tokens) == (3, (2, ord("f")))
    assert by_index[2].right == (True, False)


def test_an_answer_cut_off_ends_where_the_other_goes_on(make: MAKE, runs: Path) -> None:
    make("a", ALL)
    make("b", ALL)
    outputs = runs / "b" / "outputs.jsonl"
    outputs.write_text(outputs.read_text().replace(", 2]", "]", 1))
    (each,) = compare("a", "b").differing
    assert (each.position, each.tokens, each.texts) == (3, (2, None), ("one", "one"))
    made = compare("a", "b")
    assert (made.byte_equal, made.verdict) == (8, "kept")
    assert "2 → end" in comparison.text(made)


def test_a_run_against_itself(make: MAKE) -> None:
    make("a", ALL)
    made = compare("a", "a")
    assert (made.differing, made.manifests, made.verdict) == ((), (), "kept")
    shown = comparison.text(made)
    assert "byte for byte" in shown
    assert "all the same" in shown


def test_why_two_runs_may_differ(make: MAKE) -> None:
    environment = {"packages": {"torch": "2.4.1"}, "machine": "x"}
    make("a", TEXTS_A, dtype="float32", environment=environment, peak_memory={"host_bytes": 1})
    newer = {**environment, "packages": {"torch": "2.11.0"}}
    make("b", TEXTS_A, dtype="bfloat16", environment=newer, peak_memory={"host_bytes": 2})
    made = compare("a", "b")
    assert made.manifests == (
        ("dtype", "float32", "bfloat16"),
        ("environment.packages.torch", "2.4.1", "2.11.0"),
    )
    assert "environment.packages.torch: '2.4.1' → '2.11.0'" in comparison.text(made)


def test_many_rows_that_differ_are_cut_on_the_terminal_and_whole_in_json(make: MAKE, file: Path) -> None:
    write_rows(file, 50)
    make("a", dict.fromkeys(range(50), "one"))
    make("b", dict.fromkeys(range(50), "two\n\x1b[31m"))
    made = compare("a", "b")
    shown = comparison.text(made)
    assert "… and 30 more" in shown
    assert "\x1b" not in shown
    assert len(json.loads(json.dumps(comparison.as_json(made)))["differing"]) == 50


# The rule


@pytest.mark.parametrize(
    ("only_a", "only_b", "scored", "verdict"),
    [
        (0, 0, 0, "not scored"),
        (0, 0, 500, "cannot tell"),
        (0, 0, 1000, "kept"),
        (5, 5, 5000, "kept"),
        (4, 0, 500, "cannot tell"),
        (60, 10, 1000, "broken"),
        (10, 60, 1000, "kept"),
        (1, 0, 30, "cannot tell"),
    ],
)
def test_the_verdict(only_a: int, only_b: int, scored: int, verdict: str) -> None:
    found, words = judge(only_a, only_b, scored, all_equal=False)
    assert found == verdict
    assert words.lower().startswith({"not scored": "no row"}.get(verdict, verdict))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 5000))
def test_a_verdict_is_never_against_what_was_measured(only_a: int, only_b: int, same: int) -> None:
    scored = only_a + only_b + same
    verdict, _ = judge(only_a, only_b, scored, all_equal=False)
    drop = (only_a - only_b) / scored if scored else 0
    assert not (verdict == "kept" and drop > 0.005)
    assert not (verdict == "broken" and drop <= 0.005)


def test_a_broken_rule_has_an_exit_status_of_its_own(make: MAKE) -> None:
    make("a", TEXTS_A)
    made: Comparison = replace(compare("a", "a"), verdict="broken", words="Broken: …")
    with pytest.raises(AccuracyError) as caught:
        comparison.check_kept(made)
    assert (caught.value.code, caught.value.exit_status) == ("A101", 7)


INVARIANT = {"engine": {"invariant": {"holds": True, "why": "tried", "bits": "1" * 64}}, "dtype": "bfloat16"}


def test_runs_that_promise_equal_bytes_are_held_to_it(make: MAKE) -> None:
    make("a", TEXTS_A, **INVARIANT)
    make("same", TEXTS_A, **INVARIANT)
    make("other", {**TEXTS_A, 3: "twofold"}, **INVARIANT)
    comparison.check_kept(compare("a", "same"))
    differing = compare("a", "other")
    assert "equal bytes are required" in comparison.text(differing)
    with pytest.raises(AccuracyError) as caught:
        comparison.check_kept(differing)
    assert (caught.value.code, caught.value.exit_status) == ("A102", 7)
    assert caught.value.where.endswith("rows 3")


def test_runs_that_do_not_promise_it_are_not_and_the_reason_is_told(make: MAKE) -> None:
    make("a", TEXTS_A, **INVARIANT)
    make("other", {**TEXTS_A, 3: "twofold"}, dtype="bfloat16")
    differing = compare("a", "other")
    comparison.check_kept(differing)
    assert "equal bytes are not required: the second run does not promise" in comparison.text(differing)


# What cannot be compared


def test_different_data(make: MAKE) -> None:
    make("a", TEXTS_A)
    make("b", TEXTS_B, dataset={"name": "other", "sha256": "0" * 64})
    with pytest.raises(UsageError) as caught:
        compare("a", "b")
    assert caught.value.code == "U332"


def test_no_row_in_common(make: MAKE) -> None:
    make("a", {0: "one"})
    make("b", {1: "one"})
    with pytest.raises(UsageError) as caught:
        compare("a", "b")
    assert caught.value.code == "U333"


@pytest.mark.parametrize("damage", ["manifest", "outputs", "dataset", "list"])
def test_a_folder_that_holds_no_run(make: MAKE, runs: Path, damage: str) -> None:
    make("a", TEXTS_A)
    if damage in ("manifest", "outputs"):
        next((runs / "a").glob(f"{damage}.*")).unlink()
    else:
        (runs / "a" / "manifest.json").write_text("[]" if damage == "list" else '{"dataset": {}}')
    with pytest.raises(UsageError) as caught:
        compare("a", "a")
    assert caught.value.code == "U331"


def test_data_that_has_changed_since(make: MAKE, file: Path) -> None:
    make("a", TEXTS_A)
    write_rows(file, 9)
    with pytest.raises(IntegrityError) as caught:
        compare("a", "a")
    assert caught.value.code == "M141"


def test_a_name_with_a_typo(make: MAKE) -> None:
    make("first", TEXTS_A)
    with pytest.raises(UsageError) as caught:
        compare("firts", "first")
    assert caught.value.code == "U311"
    assert "first" in caught.value.what


@pytest.mark.slow
def test_on_the_command_line(make: MAKE, invoke: Callable) -> None:
    make("a", TEXTS_A)
    make("b", TEXTS_B)
    done = invoke("compare", "a", "b")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Cannot tell at this size" in done.stdout
    told = json.loads(invoke("compare", "a", "b", "--json").stdout)
    assert (told["only_a"], told["verdict"], len(told["differing"])) == (1, "cannot tell", 4)
