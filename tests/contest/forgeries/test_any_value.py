"""Every value of manifest.json and submission.json replaced by hostile ones: no check and no leaderboard may crash."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.audited import Ground
from support.drafts_of_submissions import Draft

from pipeline.contest.ranking import leaderboard
from pipeline.contest.ranking import page as leaderboard_page
from pipeline.contest.verify import verify

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread", "in_place")]

PARTS = 8
Place = tuple["str | int", ...]
Edit = tuple[str, Place, Any]
"""File, place in it, and the new value."""


def places(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value at every depth, of a list the first two."""
    if path:
        yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def others(value: Any) -> list[Any]:
    """What may stand there instead, of the same type."""
    if isinstance(value, dict):
        return [{}, {**value, "zz": 1}, {**value, "__class__": "x", "self": 1}]
    if isinstance(value, list):
        return [[], value * 3, [None]]
    if value is None:
        return ["x", 1, [], {}]
    return {
        bool: [not value],
        int: [-1, 0, 2**62, -(2**62)],
        float: [-1.0, 0.0, 1e308, -1e308, 5e-324],
        str: ["", "\x1b[2J\u202e", "x" * 3999, "0" * 64, "0001-01-01T00:00:00+14:00"],
    }[type(value)]


def edits(draft: Draft) -> dict[str, Edit]:
    """By name: file, place and the new value."""
    found = {}
    for file in ("manifest", "submission"):
        for path, value in places(getattr(draft, file)):
            listed = path[0] == "files" or (
                path[:2] == ("environment", "packages") and path[2:] not in {(), ("torch",)}
            )
            for number, other in enumerate([] if listed else others(value)):
                found[f"{file}.{'.'.join(map(str, path))} {number}"] = (file, path, other)
    return found


@pytest.fixture(scope="module")
def draft(ground: Ground) -> Draft:
    return Draft.of(ground.light)


def judge(draft: Draft, ground: Ground, edit: Edit, folder: Path) -> None:
    file, (*above, last), value = edit
    changed = draft.copy()
    place = getattr(changed, file)
    for key in above:
        place = place[key]
    place[last] = value
    verdicts = folder / "verdicts"
    tar = changed.pack(folder)
    verdict = verify.verify(tar, ground.light_organiser, out=verdicts / "one")
    tar.unlink()
    assert verdict.trouble == ""
    assert "\x1b" not in verify.text(verdict, folder)
    board = leaderboard.make(verdicts)
    leaderboard_page.html(board)
    leaderboard_page.text(board)


@pytest.fixture(scope="module")
def all_edits(draft: Draft) -> dict[str, Edit]:
    found = edits(draft)
    assert len(found) > 900
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_value_crashes_anything(
    part: int, all_edits: dict[str, Edit], draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    chosen = {name: edit for name, edit in all_edits.items() if zlib.crc32(name.encode()) % PARTS == part}
    judge_each(chosen, draft, ground, tmp_path)


def judge_each(chosen: dict[str, Edit], draft: Draft, ground: Ground, folder: Path) -> None:
    crashed = {}
    for name, edit in chosen.items():
        try:
            judge(draft, ground, edit, folder)
        except Exception as error:  # all of them, so that one run tells of all
            crashed[name] = repr(error)[:300]
    assert crashed == {}
