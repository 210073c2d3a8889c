"""The contest's rules, on the audit's ground: a real run, changed as a liar would; unknown is never ok."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.audited import Ground, evidence_of
from support.drafts_of_submissions import Draft
from support.forgeries import silent_answers, throttled

from pipeline import paths, settings
from pipeline.check import FAIL, HUMAN, OK, UNKNOWN, CheckResult
from pipeline.contest.checks.facts import Facts
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.submitted import Manifest
from pipeline.contest.rules import evidence as gathering
from pipeline.contest.rules import rules, run_rules, source_rules
from pipeline.contest.rules.evidence import Evidence
from pipeline.contest.team import Team
from pipeline.errors import IntegrityError
from pipeline.model import loader

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread")]

RULES = rules.load()
DECLARED = [rule.id for rule in RULES.rules if rule.by == "declaration"]
Change = Callable[[Draft], object]
Look = Callable[[Evidence], Evidence]


@pytest.fixture(scope="module")
def draft(ground: Ground) -> Draft:
    return Draft.of(ground.light)


@pytest.fixture(scope="module")
def good(draft: Draft, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return evidence_of(draft, ground, tmp_path_factory.mktemp("good"))


def judged(evidence: Evidence) -> dict[str, CheckResult]:
    return {each.id: each for each in rules.judge(evidence, RULES)}


def put(path: str, value: object) -> Change:
    """One value of the manifest set, or taken out where the value is `...`."""

    def change(draft: Draft) -> None:
        *above, last = path.split(".")
        at = draft.manifest
        for key in above:
            at = at[key]
        if value is ...:
            del at[last]
        else:
            at[last] = value

    return change


def less(path: str, by: float) -> Change:
    """A number of the manifest, less than it was."""

    def change(draft: Draft) -> None:
        *above, last = path.split(".")
        at = draft.manifest
        for key in above:
            at = at[key]
        at[last] -= by

    return change


def row(number: int, /, **changes: object) -> Change:
    return lambda draft: draft.rows[number].update(changes)


def fewer_rows(kept: int) -> Change:
    return lambda draft: draft.rows.__delitem__(slice(kept, None))


def with_source(name: str, text: str | None) -> Look:
    def look(seen: Evidence) -> Evidence:
        kept = {path: content for path, content in seen.source.items() if path != name}
        return dataclasses.replace(seen, source=kept if text is None else {**kept, name: text.encode()})

    return look


def with_team(**changes: object) -> Look:
    return lambda seen: dataclasses.replace(seen, team=dataclasses.replace(seen.team, **changes))


def seen_by(**changes: object) -> Look:
    """With another organiser's side."""

    def look(seen: Evidence) -> Evidence:
        organiser = Organiser(checkout=paths.ROOT)
        for name, value in changes.items():
            setattr(organiser, name, value)
        return dataclasses.replace(seen, facts=Facts(seen.facts.submitted, organiser))

    return look


def test_a_good_submission_is_ok_by_every_rule_that_no_human_decides(good: Evidence) -> None:
    found = rules.judge(good)
    assert {each.id: each.found for each in found if each.state not in (OK, HUMAN)} == {}
    assert rules.refused(found, rehearsal=False) == []
    assert sum(each.state == OK for each in found) > 20


