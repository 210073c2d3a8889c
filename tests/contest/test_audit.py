"""An audit of our own checks: submissions with one lie each, packed again as a liar would, and which check catches it.

A lie is careful: hashes, counts and copies that would give it away cheaply are set right with it. What a lie is caught
by is exact: all checks that fail or cannot tell are listed, so that a check which fails for the wrong reason shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import golden
from support.audited import Ground, evidence_of, in_state, verified
from support.drafts_of_submissions import Draft
from support.forgeries import BY_CHANCE, LIES, UNSETTLED, UNTOLD, team_of_four
from support.lies import CAUGHT_BY

from pipeline import paths
from pipeline.check import FAIL, HUMAN, OK, UNKNOWN
from pipeline.contest.checks.facts import Facts
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.submitted import Submission
from pipeline.contest.rules import rules
from pipeline.contest.verify import verify
from pipeline.contest.verify.verify import CANNOT_TELL, INVALID, VALID, Verdict
from pipeline.engine.memory import STREAMED

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread", "in_place")]


KNOWN = golden.read_here()


@pytest.fixture(scope="module")
def draft(ground: Ground) -> Draft:
    return Draft.of(ground.light)


def test_the_good_one_passes_with_its_whole_source(ground: Ground, tmp_path: Path) -> None:
    verdict = verify.verify(ground.tar, ground.organiser, out=tmp_path / "verdict")
    assert (verdict.state, verdict.reasons, verdict.trouble) == (VALID, [], "")


def test_the_good_one_passes_when_it_is_packed_again(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    changed = draft.copy()
    changed.settle()
    for tar in (ground.light, changed.pack(tmp_path)):
        verdict = verify.verify(tar, ground.light_organiser, out=tmp_path / "verdict")
        assert (verdict.state, verdict.reasons, verdict.trouble) == (VALID, [], "")
        assert {each.state for each in verdict.checks} == {OK, HUMAN}


def test_a_run_of_the_unmodified_pipeline_is_as_good(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    """It tells of no passes."""
    changed = draft.copy()
    changed.manifest["engine"] = {"name": "reference"}
    for section in changed.manifest["sections"]:
        section["passes"] = 0
    changed.manifest["request"]["engine"] = "reference"
    moments = [row["at_s"] for row in changed.rows]
    changed.rows.sort(key=lambda row: row["index"])
    for row, at_s in zip(changed.rows, moments, strict=True):
        row["at_s"] = at_s
    assert verified(changed.pack(tmp_path), ground).state == VALID


@pytest.mark.parametrize(("weights", "state"), [("resident", FAIL), (STREAMED, OK)])
def test_weights_that_were_read_from_the_disk_need_less_room(
    weights: str, state: str, draft: Draft, tmp_path: Path
) -> None:
    """Of 28 GB in bfloat16, 5 GB hold two layers and the embeddings."""
    changed = draft.copy()
    changed.manifest["model"]["name"], changed.manifest["dtype"] = "phi3-medium", "bfloat16"
    changed.manifest["engine"]["weights"] = weights
    changed.manifest["peak_memory"] = {"host_bytes": 5_000_000_000, "gpu_bytes": None}
    verdict = verify.verify(changed.pack(tmp_path), Organiser(), out=tmp_path / "verdict")
    assert "resident" in in_state(verdict, state)


def told(lie: Callable[[Draft, Any], None], draft: Draft, ground: Ground, out: Path) -> tuple[Verdict, Draft]:
    changed = draft.copy()
    lie(changed, ground.light_organiser.model("").tokenizer)
    changed.make_papers() if lie in UNSETTLED else changed.settle()
    return verified(changed.pack(out), ground), changed


def assert_the_rules_say_the_same(draft: Draft, verdict: Verdict, ground: Ground, folder: Path) -> None:
    """`invoke rules` and `invoke submit` of the run, and `invoke verify` of the file: one place decides."""
    seen = evidence_of(draft, ground, folder)
    claims = replace(seen.facts.submitted, submission=Submission.model_validate(draft.submission))
    judged = {each.id: each for each in rules.judge(replace(seen, facts=Facts(claims, ground.light_organiser)))}
    states = {each.id: each.state for each in verdict.checks}
    for rule in rules.load().rules:
        if rule.verified and rule.id != "source":  # which lies in git there, in an archive here
            worst = {states[name] for name in rule.checks}
            assert judged[rule.id].state == next(each for each in (FAIL, UNKNOWN, OK) if each in worst), rule.id


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_lie_is_caught_by_the_check_that_should(
    lie: Callable[[Draft, Any], None], draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    verdict, changed = told(lie, draft, ground, tmp_path)
    written = verdict.as_json()
    assert (written["verdict"], written["class"]) == (INVALID, KNOWN[lie.__name__].kind)
    assert in_state(verdict, FAIL) - BY_CHANCE.get(lie, set()) == LIES[lie], verdict.reasons
    assert_the_rules_say_the_same(changed, verdict, ground, tmp_path / "own")


@pytest.mark.parametrize("lie", UNTOLD, ids=lambda lie: lie.__name__)
def test_what_is_left_out_makes_nothing_valid(
    lie: Callable[[Draft, Any], None], draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    verdict, changed = told(lie, draft, ground, tmp_path)
    assert (verdict.state, in_state(verdict, UNKNOWN)) == (CANNOT_TELL, UNTOLD[lie]), verdict.reasons
    assert_the_rules_say_the_same(changed, verdict, ground, tmp_path / "own")


def test_a_team_of_four_is_told_that_it_is_four(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    verdict, _ = told(team_of_four, draft, ground, tmp_path)
    assert verdict.reasons == ["rule-team: Blue: 4 members; wanted: 1 to 3 members in team.yaml"]


# Lies of form: contents that our own programs would not write


def edited(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


TIME = re.compile(r'"elapsed_s": [\d.]+')
IDS = re.compile(r'"token_ids": \[[\d, ]+\]')
MOMENT = re.compile(r'"at_s": [\d.e-]+')

FORMS: dict[str, tuple[str, Callable[[str], str], str]] = {
    "not a number": ("manifest", lambda text: TIME.sub('"elapsed_s": NaN', text), "manifest"),
    "infinity": ("manifest", lambda text: TIME.sub('"elapsed_s": -Infinity', text), "manifest"),
    "beyond every float": (
        "manifest",
        lambda text: TIME.sub('"elapsed_s": 1e999', text),
        "manifest",
    ),
    "a number of many digits": ("manifest", edited('"rows": 6', f'"rows": {"9" * 5000}'), "manifest"),
    "a number beyond 64 bits": ("manifest", edited('"rows": 6', f'"rows": {2**64}'), "manifest"),
    "nested without end": ("manifest", lambda text: "[" * 200_000, "manifest"),
    "nested within": ("manifest", edited('"state"', f'"x": {"[" * 5000}{"]" * 5000}, "state"'), "manifest"),
    "a key twice": ("manifest", edited('"state"', '"state": "failed", "state"'), "manifest"),
    "half a character": ("manifest", edited('"dtype": "float32"', '"dtype": "\\ud800"'), "manifest"),
    "a text for a number": (
        "manifest",
        lambda text: TIME.sub('"elapsed_s": "1"', text),
        "manifest",
    ),
    "true for a number": ("manifest", edited('"rows": 6', '"rows": true'), "manifest"),
    "no timeline": ("manifest", edited('"timeline_s"', '"time_line"'), "manifest"),
    "an unfinished run": ("manifest", edited('"state": "finished"', '"state": "failed"'), "manifest"),
    "no time zone": ("manifest", lambda text: text.replace("+00:00", ""), "manifest"),
    "not an object": ("manifest", lambda text: "[]", "manifest"),
    "not JSON": ("manifest", lambda text: text[:-10], "manifest"),
    "no text in a list": ("outputs", edited('[{"generated_text"', '{"generated_text"'), "form"),
    "another key": ("outputs", edited('"generated_text"', '"text"'), "form"),
    "one key more": ("outputs", edited('"token_ids"', '"prompt": "x", "token_ids"'), "form"),
    "two texts": ("outputs", edited('[{"generated_text": "', '[{"generated_text": "x"}, {"generated_text": "'), "form"),
    "text for ids": (
        "outputs",
        lambda text: IDS.sub('"token_ids": "1"', text, 1),
        "form",
    ),
    "an index that is none": ("outputs", lambda text: re.sub(r'"index": \d', '"index": -1', text, count=1), "form"),
    "no time but a word": (
        "outputs",
        lambda text: MOMENT.sub('"at_s": "soon"', text, 1),
        "form",
    ),
    "a line without end": ("outputs", lambda text: text[:-1], "form"),
    "half a line": ("outputs", lambda text: text[:-30], "form"),
    "an empty line": ("outputs", lambda text: text + "\n", "form"),
}


@pytest.mark.parametrize("case", FORMS)
def test_what_cannot_be_read_is_not_guessed_at(case: str, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    name, change, check = FORMS[case]
    path = {"manifest": "run/manifest.json", "outputs": "run/outputs.jsonl"}[name]
    content = change(draft.contents()[path].decode()).encode()
    verdict = verified(draft.pack(tmp_path, **{path: content}), ground)
    assert (verdict.state, in_state(verdict, FAIL)) == (INVALID, {check}), verdict.reasons


def test_a_future_schema_is_not_judged(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    newer = draft.copy()
    newer.submission["schema"] = 2
    verdict = verified(newer.pack(tmp_path / "submission"), ground)
    assert (verdict.state, in_state(verdict, UNKNOWN)) == (CANNOT_TELL, {"submission"})
    newer = draft.copy()
    newer.manifest["schema"] = "phi3-offline-pipeline/run/2"
    verdict = verified(newer.pack(tmp_path / "run"), ground)
    assert (verdict.state, in_state(verdict, UNKNOWN)) == (CANNOT_TELL, {"manifest"})


@pytest.mark.parametrize("wrong", [{"schema": "1"}, {"team": None}, {"commit": "main"}, {"files": {"a": "1"}}])
def test_a_submission_that_does_not_say_whose_it_is(
    wrong: dict[str, Any], draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    content = json.dumps({**draft.submission, **wrong}).encode()
    verdict = verified(draft.pack(tmp_path, **{"submission.json": content}), ground)
    state = UNKNOWN if "schema" in wrong else FAIL
    assert in_state(verdict, state) == {"submission"}, verdict.reasons


# The audit of the audit

CHECKS = ("answer", "provenance", "board", "timing", "engine", "device")
OF_A_SUBMISSION = (
    *(f"checks/{name}_checks" for name in CHECKS),
    "checks/read_submitted",
    "verify/packed_checks",
    "verify/stages",
)
"""Modules with checks that have a name of their own."""


def test_every_check_catches_a_lie(ground: Ground, tmp_path: Path) -> None:
    """But for those of running again (test_rerun.py), the archive (test_unpack.py), and what people decide."""
    good = verify.verify(ground.light, ground.light_organiser, out=tmp_path)
    ids = {each.id for each in good.checks if each.state != HUMAN}
    assert len(ids) > 40
    caught = set().union(*LIES.values(), *UNTOLD.values(), {check for _, _, check in FORMS.values()})
    caught |= set().union(*CAUGHT_BY.values())
    assert ids == caught | {"unpack", "submission"}
    written = r'(?:decided|unknown|CheckResult)\(\s*"([a-z][\w-]*)"'
    modules = [paths.ROOT / "pipeline/contest" / f"{name}.py" for name in OF_A_SUBMISSION]
    in_source = {name for path in modules for name in re.findall(written, path.read_text(encoding="utf-8"))}
    assert in_source == {name for name in ids if not name.startswith("rule-")} - {"submission", "manifest"}
