"""A verdict of the golden corpus does not change unless the rules' version is raised and the rule is named.

That these are the verdicts is shown where the submissions are verified, in test_audit.py.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from support import golden
from support.forgeries import LIES, UNTOLD
from support.golden import Golden

from pipeline import paths
from pipeline.contest.rules import rules
from pipeline.contest.verify.verify import CANNOT_TELL, INVALID

KNOWN = golden.read_here()


def test_every_lie_is_in_the_corpus_with_what_catches_it() -> None:
    held = {name: each.checks for name, each in KNOWN.items()}
    assert held == {lie.__name__: checks for lie, checks in (LIES | UNTOLD).items()}
    assert {each.verdict for each in KNOWN.values()} == {INVALID, CANNOT_TELL}


def test_the_rules_have_the_corpus_version() -> None:
    assert rules.load().version == max(each.version for each in KNOWN.values())


@pytest.mark.checkout
def test_no_verdict_changed_in_the_history_without_its_rule_and_version() -> None:
    path = golden.PLACE.relative_to(paths.ROOT).as_posix()

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True, check=True)
        return done.stdout

    versions = [git("show", f"{commit}:{path}") for commit in git("log", "--format=%H", "--", path).split()]
    texts = [golden.read(text) for text in versions]  # the newest first
    for now, before in zip([KNOWN, *texts], texts, strict=False):
        assert golden.unnamed_changes(before, now) == []


OLD = Golden("INVALID", "integrity", frozenset({"weights"}), 1)


@pytest.mark.parametrize(
    ("new", "fine"),
    [
        (OLD, True),
        (replace(OLD, verdict="VALID", kind=None, checks=frozenset()), False),
        (replace(OLD, checks=frozenset({"weights", "model"})), False),
        (replace(OLD, kind="form", version=2), False),
        (replace(OLD, kind="form", rule="weights"), False),
        (replace(OLD, kind="form", rule="weights", version=2), True),
        (replace(OLD, version=0), False),
    ],
)
def test_a_change_says_by_which_version_and_rule(new: Golden, fine: bool) -> None:
    assert (golden.unnamed_changes({"a": OLD}, {"a": new, "b": OLD}) == []) is fine
    assert golden.unnamed_changes({"a": OLD, "b": OLD}, {"a": new}) != []