SCRIPT = (paths.ROOT / "test_script.py").read_text()
ANSWERING = re.search(r"^outs = .*\n", SCRIPT, re.MULTILINE)[0]
LATE = SCRIPT.replace(ANSWERING, "").replace("end = time.time()\n", "end = time.time()\n" + ANSWERING)
SPOILED: dict[str, tuple[Change, str, str]] = {
    "another machine": (put("board.before.board.is_jetson", False), "device", FAIL),
    "another module": (put("board.before.board.module", "p3701-0005"), "device", FAIL),
    "an unseen module": (put("board.before.board.module", None), "device", UNKNOWN),
    "another JetPack": (put("board.before.board.l4t", "36.4.3"), "jetpack", FAIL),
    "a release of no JetPack": (put("board.before.board.l4t", "40.1.0"), "jetpack", FAIL),
    "an unseen release": (put("board.before.board.l4t", None), "jetpack", UNKNOWN),
    "an unseen power mode": (put("board.after.mode", None), "power-mode", UNKNOWN),
    "a changed power mode": (put("board.after.mode", {"id": 3, "name": "50W"}), "power-mode", FAIL),
    "an old torch": (put("environment.packages.torch", "1.13.1"), "framework", FAIL),
    "torch 20": (put("environment.packages.torch", "20.1"), "framework", FAIL),
    "no torch": (put("environment.packages.torch", None), "framework", UNKNOWN),
    "another model": (put("model.lock_sha256", "e" * 64), "model", FAIL),
    "the stand-in": (put("model.name", "standin"), "model", FAIL),
    "a model without a lock": (put("model.lock_sha256", ...), "model", UNKNOWN),
    "weights of another lock": (put("weights.lock_sha256", "e" * 64), "weights", FAIL),
    "no weights": (put("weights.tensors", 0), "weights", FAIL),
    "weights not looked at": (put("weights", ...), "weights", UNKNOWN),
    "a flipped bit": (put("weights.files", {"model.safetensors": "e" * 64}), "weights", FAIL),
    "half precision": (put("dtype", "float16"), "precision", FAIL),
    "a tensor fewer": (less("weights.tensors", 1), "precision", FAIL),
    "a byte fewer": (less("weights.size_bytes", 1), "precision", FAIL),
    "rounded": (put("weights.rounded", True), "precision", FAIL),
    "unknown bytes": (put("weights.size_bytes", None), "precision", UNKNOWN),
    "another data set": (put("dataset.sha256", "e" * 64), "dataset", FAIL),
    "a set without a hash": (put("dataset.sha256", None), "dataset", UNKNOWN),
    "a row left out": (fewer_rows(5), "whole-set", FAIL),
    "a row twice": (row(3, index=2), "whole-set", FAIL),
    "an unfinished set": (fewer_rows(5), "sequence-length", FAIL),
    "unknown rows": (put("dataset.rows", None), "sequence-length", UNKNOWN),
    "two outputs": (row(0, output=[{"generated_text": "a"}, {"generated_text": "b"}]), "output-form", FAIL),
    "another key": (row(0, output=[{"generated_text": "a", "score": 1}]), "output-form", FAIL),
    "no text": (row(0, output=[{"generated_text": None}]), "output-form", FAIL),
    "no tokens": (row(0, token_ids="4874"), "output-form", FAIL),
    "no outputs": (fewer_rows(0), "output-form", FAIL),
    "fewer tokens at most": (put("arguments.max_new_tokens", 20), "arguments", FAIL),
    "sampling": (put("arguments.do_sample", True), "arguments", FAIL),
    "a number for no": (put("arguments.do_sample", 0), "arguments", FAIL),
    "unknown arguments": (put("arguments", ...), "arguments", UNKNOWN),
    "less accurate": (lambda draft: silent_answers(draft, None), "accuracy", FAIL),
    "a claimed time": (put("elapsed_s", 1e-3), "timed-section", FAIL),
    "sections longer than the recording": (put("telemetry.elapsed_s", 1e-3), "timed-section", FAIL),
    "passes longer than the section": (put("engine.stats.passes_s", 1e6), "timed-section", FAIL),
    "gone on with": (put("resumed", [{"kept": 3}]), "timed-section", FAIL),
    "no time": (put("phases_s.timed", []), "timed-section", FAIL),
    "a negative time": (put("phases_s.timed", [-1.0, -1.0]), "timed-section", FAIL),
    "no second clock": (put("telemetry", ...), "timed-section", FAIL),
    "a throttled board": (lambda draft: throttled(draft, None), "valid-time", FAIL),
    "no verdict": (put("verdict", None), "valid-time", UNKNOWN),
    "bytes over the network": (
        put("network", {"interfaces": ["eth0"], "received_bytes": 9, "sent_bytes": 0}),
        "network",
        FAIL,
    ),
    "network not looked at": (put("network", None), "network", UNKNOWN),
    "a changed tree": (put("code.dirty", True), "source", FAIL),
}  # fmt: skip
"""What the run says or holds, the rule that sees it, and its state then."""

LOOKED_AT: dict[str, tuple[Look, str, str]] = {
    "a set of one's own": (seen_by(), "dataset", UNKNOWN),
    "a set that nobody pinned": (seen_by(), "whole-set", UNKNOWN),
    "a model that nobody has": (seen_by(), "model", UNKNOWN),
    "no reference": (seen_by(), "accuracy", UNKNOWN),
    "no script": (with_source("test_script.py", None), "script", FAIL),
    "data loaded before the clock": (
        with_source("test_script.py", SCRIPT.replace("start = time", "load_dataset(data_file)\nstart = time")),
        "script",
        FAIL,
    ),
    "answers after the clock": (with_source("test_script.py", LATE), "script", FAIL),
    "fixed paths": (with_source("test_script.py", SCRIPT.replace("sys.argv", "sys.path")), "script", FAIL),
    "a broken script": (with_source("test_script.py", "start ="), "script", FAIL),
    "a script without a clock": (with_source("test_script.py", "print(1)"), "script", FAIL),
    "no image": (with_team(image=None), "image", FAIL),
    "an image without a digest": (
        lambda seen: dataclasses.replace(with_team(image="example.org/blue")(seen), image_digest=None),
        "image",
        UNKNOWN,
    ),
    "no document": (with_source("docs/method.md", None), "method", FAIL),
    "a document without words": (with_source("docs/method.md", "soon"), "method", FAIL),
    "a token in the source": (with_source("pipeline/x.py", "t = 'hf_" + "a" * 34 + "'"), "no-secrets", FAIL),
    "a library that is not cited": (with_source("pipeline/x.py", "import vllm"), "third-party", FAIL),
    "no citations": (with_source("THIRD_PARTY.yaml", None), "third-party", FAIL),
    "broken citations": (with_source("THIRD_PARTY.yaml", "code: 1"), "third-party", FAIL),
    "one member in two alphabets": (with_team(members=("Kim", "K\u0456m")), "team", HUMAN),
    "a team of four": (with_team(members=("a", "b", "c", "d")), "team", FAIL),
    "the example's team": (lambda seen: dataclasses.replace(seen, team=None), "team", FAIL),
    **{
        f"{each} not declared": (with_team(declarations={**dict.fromkeys(DECLARED, True), each: False}), each, FAIL)
        for each in DECLARED
    },
    "nothing declared": (with_team(declarations={}), DECLARED[0], FAIL),
}  # fmt: skip
"""The same for what is not the run's: source, team, what the organiser has."""


