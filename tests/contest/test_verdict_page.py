"""The page of a verdict: all of it, in words for people, and strangers' text stays text."""

from __future__ import annotations

import re
from html import unescape

import pytest
from support.page_checks import check
from support.verdict_folders import full, told

from pipeline.contest.verify import verdict_page

EVIL = "</td></table></style><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}{% raw %}\" onload='x"


def words(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.partition("<main")[2].partition("</main>")[0])))


@pytest.mark.parametrize("evil", [EVIL, "&lt;script&gt;", "\u202egnp.exe", "]]><!--", "x" * 4000])
def test_a_strangers_words_stay_words_in_every_place(evil: str) -> None:
    verdict = full(evil)
    page = verdict_page.html(verdict)
    tags = check(page).tags
    assert tags == check(verdict_page.html(full("plain"))).tags
    assert "<script>alert" not in page
    assert unescape(page).count(evil) >= 12


def test_it_shows_all_that_the_verdict_says() -> None:
    verdict = full("Blue")
    seen = words(verdict_page.html(verdict))
    for each in verdict["checks"]:
        assert f"{each['id']} " in seen
    for part in (
        "INVALID",
        "Class: integrity",
        "9.800 s",
        "0.3267 s",
        "80.00 %",
        "24 of 30 by the rule exact",
        "62.7 %",
    ):
        assert part in seen, part
    assert "1 failed, 1 cannot tell, 1 people decide, 1 ok." in seen
    for part in ("rows with other answers 3, 7", "median of the runs 10.50 s", "1.071", "Run 2, the end of stderr"):
        assert part in seen, part
    assert "Run 1, the end of stderr" not in seen  # it wrote nothing there


def test_what_could_not_be_read_is_left_out() -> None:
    nulls = dict.fromkeys(("team", "model", "dataset", "dataset_sha256", "prompts", "time_s", "s_per_prompt"))
    nulls |= dict.fromkeys(("rehearsal", "commit", "accuracy", "device", "submitted_utc"))
    page = verdict_page.html(told("evil", "?", 1, verdict="INVALID", reasons=["unpack: M702"], **nulls))
    check(page)
    assert "None" not in words(page)
    assert "unpack: M702" in page


def test_a_good_one_says_so_and_a_rehearsal_is_called_one() -> None:
    page = verdict_page.html(told("good", "Blue", 9.8, rehearsal=True))
    check(page)
    assert "Every check that a program can make passed." in words(page)
    assert "A rehearsal" in words(page)


def test_runs_that_did_not_end_have_no_times() -> None:
    verdict = full("Blue")
    verdict["rerun"] |= {"median_s": None, "ratio": None, "spread": None, "elapsed_s": []}
    verdict["rerun"]["runs"] = [{**run, "elapsed_s": None, "status": 7} for run in verdict["rerun"]["runs"]]
    seen = words(verdict_page.html(verdict))
    assert "1 7 none 2 7 none" in seen
    assert "median of the runs" not in seen
