"""`invoke verify` as an organiser calls it: verdicts, exit statuses, files, and never a traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import page_checks
from support.audited import ROWS, Ground, in_state, verified
from support.drafts_of_submissions import Draft
from support.in_place import in_place
from support.rows import write_rows

from pipeline import check as checks
from pipeline.accuracy import stats
from pipeline.check import UNKNOWN
from pipeline.contest.checks import answer_checks, by_id
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.ranking import leaderboard
from pipeline.contest.ranking import page as board_page
from pipeline.contest.ranking import verdict_files as verdicts
from pipeline.contest.verify import verify
from pipeline.contest.verify.verify import CANNOT_TELL, INVALID, VALID, Verdict
from pipeline.errors import IntegrityError, PipelineError, UsageError
from pipeline.model import lock

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread")]

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def draft(ground: Ground) -> Draft:
    return Draft.of(ground.light)


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "verdict.json").read_text(encoding="utf-8"))


# As it is called


def test_the_good_one_ends_with_zero_and_its_verdict_lies_beside_it(
    ground: Ground, invoke: Invoke, tmp_path: Path
) -> None:
    tar = tmp_path / ground.tar.name
    tar.write_bytes(ground.tar.read_bytes())
    known = ("--data", ground.data, "--model", ground.model, "--reference", ground.reference)
    done = invoke("verify", tar, *known)
    # Its commit is that of a clone: whether this checkout has it is for people.
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nVALID\n" in done.stdout
    found = told(tmp_path / f"{tar.stem}.verdict")
    assert (found["schema"], found["verdict"], found["class"], found["submission"]) == (1, VALID, None, tar.stem)
    assert found["team"] == {"name": "Blue", "members": ["Kim", "Lee"]}
    assert (found["prompts"], found["rehearsal"], found["reasons"], found["rerun"]) == (ROWS, False, [], None)
    assert found["s_per_prompt"] == found["time_s"] / ROWS
    low, high = found["accuracy"].pop("interval_95")
    assert found["accuracy"] == {"right": ROWS - 1, "of": ROWS, "rule": "exact", "share": (ROWS - 1) / ROWS}
    assert 0 < low < (ROWS - 1) / ROWS < high < 1
    assert found["device"] == "p3701-0004"
    assert {path.name for path in tmp_path.iterdir()} == {tar.name, f"{tar.stem}.verdict"}


STATUSES: dict[str, tuple[Callable[[Draft], object], int, str]] = {
    "integrity": (lambda d: d.manifest["weights"]["files"].update({"model.safetensors": "0" * 64}), 4, "M721"),
    "form": (lambda d: d.files.pop("method.pdf"), 6, "F421"),
    "accuracy": (lambda d: d.manifest["score"].update(correct=ROWS), 7, "A421"),
    "invalid run": (lambda d: d.manifest.update(elapsed_s=1e-9), 8, "I421"),
    "cannot tell": (lambda d: d.submission.update(schema=99), 9, "C101"),
}


@pytest.mark.parametrize("kind", STATUSES)
def test_the_exit_status_is_that_of_the_reasons_class(kind: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    lie, status, code = STATUSES[kind]
    changed = draft.copy()
    lie(changed)
    changed.make_papers()
    verdict = verified(changed.pack(tmp_path), ground)
    assert verdict.as_json()["class"] == (None if kind == "cannot tell" else kind)
    with pytest.raises(PipelineError) as caught:
        verify.conclude(verdict, tmp_path)
    assert (caught.value.exit_status, caught.value.code) == (status, code)
    assert verdict.reasons[0] in caught.value.actual


def test_an_organiser_who_has_nothing_cannot_tell(ground: Ground, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("verify", ground.light, "--out", tmp_path / "out", "--json")
    assert done.returncode == 9
    assert "C101" in done.stderr
    assert "Traceback" not in done.stderr
    printed = json.loads(done.stdout)
    assert printed == told(tmp_path / "out")
    unknown = {each["id"] for each in printed["checks"] if each["state"] == "unknown"}
    assert {"dataset", "rows", "tokens", "score", "accuracy", "model", "weights", "floor", "resident"} <= unknown
    assert not any(each["state"] == "fail" for each in printed["checks"])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nowhere.tar",), "U601"),
        (("README.md",), "U602"),
        (("README.md", "--rerun-here", "--times", "0"), "U612"),
    ],
)
@pytest.mark.slow
def test_what_the_organiser_gets_wrong_is_no_verdict(
    arguments: tuple[str, ...], code: str, invoke: Invoke, tmp_path: Path
) -> None:
    done = invoke("verify", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert code in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ({"data": Path("nowhere.jsonl")}, "U111"),
        ({"reference": Path("nowhere")}, "U311"),
        ({"model": "nowhere"}, "U611"),
    ],
)
def test_what_the_organiser_names_is_looked_for_first(named: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        Organiser(**named)
    assert caught.value.code == code


@pytest.mark.slow
def test_a_file_that_is_something_else_is_invalid(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("words")
    out = tmp_path / "out"
    done = invoke("verify", tmp_path / "x.tar", "--out", out)
    assert done.returncode == 6
    assert told(out)["verdict"] == INVALID
    assert told(out)["time_s"] is None


def test_an_organisers_own_model_that_was_changed_is_said(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "standin"
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        (folder / name).write_bytes((ground.model / name).read_bytes())
    lock.write(folder, ["config.json"])
    monkeypatch.setenv("PIPELINE_MODELS", str(tmp_path))
    with pytest.raises(IntegrityError) as caught:
        Organiser(model="standin")
    assert caught.value.code == "M711"


def test_a_name_in_a_submission_opens_no_folder_of_the_organiser(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    """Only a name under configs/models is looked up; a path would be a stranger's wish to read this disk."""
    assert Organiser().model(str(ground.model)) is None
    with pytest.raises(UsageError):
        Organiser(model=str(tmp_path / "nowhere"))


