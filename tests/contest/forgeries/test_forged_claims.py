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


FOR_PEOPLE = {"a member three times in look-alike letters": "rule-team"}
"""Lies that a program may only show: namesakes exist. The check that shows each."""


@pytest.mark.parametrize("name", cases(CHANGES.keys() - HARMLESS - FOR_PEOPLE.keys(), KNOWN))
def test_it_is_not_valid_for_the_reason_that_it_should(name: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    verdict = judged(name, draft, ground, tmp_path)
    assert verdict.state != VALID
    assert in_state(verdict, FAIL) | in_state(verdict, UNKNOWN) == CAUGHT_BY[name], verdict.reasons


@pytest.mark.parametrize("name", sorted(FOR_PEOPLE))
def test_it_is_shown_to_people(name: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    verdict = judged(name, draft, ground, tmp_path)
    assert FOR_PEOPLE[name] in in_state(verdict, HUMAN)
    page = (tmp_path / "verdict" / "verdict.html").read_text(encoding="utf-8")
    assert "members whose names look the same" in page


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_harms_nobody_is_valid(name: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    verdict = judged(name, draft, ground, tmp_path)
    assert verdict.state == VALID, verdict.reasons
    assert ("source" in in_state(verdict, HUMAN)) == (name == "a commit of nowhere")
