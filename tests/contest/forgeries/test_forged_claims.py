"""What a liar can write into a submission: never VALID, whatever it is, and never a check that fails itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.audited import Ground, in_state
from support.drafts_of_submissions import Draft
from support.known import cases
from support.lies import CAUGHT_BY, CHANGES, HARMLESS

from pipeline.check import FAIL, HUMAN, UNKNOWN
from pipeline.contest.verify import verify
from pipeline.contest.verify.verify import VALID, Verdict

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread", "in_place")]

KNOWN = {
    "every time halved": "a time that is told consistently is believed where nobody measured it again",
    "every time a third": "a time that is told consistently is believed where nobody measured it again",
}


@pytest.fixture(scope="module")
def draft(ground: Ground) -> Draft:
    return Draft.of(ground.light)


def judged(name: str, draft: Draft, ground: Ground, folder: Path) -> Verdict:
    changed = draft.copy()
    CHANGES[name](changed)
    if changed.rows and "stats" in changed.manifest["engine"]:
        changed.settle()
    verdict = verify.verify(changed.pack(folder), ground.light_organiser, out=folder / "verdict")
    assert "\x1b" not in verify.text(verdict, folder)
    assert verdict.trouble == ""
    page = (folder / "verdict" / "verdict.html").read_text(encoding="utf-8")
    assert not any(markup in page for markup in ("<script>alert", "<img src=x", "<b>Orin"))
    return verdict


FOR_PEOPLE = {
    "a member three times in look-alike letters": ("rule-team", "members whose names look the same"),
    "a paper whose page cannot be read": ("documents", "its text cannot be read: an operator"),
    "a paper of another program": ("documents", "its text cannot be read: a name that our papers do not have: Lang"),
    "a paper with a later version behind it": ("documents", "its text cannot be read: another form of file"),
    "a paper that is a bomb": ("documents", "its text cannot be read: more than 8,388,608 bytes"),
    "a paper of too many objects": ("documents", "its text cannot be read: another table of objects, or more than"),
    "a time that the template itself tells": ("documents", "the team's own figures: '0.0001 s'"),
    "a paper of the team's own beside": ("documents", "paper.pdf: a paper of the team's own"),
}
"""Lies that a program may only show: namesakes exist, and a team may write its own paper. The check that shows each,
and its words."""


@pytest.mark.parametrize("name", cases(CHANGES.keys() - HARMLESS - FOR_PEOPLE.keys(), KNOWN))
def test_it_is_not_valid_for_the_reason_that_it_should(name: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    verdict = judged(name, draft, ground, tmp_path)
    assert verdict.state != VALID
    assert in_state(verdict, FAIL) | in_state(verdict, UNKNOWN) == CAUGHT_BY[name], verdict.reasons


@pytest.mark.parametrize("name", sorted(FOR_PEOPLE))
def test_it_is_shown_to_people(name: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    verdict = judged(name, draft, ground, tmp_path)
    check, words = FOR_PEOPLE[name]
    (found,) = (each for each in verdict.checks if each.id == check)
    assert found.state == HUMAN, verdict.reasons
    assert words in found.found


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_harms_nobody_is_valid(name: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    verdict = judged(name, draft, ground, tmp_path)
    assert verdict.state == VALID, verdict.reasons
    assert ("source" in in_state(verdict, HUMAN)) == (name == "a commit of nowhere")
    if name == "clocks not locked":  # no rule asks for it, so it is a note
        (board,) = (each.found for each in verdict.checks if each.id == "board")
        assert "clocks were not locked" in board
