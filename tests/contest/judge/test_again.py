"""Runs between two reference runs that drifted apart are done again, elsewhere, and the last turn counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.contest.judge import judge, references, status
from pipeline.contest.judge.plan import Entry, Plan
from pipeline.queues import attempts

A, B = (Entry(name * 12, name * 64, f"{name}.tar", 10.0, 300.0) for name in "ab")
OWN = Entry("c" * 12, "c" * 64, "c.tar", 10.0, 300.0)


@pytest.fixture
def plan() -> Plan:
    order = tuple(f"{each.id}-r{number}" for number in (1, 2) for each in (A, B))
    return Plan(1, None, "/data", "0" * 64, "/model", 2, (A, B), OWN, order, {})


def ended(place: Path, key: str, node: str, at_s: float, elapsed_s: float, kind: str = "ok") -> None:
    attempt = place / "runs" / key / "attempt-1"
    attempt.mkdir(parents=True)
    (attempt / "started.json").write_text(json.dumps({"node": node, "at_s": at_s}))
    told = {"kind": kind, "node": node, "attempt": "attempt-1", "elapsed_s": elapsed_s, "wall_s": elapsed_s}
    (attempt / "outcome.json").write_text(json.dumps(told))
    assert attempts.settle(attempt.parent, attempt)


def all_on_two_boards(plan: Plan, place: Path, last_of_b2_s: float) -> None:
    ended(place, "ref-b1-1", "b1", 0, 10.0)
    ended(place, "ref-b2-1", "b2", 0, 10.0)
    for number, key in enumerate(plan.order):
        ended(place, key, ("b1", "b2")[number % 2], 10 + number, 20.0)
    ended(place, "ref-b1-last", "b1", 100, 10.1)
    ended(place, "ref-b2-last", "b2", 100, last_of_b2_s)


def test_steady_boards_have_done_all(plan: Plan, tmp_path: Path) -> None:
    all_on_two_boards(plan, tmp_path, 10.1)
    assert [each.keys for each in references.turns(plan, tmp_path)] == [(key,) for key in plan.order]
    assert judge._finished(plan, tmp_path, ["b1", "b2"])


def test_what_ran_on_a_board_that_drifted_is_done_again_elsewhere(plan: Plan, tmp_path: Path) -> None:
    all_on_two_boards(plan, tmp_path, 10.3)
    assert not judge._finished(plan, tmp_path, ["b1", "b2"])
    of_b = [f"{B.id}-r{number}-again2" for number in (1, 2)]
    assert [each.counts for each in references.turns(plan, tmp_path)] == [
        plan.order[0],
        of_b[0],
        plan.order[2],
        of_b[1],
    ]
    wanted = {each.key: each for each in judge._wanted(plan, tmp_path, ["b1", "b2"])}
    assert wanted[of_b[0]].avoid == ("b2",)
    assert wanted[of_b[0]].limit_s == wanted[plan.order[0]].limit_s
    shown = status.look(plan, tmp_path)
    assert shown.counted == {"ok": 2, "planned": 2}
    assert shown.left_s > 0
    # Done on the other board, which then has one more reference run, and that alone.
    for number, key in enumerate(of_b):
        ended(tmp_path, key, "b1", 110 + number, 20.0)
    due = [each.key for each in judge._wanted(plan, tmp_path, ["b1", "b2"]) if each.key.startswith("ref-")]
    assert [each for each in due if "last" in each] == ["ref-b1-last2"]
    assert not judge._finished(plan, tmp_path, ["b1", "b2"])
    ended(tmp_path, "ref-b1-last2", "b1", 200, 10.1)
    assert judge._finished(plan, tmp_path, ["b1", "b2"])
    assert status.look(plan, tmp_path).counted == {"ok": 4}


def test_a_board_that_never_settles_ends_after_three_turns(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "EVERY", 100)
    ended(tmp_path, "ref-b1-1", "b1", 0, 10.0)
    moment_s = 1.0
    for turn in range(1, references.MOST_TURNS + 1):
        assert not judge._finished(plan, tmp_path, ["b1"])
        for each in references.turns(plan, tmp_path):
            assert len(each.keys) == turn
            ended(tmp_path, each.counts, "b1", moment_s := moment_s + 1, 20.0)
        last = f"ref-b1-last{turn if turn > 1 else ''}"
        ended(tmp_path, last, "b1", moment_s := moment_s + 1, 10.0 + turn)
    assert judge._finished(plan, tmp_path, ["b1"])
    assert {len(each.keys) for each in references.turns(plan, tmp_path)} == {3}


def test_a_run_that_failed_is_not_done_again_for_drift(plan: Plan, tmp_path: Path) -> None:
    ended(tmp_path, "ref-b1-1", "b1", 0, 10.0)
    for number, key in enumerate(plan.order):
        ended(tmp_path, key, "b1", 1 + number, 20.0, "did not start")
    ended(tmp_path, "ref-b1-last", "b1", 100, 20.0)
    assert judge._finished(plan, tmp_path, ["b1"])
