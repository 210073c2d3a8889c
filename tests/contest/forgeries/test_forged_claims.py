"""What a liar can write into a submission: never VALID, whatever it is, and never a check that fails itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.audited import Ground, in_state
from support.drafts_of_submissions import Draft
from support.known import cases
from support.lies import CHANGES, HARMLESS

from pipeline.check import HUMAN
from pipeline.contest.verify import verify
from pipeline.contest.verify.verify import VALID, Verdict

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread", "in_place")]

BELIEVED = "a time that is told consistently is believed where nobody measured it again"
NOT_READ = "the value is not looked at"
DAY = "the day of a run is held against nothing: neither the contest's nor the archive's"
CHANNELS = "which channels a board must have, and in which bounds, is not checked"
COPIES = "copies of one fact in two files are not held against each other"
DOCUMENTS = "of a document only the size is looked at"
NAMES = "letters that cannot be seen, or told from others, are taken in names"
CRASH = "the checks of the group fail themselves: CANNOT TELL, with a traceback, also for what is plainly wrong"
REQUEST = "what was asked for is not held against what ran"

KNOWN = {
    "every time halved": BELIEVED,
    "every time a third": BELIEVED,
    "one pass for all": "the number of passes is held against nothing: rows, tokens and the largest pass bound it",
    "costs below nothing": "a cost below zero switches the check of passes off",
    "phases of no time": "28 GB loaded in no time are taken",
    "all answers in the first nanosecond": "answers may all come before the first pass can have ended",
    "a run of 1970": DAY,
    "a run of 2099": DAY,
    "a run of the year one": DAY,
    "the slower section hidden": "nothing tells of sections that were left out",
    "a section of a third": "repeats may differ by half of their median",
    "a pause between two sections": "seconds between two sections are nobody's",
    "an idle board": "no power and no load under the clock is taken",
    "no counter of throttling": CHANNELS,
    "one counter of many": CHANNELS,
    "counters that fall silent": "a counter that is empty after its first sample is taken as not having counted",
    "a clock of one megahertz": CHANNELS,
    "colder than space": CHANNELS,
    "a board with a key more": CRASH,
    "throttled, on a board with a key more": CRASH,
    "a picture that is a script": DOCUMENTS,
    "a paper that is a page": DOCUMENTS,
    "a bill of materials of nothing": DOCUMENTS,
    "an image of one byte": DOCUMENTS,
    "a program among the run's files": "files that no submission needs are taken",
    "an H100 in the environment": "the GPU that the environment names is not held against the board",
    "more memory used than the board has": "peak memory has no upper bound",
    "others' share of the processor not said": "what is not said of other processes counts as none",
    "an image reference without its digest": "the form of an image's digest is not looked at",
    "our engine said to be the reference": "passes of an engine that makes none are taken, and switch its checks off",
    "a data set of another name": "the name of a data set is free; tables of the leaderboard go by its hash",
    "a data set without a name": "the name of a data set is free; tables of the leaderboard go by its hash",
    "two names of the model": COPIES,
    "two names of the data set": COPIES,
    "a team's name that reads backwards": NAMES,
    "a team's name of stacked accents": NAMES,
    "a member three times in look-alike letters": NAMES,
    "a version with a hidden letter": NAMES,
    "bytes received without an interface": "bytes count only where an interface is named",
    "another data set asked for": REQUEST,
    "four bits asked for": REQUEST,
    "fewer than no allocations failed": NOT_READ,
    "weights of eight bits in the engine": NOT_READ,
    "a name that is markup": NOT_READ,
    "a GPU's name that is markup": "the GPU that the environment names is not held against the board",
    "an engine that makes no passes": "passes of an engine that makes none are taken, and switch its checks off",
    "a load of minus nothing": "28 GB loaded in no time are taken",
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


@pytest.mark.parametrize("name", cases(CHANGES.keys() - HARMLESS, KNOWN))
def test_it_is_not_valid(name: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    assert judged(name, draft, ground, tmp_path).state != VALID


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_harms_nobody_is_valid(name: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    verdict = judged(name, draft, ground, tmp_path)
    assert verdict.state == VALID, verdict.reasons
    assert ("source" in in_state(verdict, HUMAN)) == (name == "a commit of nowhere")