# What it writes


def test_the_page_needs_nothing_else_and_runs_nothing_of_a_stranger(
    draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    changed = draft.copy()
    changed.submission["team"]["name"] = evil
    changed.manifest["arguments"]["max_new_tokens"] = evil
    verdict = verified(changed.pack(tmp_path), ground)
    page = (tmp_path / "verdict" / "verdict.html").read_text(encoding="utf-8")
    assert not {"img", "iframe"} & set(page_checks.check(page).tags)
    assert evil not in page
    assert evil in unescape(page)
    for each in verdict.checks:
        assert each.id in page
    assert "INVALID" in page


def test_the_leaderboard_reads_what_was_written(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    for number, change in enumerate((lambda d: None, lambda d: d.manifest.update(state="failed"))):
        changed = draft.copy()
        change(changed)
        tar = changed.pack(tmp_path / str(number))
        verify.verify(tar, ground.light_organiser, out=tmp_path / "all" / f"{number}.verdict")
    read, unread = verdicts.read_all(tmp_path / "all")
    assert unread == []
    assert [each.verdict for each in read] == [VALID, INVALID]
    assert read[0].missing == []


def test_a_later_verification_takes_the_place_of_an_earlier(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for state, want in (("failed", INVALID), ("finished", VALID)):
        changed = draft.copy()
        changed.manifest["state"] = state
        verify.verify(changed.pack(tmp_path), ground.light_organiser, out=out)
        assert told(out)["verdict"] == want
    assert {path.name for path in out.iterdir()} == {"verdict.json", "verdict.html"}


def test_a_check_that_fails_itself_makes_nothing_valid_and_is_seen(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[checks.CheckResult]:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setitem(by_id.CHECKS, "board", broken)
    verdict = verify.verify(ground.light, ground.light_organiser, out=tmp_path)
    assert (verdict.state, in_state(verdict, UNKNOWN)) == (CANNOT_TELL, {"board"})
    assert "a mistake of ours" in verdict.reasons[0]
    assert "Traceback" in (tmp_path / "verify.log").read_text()


def test_trouble_with_the_organisers_own_files_is_no_fault_of_the_team(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> object:
        raise IntegrityError("M999", "a file is damaged", actual="bits", fix="mend it")

    monkeypatch.setitem(by_id.CHECKS, "score", damaged)
    verdict = verify.verify(ground.light, ground.light_organiser, out=tmp_path)
    assert (verdict.state, in_state(verdict, UNKNOWN), verdict.trouble) == (CANNOT_TELL, {"score"}, "")
    assert "M999" in verdict.reasons[0]


def test_a_reference_of_other_data_tells_nothing(ground: Ground, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other.jsonl", 2)
    organiser = Organiser(other, ground.reference, str(ground.model), ground.clone.path)
    verdict = verify.verify(ground.light, organiser, out=tmp_path / "out")
    assert {"accuracy", "reference"} <= in_state(verdict, UNKNOWN)


def test_a_reference_of_some_rows_says_so_in_the_same_words_everywhere(ground: Ground, tmp_path: Path) -> None:
    reference = Path(shutil.copytree(ground.reference, tmp_path / "reference"))
    lines = (reference / "outputs.jsonl").read_text().splitlines(keepends=True)
    (reference / "outputs.jsonl").write_text("".join(lines[:3]))
    out = tmp_path / "all" / "blue"
    organiser = Organiser(ground.data, reference, str(ground.model), ground.clone.path)
    verdict = verify.verify(ground.light, organiser, out=out)
    less = stats.coverage(3, ROWS)
    found = {each.id: each.found for each in verdict.checks if each.state == UNKNOWN}
    assert found["accuracy"].startswith(less)
    assert found["reference"].startswith(less)
    page = (out / "verdict.html").read_text(encoding="utf-8")
    board = board_page.text(leaderboard.make(tmp_path / "all"))
    for shown in (verify.text(verdict, out), page):
        assert less.strip() in " ".join(unescape(shown).split())
        assert "Kept" not in shown
    assert "Only 3 of 6 rows were compared" in " ".join(board.split())
    assert "Kept" not in board


def test_a_rule_that_is_met_on_all_rows_says_first_what_was_measured_on_them() -> None:
    seen = {"rows": 30, "rows_of_data": 30, "difference": 1 / 30, "verdict": "cannot tell", "words": "Cannot tell …"}
    found = answer_checks.CHECKS["accuracy"](SimpleNamespace(compared=SimpleNamespace(**seen)))
    assert (found.state, found.found) == ("ok", "on all 30 rows, which the rule is about: a gain of 3.33%")


def test_words_of_strangers_are_made_safe_to_print() -> None:
    assert checks.plain("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb\\nc\\u202e"
    assert len(checks.plain("x" * 10_000)) == checks.LONGEST
    assert checks.listed(range(20), 3) == "0, 1, 2 and 17 more"


# Whatever comes


def ends_in_a_verdict(tar: Path, ground: Ground) -> Verdict:
    with in_place():
        verdict = verified(tar, ground)
    assert verdict.state in {VALID, INVALID, CANNOT_TELL}
    assert told(tar.parent / "verdict")["verdict"] == verdict.state
    verify.text(verdict, tar.parent)
    return verdict


@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
@settings(max_examples=40)
def test_a_damaged_file_is_never_valid_and_never_a_traceback(
    ground: Ground, tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[float, int]], cut: float | None
) -> None:
    content = bytearray(ground.light.read_bytes())
    before = bytes(content)
    for where, bits in flips:
        content[int(where * len(content))] ^= bits
    tar = tmp_path_factory.mktemp("flipped") / "sent.tar"
    tar.write_bytes(bytes(content if cut is None else content[: int(cut * len(content))]))
    verdict = ends_in_a_verdict(tar, ground)
    # Of the zeros behind its end an archive may have more or fewer.
    assert verdict.state == INVALID or tar.read_bytes().rstrip(b"\0") == before.rstrip(b"\0")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.just("9" * 300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


EDITS = {
    "notes that are a number": (("verdict", "notes"), 1),
    "reasons that are a text": (("verdict", "reasons"), "none"),
    "an engine's numbers of another kind": (("engine", "stats", "failed_allocations"), {}),
    "a history": (("resumed",), [[]]),
}
"""Found by looking for new examples (--hypothesis-profile=explore), or like those."""


@pytest.mark.parametrize("case", EDITS)
def test_claims_of_another_kind_end_in_a_verdict(case: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    changed, (path, value) = draft.copy(), EDITS[case]
    inner = changed.manifest
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    ends_in_a_verdict(changed.pack(tmp_path), ground)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything in a JSON value that can be replaced."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, part in inner for each in [(*path, key), *places(part, (*path, key))]]


@given(data=st.data())
@settings(max_examples=100)
@pytest.mark.slow
def test_edited_claims_end_in_a_verdict(
    draft: Draft, ground: Ground, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = draft.copy()
    whole = {"manifest": changed.manifest, "submission": changed.submission, "rows": changed.rows[:1]}
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(whole)))
        inner: Any = whole
        try:
            for key in path[:-1]:
                inner = inner[key]
            if data.draw(st.booleans()):
                inner[path[-1]] = data.draw(VALUES)
            else:
                del inner[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an edit before this one took it away
    changed.manifest, changed.submission = (
        whole.get(name) if isinstance(whole.get(name), dict) else {} for name in ("manifest", "submission")
    )
    rows = whole.get("rows")
    changed.rows = [*(rows if isinstance(rows, list) else [rows]), *changed.rows[1:]]
    changed.submission.setdefault("files", {})
    try:
        tar = changed.pack(tmp_path_factory.mktemp("edited"))
    except UnicodeEncodeError:
        return  # half a character, which cannot be written
    ends_in_a_verdict(tar, ground)


@given(text=st.text(st.characters(codec="utf-8"), max_size=60), at=st.floats(0, 1, exclude_max=True))
@settings(max_examples=40)
@pytest.mark.slow
def test_edited_telemetry_and_source_end_in_a_verdict(
    draft: Draft, ground: Ground, tmp_path_factory: pytest.TempPathFactory, text: str, at: float
) -> None:
    changed = draft.copy()
    contents = changed.contents()
    for name in ("run/telemetry.csv", "run/run.log", "source.tar"):
        content = contents[name]
        where = int(at * len(content))
        changed.files[name] = contents[name] = content[:where] + text.encode() + content[where + 7 :]
    raw = {name: contents[name] for name in ("run/telemetry.csv", "run/run.log", "source.tar")}
    ends_in_a_verdict(changed.pack(tmp_path_factory.mktemp("edited"), **raw), ground)


def test_without_a_verdict_there_is_no_folder_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blue.tar").write_bytes(b"\0" * 1024)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt("stopped (SIGTERM)")

    monkeypatch.setattr("pipeline.contest.archive.unpack.unpack", stopped)
    with pytest.raises(KeyboardInterrupt):
        verify.verify(tmp_path / "blue.tar", Organiser())
    assert [path.name for path in tmp_path.iterdir()] == ["blue.tar"]
