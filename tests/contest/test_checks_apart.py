"""A call that never ends, takes all memory or kills its process: known by its name, and no other's result is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.audited import Ground, in_state
from support.drafts_of_submissions import Draft

from pipeline.check import FAIL, UNKNOWN
from pipeline.contest import apart
from pipeline.contest.apart import Call, Stopped
from pipeline.contest.checks import by_id
from pipeline.contest.verify import verify
from pipeline.contest.verify.verify import CANNOT_TELL, INVALID
from pipeline.errors import ResourceError


def forever() -> None:
    while True:
        pass


def greedy() -> int:
    return len(bytes(64 << 20))


def killed() -> None:
    os.kill(os.getpid(), 9)


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "forever": (forever, "it took more than 1 s of processor time"),
    "waiting": (partial(time.sleep, 600), "it did not end in 2 s"),
    "greedy": (greedy, "it took more than 0 GiB of memory"),
    "killed": (killed, "its process was ended by signal 9"),
    "gone": (partial(os._exit, 3), "its process ended with status 3"),
}


@pytest.mark.parametrize("name", [name for name in BAD if name != "waiting"])
def test_a_bad_call_is_known_by_its_name_and_the_others_are_made(name: str) -> None:
    make, why = BAD[name]
    calls = [Call("a", lambda: 1), Call("bad", make, 1, 32 << 20), Call("b", lambda: 2)]
    assert [(call.id, result) for call, result in apart.each(calls)] == [("a", 1), ("bad", Stopped(why)), ("b", 2)]


def test_a_call_that_waits_is_ended_too() -> None:
    make, why = BAD["waiting"]
    [(_, result)] = apart.each([Call("bad", make, 1, waiting_s=1.0)])
    assert result == Stopped(why)


def test_what_a_call_raises_is_raised_here_and_its_process_is_gone() -> None:
    def full() -> None:
        raise ResourceError("R101", "the disk is full", where="/", fix="make room")

    before = set(psutil.Process().children())  # the fork server of this process's tests, if one has called a command
    with pytest.raises(ResourceError) as caught:
        list(apart.each([Call("a", full)]))
    assert (caught.value.code, caught.value.where) == ("R101", "/")
    assert set(psutil.Process().children()) <= before


@pytest.mark.checkout
@pytest.mark.parametrize("bad", ["killed", "greedy"])
def test_a_check_that_is_ended_is_named_and_hides_no_invalid(
    bad: str, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Any:
        return BAD[bad][0]() if bad == "killed" else len(bytes(5 << 30))

    monkeypatch.setitem(by_id.CHECKS, "telemetry", broken)
    verdict = verify.verify(ground.light, ground.light_organiser, out=tmp_path / "one")
    assert (verdict.state, in_state(verdict, UNKNOWN)) == (CANNOT_TELL, {"telemetry"})
    liar = Draft.of(ground.light)
    liar.manifest["code"]["dirty"] = True
    verdict = verify.verify(liar.pack(tmp_path), ground.light_organiser, out=tmp_path / "two")
    assert (verdict.state, in_state(verdict, FAIL), in_state(verdict, UNKNOWN)) == (INVALID, {"commit"}, {"telemetry"})