@pytest.mark.parametrize("name", SPOILED)
def test_each_check_sees_what_is_wrong_or_cannot_be_seen(
    name: str, draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    spoil, rule, state = SPOILED[name]
    changed = draft.copy()
    spoil(changed)
    found = judged(evidence_of(changed, ground, tmp_path))[rule]
    assert found.state == state, found
    assert found.found


@pytest.mark.parametrize("name", LOOKED_AT)
def test_each_check_sees_what_is_wrong_with_source_team_and_organiser(name: str, good: Evidence) -> None:
    look, rule, state = LOOKED_AT[name]
    found = judged(look(good))[rule]
    assert found.state == state, found
    assert found.found


def test_a_source_in_doubt_says_why(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    found = judged(evidence_of(draft, ground, tmp_path, doubt="it was changed"))["source"]
    assert (found.state, found.found) == (FAIL, "it was changed")


def test_every_check_is_seen_to_fail_or_not_to_know() -> None:
    checked = {rule.id for rule in RULES.rules if rule.by != "human"}
    every = [*SPOILED.values(), *LOOKED_AT.values()]
    assert {rule for _, rule, _ in every} >= checked
    assert checked - {rule for _, rule, state in every if state == FAIL} == set()


ALL_OK = {rule.id for rule in RULES.rules if rule.by != "human"}


@pytest.mark.parametrize("key", [name for name in Manifest.model_fields if name != "state"])
def test_a_manifest_of_other_types_never_makes_a_check_pass_or_break(
    key: str, draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    for number, value in enumerate((None, [], {}, "text", {"name": []})):
        changed = draft.copy()
        changed.manifest[key] = value
        fine = {name for name, each in judged(evidence_of(changed, ground, tmp_path / str(number))).items()
                if each.state == OK}  # fmt: skip
        assert fine < ALL_OK or (key, value) == ("device", "text"), value  # which may be any text


def test_without_a_run_nothing_about_runs_is_ok(good: Evidence) -> None:
    found = judged(dataclasses.replace(good, manifest=None, read={}, facts=None))
    of_a_run = [found[rule.id].state for rule in RULES.rules if rule.of_a_run]
    assert len(of_a_run) > 5
    assert set(of_a_run) == {UNKNOWN}


def test_a_part_of_the_set_is_enough_for_a_rehearsal_and_never_the_whole(
    draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    cut = draft.copy()
    cut.rows, cut.manifest["request"]["limit"] = [row for row in cut.rows if row["index"] < 3], 3
    cut.manifest["dataset"]["rows"] = 3
    found = judged(evidence_of(cut, ground, tmp_path / "rehearsal", rehearsal=True))
    assert (found["whole-set"].state, found["sequence-length"].state) == (FAIL, OK)
    found = judged(evidence_of(cut, ground, tmp_path / "contest"))
    assert (found["whole-set"].state, found["sequence-length"].state) == (FAIL, FAIL)


def test_a_pinned_set_is_held_against_its_pin_where_the_file_is_not_here(
    draft: Draft, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Organiser(checkout=paths.ROOT)
    monkeypatch.setattr(nothing, "_known_data", {"obqa": None})
    public = settings.dataset("obqa")
    for sha256, state in ((public.sha256, OK), ("e" * 64, FAIL)):
        changed = draft.copy()
        changed.manifest["dataset"] |= {"name": "obqa", "sha256": sha256}
        seen = evidence_of(changed, ground, tmp_path / state)
        found = judged(dataclasses.replace(seen, facts=Facts(seen.facts.submitted, nothing)))
        assert (found["dataset"].state, found["whole-set"].state) == (state, FAIL)  # 6 rows of 30


def test_a_network_that_carried_nothing_is_none(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    quiet = draft.copy()
    quiet.manifest["network"] = {"interfaces": ["eth0"], "received_bytes": 0, "sent_bytes": 0}
    assert judged(evidence_of(quiet, ground, tmp_path))["network"].state == OK


def test_a_packed_image_needs_no_address(good: Evidence) -> None:
    assert judged(dataclasses.replace(with_team(image=None)(good), image_packed=True))["image"].state == OK


def test_a_rehearsal_is_not_refused_for_what_only_the_contest_asks(
    draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    elsewhere = draft.copy()
    for moment in elsewhere.manifest["board"].values():
        moment["board"]["is_jetson"] = False
    elsewhere.manifest["verdict"]["state"] = "VALID with notes"
    seen = dataclasses.replace(evidence_of(elsewhere, ground, tmp_path, rehearsal=True), team=None)
    found = rules.judge(seen)
    assert {each.id for each in rules.refused(found, rehearsal=False)} >= {"device", "team"}
    assert rules.refused(found, rehearsal=True) == []
    worse = evidence_of(elsewhere, ground, tmp_path / "worse", rehearsal=True, doubt="changed")
    assert [each.id for each in rules.refused(rules.judge(worse), rehearsal=True)] == ["source"]


def test_every_row_is_whole() -> None:
    ids = [rule.id for rule in RULES.rules]
    assert len(set(ids)) == len(ids) > 30
    own = rules.OF_A_RUN.keys() | rules.OF_A_SOURCE.keys()
    assert {name for rule in RULES.rules for name in rule.checks} - rules.OF_VERIFICATION == own
    assert not own & rules.OF_VERIFICATION, "one name, two checks"
    for rule in RULES.rules:
        assert len(rule.text) > 15, rule.id
        assert rule.remedy, rule.id
        assert rule.verified or not rules.OF_VERIFICATION & set(rule.checks), "half of it decided by a verdict"
    defined = {name for module in (run_rules, source_rules) for name in vars(module) if callable(vars(module)[name])}
    assert {check.__name__ for check in (rules.OF_A_RUN | rules.OF_A_SOURCE).values()} <= defined


def test_rules_and_the_checks_that_they_need_import_no_torch() -> None:
    """They are asked for often, and torch takes seconds."""
    code = "import sys, pipeline.contest.rules.rules; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_example_declares_every_declaration_and_none_of_them() -> None:
    example = settings.load(paths.CONFIGS / "team.example.yaml", Team)
    assert set(example.declarations) == set(DECLARED)
    assert not any(example.declarations.values())


@pytest.mark.parametrize("tied", [False, True])
def test_the_weights_of_the_contests_model_are_counted_from_its_shape(tied: bool) -> None:
    shape = dataclasses.replace(settings.model(RULES.contest.model).shape, tied=tied)
    sizes = loader.expected_tensors(shape)
    assert len(sizes) == shape.tensors == 243 - tied
    assert sum(math.prod(size) for size in sizes.values()) == shape.parameters
    assert tied or 2 * shape.parameters == 27920476160


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(checks=["no_such_check"]),
        lambda row: row.update(checks=[]),
        lambda row: row.update(by="human"),
        lambda row: row.update(kind=None),
        lambda row: row.update(kind="taste"),
        lambda row: row.update(severity=1),
    ],
)
def test_a_row_that_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]
) -> None:
    content = json.loads(RULES.model_dump_json())
    change(content["rules"][0])
    (tmp_path / "rules.yaml").write_text(json.dumps(content))
    monkeypatch.setattr(paths, "CONFIGS", tmp_path)
    with pytest.raises(IntegrityError, match="configuration") as caught:
        rules.load()
    assert caught.value.code == "M101"


def test_the_organisers_script_calls_with_the_runs_own_arguments() -> None:
    assert gathering.arguments()["max_new_tokens"] == 500


def test_the_pinned_lock_of_the_stand_in_is_the_one_that_set_up_writes(standin: Path) -> None:
    assert Organiser().model("standin").lock_sha256 == json.loads((standin / "lock.json").read_text())["root"]


def test_the_table_says_what_to_do(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    changed = draft.copy()
    for moment in changed.manifest["board"].values():
        moment["board"]["l4t"] = "36.4.3"
    changed.manifest["verdict"]["state"] = "VALID with notes"
    text = rules.table(rules.judge(evidence_of(changed, ground, tmp_path)))
    assert "FAIL    jetpack" in text
    assert "wanted: JetPack 6.0" in text
    assert "do: flash the board" in text
    assert "1 failed" in text
    assert all(len(line) <= 110 for line in text.splitlines())
