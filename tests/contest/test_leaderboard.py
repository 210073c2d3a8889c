"""Who is ranked and who is only listed; whatever lies in the folder, and in whatever order it is read."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.audited import Ground
from support.page_checks import check
from support.verdict_folders import folder_of, told

from pipeline.contest.ranking import leaderboard
from pipeline.contest.ranking import page as leaderboard_page
from pipeline.contest.verify import verify
from pipeline.errors import UsageError

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]


def ranks(board: leaderboard.Board) -> list[list[tuple[int, str]]]:
    return [[(entry.rank, entry.verdict.submission) for entry in table.entries] for table in board.tables]


def listed(board: leaderboard.Board) -> dict[str, tuple[str, ...]]:
    return {each.verdict.submission: each.why for each in board.unranked}


def test_the_least_time_is_first_and_equal_times_share_a_rank(tmp_path: Path) -> None:
    board = leaderboard.make(
        folder_of(tmp_path, told("d", "D", 30), told("c", "C", 20), told("b", "B", 20), told("a", "A", 9.5))
    )
    assert ranks(board) == [[(1, "a"), (2, "b"), (2, "c"), (4, "d")]]
    assert board.unranked == ()


def test_the_latest_counts_also_when_it_is_slower(tmp_path: Path) -> None:
    early, late = "2026-11-20T10:00:00+00:00", "2026-11-20T12:00:00+02:30"
    board = leaderboard.make(
        folder_of(tmp_path, told("new", "A", 12, received_utc=early), told("old", "A", 10, received_utc=late))
    )
    assert ranks(board) == [[(1, "new")]]  # 12:00 east of Greenwich is 9:30 there
    assert [each.submission for each in board.tables[0].entries[0].history] == ["old", "new"]


NEXT_DAY = "2026-11-21T10:00:00+00:00"


@pytest.mark.parametrize("other", [{"verdict": "INVALID", "reasons": ["weights: other"]}, {"rehearsal": True}])
def test_what_is_invalid_or_a_rehearsal_takes_no_rank_away(tmp_path: Path, other: dict[str, Any]) -> None:
    later = told("new", "A", 1, received_utc=NEXT_DAY, **other)
    board = leaderboard.make(folder_of(tmp_path, told("old", "A", 10), later, told("b", "B", 99)))
    assert ranks(board) == [[(1, "old"), (2, "b")]]
    if "rehearsal" in other:
        assert [each.submission for each in board.rehearsals] == ["new"]
        page, text = leaderboard_page.html(board), leaderboard_page.text(board)
        check(page)
        assert "Rehearsals (1)" in page
        assert "1.00 s, measured" in page
        assert "1.00 s, measured     80.0%" in text.partition("rehearsals")[2]
    else:
        assert listed(board) == {"new": ("weights: other",)}
        assert board.unranked[0].earlier == 1


def test_the_date_that_a_run_gives_itself_says_nothing(tmp_path: Path) -> None:
    first = told("first", "A", 10, submitted_utc="2099-01-01T00:00:00+00:00")
    second = told("second", "A", 12, submitted_utc="2000-01-01T00:00:00+00:00", received_utc=NEXT_DAY)
    assert ranks(leaderboard.make(folder_of(tmp_path, first, second))) == [[(1, "second")]]


def test_a_time_that_only_the_team_tells_is_listed_apart(tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 9), told("b", "B", 1, rerun=None)))
    assert ranks(board) == [[(1, "a")]]
    (table,) = board.tables
    assert [(each.rank, each.verdict.submission) for each in table.claimed] == [(None, "b")]
    page = leaderboard_page.html(board)
    check(page)
    assert page.index("Measured by the organiser") < page.index("Told by the team: no rank")
    made = leaderboard_page.as_json(board)["tables"][0]
    assert [made[kind][0]["time_by"] for kind in ("entries", "claimed")] == ["organiser", "team"]


def test_only_told_times_rank_nobody(tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("b", "B", 1, rerun=None)))
    assert "No submission has a rank." in leaderboard_page.text(board)
    assert "No submission has a rank." in leaderboard_page.html(board)


def test_the_measured_time_counts_and_not_the_claimed_one(tmp_path: Path) -> None:
    liar = told("a", "A", 9)
    liar["time_s"] = 0.5
    board = leaderboard.make(folder_of(tmp_path, liar, told("b", "B", 8)))
    assert ranks(board) == [[(1, "b"), (2, "a")]]
    assert leaderboard_page.as_json(board)["tables"][0]["entries"][1]["time_s"] == 9


def test_a_time_on_data_that_no_team_has_seen_stands_in_that_datas_table(tmp_path: Path) -> None:
    fresh, right = "c" * 64, {"right": 6, "of": 10, "rule": "exact", "share": 0.6, "interval_95": [0.3, 0.8]}
    verdict = told("a", "A", 9)
    verdict["rerun"] |= {"data": "other.jsonl", "data_sha256": fresh, "prompts": 10, "accuracy": right}
    (table,) = leaderboard.make(folder_of(tmp_path, verdict)).tables
    assert (table.dataset, table.dataset_sha256, table.prompts) == ("other.jsonl", fresh, 10)
    assert table.entries[0].ranked.accuracy.share == 0.6
    assert table.entries[0].ranked.s_per_prompt == 0.9


@pytest.mark.parametrize("audit", [None, {"device": "cpu"}])
def test_the_page_says_whether_the_audit_was_made(tmp_path: Path, audit: object) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 9, audit=audit)))
    assert (">not made<" in leaderboard_page.html(board)) == (audit is None)
    assert ("not made" in leaderboard_page.text(board)) == (audit is None)


def test_a_verdict_of_an_older_program_is_listed_with_what_it_lacks(tmp_path: Path) -> None:
    old = told("a", "A", 9)
    for name in ("received_utc", "model_sha256"):
        del old[name]
    old["rerun"] = None
    board = leaderboard.make(folder_of(tmp_path, old))
    assert listed(board) == {"a": ("the verdict does not say model_sha256, received_utc: verify it again",)}


def test_stolen_runs_stand_side_by_side(tmp_path: Path) -> None:
    one, two = told("a", "A", 9), told("b", "Bee", 9)
    two |= {name: one[name] for name in ("outputs_sha256", "telemetry_sha256")}
    board = leaderboard.make(folder_of(tmp_path, one, two, told("c", "Sea", 9)))
    assert [[each.submission for each in group] for group in board.stolen] == [["a", "b"]]
    page = leaderboard_page.html(board)
    check(page)
    assert "The same run under several names" in page
    assert "several names" in leaderboard_page.text(board)
    honest = told("b", "Bee", 9, outputs_sha256=one["outputs_sha256"])  # the same answers, and a board of its own
    assert leaderboard.make(folder_of(tmp_path / "honest", one, honest)).stolen == ()


@pytest.mark.parametrize(
    ("name", "other", "alike"),
    [
        ("Victim", "V\u0456ctim", True),
        ("Blue Team", "BlueTeam", True),
        ("modern", "modem", True),
        ("Zoë", "Zoe", True),
        ("W0lf", "Wolf", True),
        ("Phoenix", "Pheonix", True),
        ("Phoenix", "Phenix", True),
        ("Red", "Bed", False),
        ("Phoenix", "Dragon", False),
        ("때론메모리도필요해", "때론시간도필요해", False),
    ],
)
def test_names_that_look_alike_stand_side_by_side(tmp_path: Path, name: str, other: str, alike: bool) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", name, 9), told("b", other, 8)))
    assert [set(group) for group in board.names] == ([{name, other}] if alike else [])
    assert ("look alike" in leaderboard_page.text(board)) == alike
    assert ("look alike" in leaderboard_page.html(board)) == alike


@pytest.mark.parametrize("verdict", ["INVALID", "CANNOT TELL"])
def test_only_valid_ones_are_ranked(tmp_path: Path, verdict: str) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 1, verdict=verdict)))
    assert board.tables == ()
    assert listed(board) == {"a": (f"the verdict is {verdict} and names no reason",)}


def test_a_submission_that_could_not_be_read_is_listed_by_its_name(tmp_path: Path) -> None:
    nulls = dict.fromkeys(("team", "commit", "model", "dataset", "prompts", "time_s", "s_per_prompt", "accuracy"))
    nulls |= {"device": None, "submitted_utc": None, "rerun": None, "reasons": ["unpack: M702 a name"]}
    board = leaderboard.make(folder_of(tmp_path, told("evil", "?", 1, verdict="INVALID", **nulls)))
    assert listed(board) == {"evil": ("unpack: M702 a name",)}
    assert "evil" in leaderboard_page.text(board)
    check(leaderboard_page.html(board))


def test_a_valid_one_that_does_not_say_all_is_not_ranked(tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 1, time_s=None, rerun=None)))
    assert listed(board) == {"a": ("the verdict does not say time_s: verify it again",)}


def test_a_rehearsal_is_not_ranked(tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 1, rehearsal=True)))
    assert (board.tables, [each.submission for each in board.rehearsals]) == ((), ["a"])


@pytest.mark.parametrize("other", [{"dataset_sha256": "b" * 64}, {"model_sha256": "b" * 64}])
def test_different_sets_or_models_are_never_ranked_together(tmp_path: Path, other: dict[str, Any]) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 9), told("b", "B", 8, **other)))
    assert sorted(map(len, ranks(board))) == [1, 1]
    assert all(rank == 1 for table in ranks(board) for rank, _ in table)


def test_one_team_is_ranked_on_each_set(tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 9), told("b", "A", 8, dataset="boolq")))
    assert sorted(ranks(board)) == [[(1, "a")], [(1, "b")]]


def test_the_device_beside_a_time_is_the_one_that_it_was_measured_on(tmp_path: Path) -> None:
    measured = told("a", "A", 9)
    measured["rerun"]["devices"] = ["Jetson AGX Orin 64GB"]
    board = leaderboard.make(folder_of(tmp_path, measured, told("b", "B", 8)))
    for shown in (leaderboard_page.text(board), leaderboard_page.html(board)):
        assert "Orin 64GB" in shown
        assert "different devices" in shown
    (table,) = leaderboard_page.as_json(board)["tables"]
    assert {each["team"]: each["measured_on"] for each in table["entries"]} == {"A": ["Jetson AGX Orin 64GB"], "B": []}


def test_times_of_different_devices_are_told_apart(tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 9), told("b", "B", 8, device="NVIDIA H100")))
    assert "different devices" in leaderboard_page.text(board)
    assert "different devices" in leaderboard_page.html(board)


@pytest.mark.parametrize("name", ["BLUE  team", "Blue Team", "Ｂｌｕｅ Team"])
def test_two_teams_of_one_name_keep_their_ranks_and_are_noted(tmp_path: Path, name: str) -> None:
    mine = told("a", "blue team", 9, team={"name": "blue team", "members": ["Kim", "Lee"]})
    theirs = told("b", name, 8, team={"name": name, "members": ["Park"]})
    board = leaderboard.make(folder_of(tmp_path, mine, theirs))
    assert ranks(board) == [[(1, "b"), (2, "a")]]
    assert any("without a common member" in note and "Park" in note for note in board.notes)


def test_a_team_may_change_its_members(tmp_path: Path) -> None:
    one = told("a", "T", 9, team={"name": "T", "members": ["Kim", "Lee"]})
    two = told("b", "t", 8, team={"name": "t", "members": ["kim"]}, received_utc="2026-11-21T10:00:00+00:00")
    assert ranks(leaderboard.make(folder_of(tmp_path, one, two))) == [[(1, "b")]]


def test_somebody_in_two_teams_is_noted(tmp_path: Path) -> None:
    one = told("a", "A", 9, team={"name": "A", "members": ["Kim Min", "Lee"]})
    two = told("b", "B", 8, team={"name": "B", "members": ["kim  min"]})
    board = leaderboard.make(folder_of(tmp_path, one, two))
    assert len(board.notes) == 1
    assert board.notes[0].lower().endswith("is in a and in b")


def test_one_submission_verified_twice_counts_once(tmp_path: Path) -> None:
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 9), told("a", "A", 9)))
    assert ranks(board) == [[(1, "a")]]
    assert len(board.tables[0].entries[0].history) == 1


def test_one_submission_with_two_verdicts_does_not_count(tmp_path: Path) -> None:
    bad = told("a", "A", 9, verdict="INVALID", reasons=["rerun: other answers"])
    board = leaderboard.make(folder_of(tmp_path, told("a", "A", 9), bad))
    assert board.tables == ()
    assert listed(board)["a"][0] == "verified 2 times, with different verdicts: INVALID, VALID"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "Expecting value"),
        ("[]", "it is not a verdict"),
        ('{"schema": 2}', "schema 2; this program reads schema 1"),
        ('{"schema": 1, "verdict": "VALID"}', "submission is missing"),
        (json.dumps(told("a", "A", 1, verdict="MAYBE")), "verdict is to be 'VALID'"),
        (json.dumps(told("a", "A", 1, time_s=-1)), "time_s is to be more than 0"),
        (json.dumps(told("a", "A", 1, submitted_utc="soon")), "submitted_utc cannot be"),
        (json.dumps(told("a", "A", float("nan"))), "NaN"),
        ('{"schema": 1, "schema": 1}', "comes twice"),
    ],
)
def test_a_verdict_that_is_none_is_listed_with_the_reason(tmp_path: Path, content: str, why: str) -> None:
    folder_of(tmp_path, told("good", "G", 5))
    (tmp_path / "bad.verdict").mkdir()
    (tmp_path / "bad.verdict" / "verdict.json").write_text(content)
    board = leaderboard.make(tmp_path)
    assert ranks(board) == [[(1, "good")]]
    (unread,) = board.unread
    assert unread.folder == "bad.verdict"
    assert why in unread.why


@pytest.mark.parametrize("mark", ["submission.json", "MANIFEST.sha256"])
def test_a_verdict_that_a_team_packed_is_not_read(tmp_path: Path, mark: str) -> None:
    folder_of(tmp_path, told("good", "G", 5), told("forged", "F", 0.1))
    (tmp_path / "01-forged.verdict" / mark).write_text("")
    board = leaderboard.make(tmp_path)
    assert ranks(board) == [[(1, "good")]]
    assert "the team wrote it" in board.unread[0].why


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_folder_without_verdicts_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        leaderboard.make(tmp_path / name)
    assert caught.value.code == "U711"


def test_the_order_of_reading_changes_nothing(tmp_path: Path) -> None:
    verdicts = [told(f"s{i}", f"T{i % 5}", 10 + i % 3, received_utc=f"2026-11-{10 + i}T10:00:00Z") for i in range(12)]
    verdicts += [told("bad", "X", 3, verdict="INVALID", reasons=["why"]), told("late", "T1", 2, dataset="boolq")]
    written = set()
    for turn in range(5):
        random.Random(turn).shuffle(verdicts)
        out = tmp_path / f"out{turn}"
        leaderboard_page.write(leaderboard.make(folder_of(tmp_path / f"in{turn}", *verdicts)), out)
        written.add(tuple((out / name).read_bytes() for name in ("index.html", "leaderboard.json")))
    assert len(written) == 1


def test_strangers_text_stays_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\x1b[2J"
    board = leaderboard.make(
        folder_of(tmp_path, told("a", evil, 9), told("b", evil + "2", 9, verdict="INVALID", reasons=[evil]))
    )
    page = leaderboard_page.html(board)
    check(page)
    assert "<script>alert" not in page
    assert "\x1b" not in leaderboard_page.text(board)


def test_what_verify_writes_is_listed_and_keeps_its_time_of_receipt(ground: Ground, tmp_path: Path) -> None:
    out = tmp_path / "good.verdict"
    verdict = verify.verify(ground.light, ground.light_organiser, out=out)
    content = ground.light.read_bytes()
    (tmp_path / "broken.tar").write_bytes(content[: len(content) // 2])
    verify.verify(tmp_path / "broken.tar", ground.light_organiser)
    board = leaderboard.make(tmp_path)
    (told_by_the_team,) = board.tables[0].claimed
    assert (told_by_the_team.verdict.submission, board.tables[0].entries) == (verdict.name, ())
    assert told_by_the_team.ranked.accuracy.share == pytest.approx(verdict.accuracy.right / verdict.accuracy.of)
    assert list(listed(board)) == ["broken"]
    assert board.unread == ()
    again = verify.verify(ground.light, ground.light_organiser, out=out)
    assert again.received_utc == verdict.received_utc
    (out / "verdict.json").write_text("{")
    assert verify.verify(ground.light, ground.light_organiser, out=out).received_utc > verdict.received_utc


MOMENTS = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-20", 1e308, 5e-324, 2**63 - 1]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none()),
    st.sampled_from(MOMENTS),
)
PARTS = (lambda told: told, lambda told: told["rerun"], lambda told: told["accuracy"], lambda told: told["team"])


@given(data=st.data())
@hypothesis_settings(max_examples=40)
def test_no_verdict_ends_the_leaderboard(data: st.DataObject) -> None:
    verdicts = [told("a", "A", 9), told("b", "B", 8, audit={}), told("c", "C", 7, rehearsal=True)]
    for verdict in verdicts:
        for _ in range(data.draw(st.integers(0, 3))):
            part = data.draw(st.sampled_from(PARTS))(verdict)
            if isinstance(part, dict) and part:
                part[data.draw(st.sampled_from(sorted(part)))] = data.draw(VALUES)
    with tempfile.TemporaryDirectory() as folder:
        files = folder_of(Path(folder), *verdicts, plain_names=True)
        board = leaderboard.make(files)
        leaderboard_page.write(board, Path(folder, "out"))
        leaderboard_page.text(board)
        check(leaderboard_page.html(board))


def test_as_a_user_calls_it(invoke: Invoke, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", told("a", "때론메모리도필요해", 9), told("b", "B", 8))
    done = invoke("leaderboard", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("  1  B") < done.stdout.index("  2  때론메모리도필요해")
    check((folder / "index.html").read_text(encoding="utf-8"))
    made = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    assert [each["rank"] for each in made["tables"][0]["entries"]] == [1, 2]
    done = invoke("leaderboard", folder, "--to", tmp_path / "out", "--json")
    assert json.loads(done.stdout) == made
    assert invoke("leaderboard", tmp_path / "nowhere").returncode == 2
