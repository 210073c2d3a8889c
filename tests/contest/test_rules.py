"""The contest's rules: each has a row, each check says ok, fail or unknown where it should; unknown is never ok."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import paths, settings
from pipeline.check import FAIL, HUMAN, OK, UNKNOWN, CheckResult
from pipeline.contest.rules import evidence as gathering
from pipeline.contest.rules import rules, run_rules, source_rules
from pipeline.contest.rules.evidence import Accuracy, Evidence, Pins
from pipeline.contest.team import Team, TeamWords
from pipeline.errors import IntegrityError

RULES = rules.load()
ROWS = 30
DECLARED = [rule.id for rule in RULES.rules if rule.by == "declaration"]
STATE = {
    "board": {"is_jetson": True, "l4t": "36.3.0", "jetpack": "6.0", "module": "p3701-0004", "in_container": True},
    "mode": {"name": "MAXN", "number": 0},
    "clocks_locked": True,
}
MANIFEST: dict[str, Any] = {
    "state": "finished",
    "request": {"limit": None},
    "arguments": {
        "max_new_tokens": 500,
        "return_full_text": False,
        "do_sample": False,
        "temperature": 0.0,
        "batch_size": None,
    },
    "dtype": "bfloat16",
    "model": {"name": "phi3-medium", "lock_sha256": "a" * 64},
    "dataset": {"name": "obqa", "sha256": "b" * 64, "rows": ROWS},
    "code": {"commit": "c" * 40, "dirty": False},
    "environment": {"packages": {"torch": "2.4.0a0+f70bd71a48.nv24.6"}},
    "phases_s": {"timed": [20.0, 19.0, 21.0]},
    "elapsed_s": 20.0,
    "engine": {"name": "ours", "stats": {"passes_s": 18.9, "failed_allocations": 0}},
    "weights": {"lock_sha256": "a" * 64, "tensors": 243, "size_bytes": 27920476160, "rounded": False},
    "peak_memory": {"host_bytes": 29_000_000_000, "gpu_bytes": None},
    "board": {"before": STATE, "after": copy.deepcopy(STATE)},
    "telemetry": {"elapsed_s": 60.5},
    "network": {"interfaces": [], "received_bytes": 0, "sent_bytes": 0},
    "verdict": {"state": "VALID", "counts": True, "reasons": [], "notes": []},
}
GOOD = Evidence(
    manifest=MANIFEST,
    rows=tuple({"index": i, "output": [{"generated_text": " yes"}], "token_ids": [4874, 32007]} for i in range(ROWS)),
    source={
        "test_script.py": (paths.ROOT / "test_script.py").read_bytes(),
        "pipeline/text_generation.py": b"import torch",
        "THIRD_PARTY.yaml": b"code: []\nideas: []\nmodels: []\ndata: []\npackages:\n"
        b"  - {name: torch, licence: BSD-3-Clause, source: x, use: x, imports: [torch]}\n",
        "docs/method.md": b"word " * 200,
    },
    team=TeamWords(
        name="Blue",
        members=("Kim", "Lee"),
        image="example.org/blue@sha256:" + "d" * 64,
        declarations=dict.fromkeys(DECLARED, True),
    ),
    accuracy=Accuracy("kept", "Kept: every output is the same."),
    pins=Pins(
        {"phi3-medium": "a" * 64},
        {"obqa": ("b" * 64, ROWS)},
        {"max_new_tokens": 500, "return_full_text": False, "do_sample": False, "temperature": 0.0},
    ),
)
"""A submission to the contest's rules."""


def judged(evidence: Evidence) -> dict[str, CheckResult]:
    return {each.id: each for each in rules.judge(evidence, RULES)}


def with_manifest(path: str, value: object) -> Evidence:
    """The good one with one value of its manifest set, or taken out where the value is `...`."""
    manifest = copy.deepcopy(MANIFEST)
    *above, last = path.split(".")
    at = manifest
    for key in above:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return dataclasses.replace(GOOD, manifest=manifest)


def row(number: int, /, **changes: object) -> Evidence:
    rows = [dict(each) for each in GOOD.rows]
    rows[number] |= changes
    return dataclasses.replace(GOOD, rows=tuple(rows))


def with_source(name: str, text: str | None) -> Evidence:
    kept = {path: content for path, content in GOOD.source.items() if path != name}
    return dataclasses.replace(GOOD, source=kept if text is None else {**kept, name: text.encode()})


def with_team(**changes: object) -> Evidence:
    return dataclasses.replace(GOOD, team=dataclasses.replace(GOOD.team, **changes))


def test_a_good_submission_is_ok_by_every_rule_that_no_human_decides() -> None:
    found = rules.judge(GOOD)
    assert {each.id: each.found for each in found if each.state not in (OK, HUMAN)} == {}
    assert rules.refused(found, rehearsal=False) == []
    assert sum(each.state == OK for each in found) > 20


SCRIPT = (paths.ROOT / "test_script.py").read_text()
ANSWERING = re.search(r"^outs = .*\n", SCRIPT, re.MULTILINE)[0]
LATE = SCRIPT.replace(ANSWERING, "").replace("end = time.time()\n", "end = time.time()\n" + ANSWERING)
SPOILED: dict[str, tuple[Evidence, str, str]] = {
    "another machine": (with_manifest("board.before.board.is_jetson", False), "device", FAIL),
    "another module": (with_manifest("board.before.board.module", "p3701-0005"), "device", FAIL),
    "an unseen module": (with_manifest("board.before.board.module", None), "device", UNKNOWN),
    "another JetPack": (with_manifest("board.before.board.l4t", "36.4.3"), "jetpack", FAIL),
    "a release of no JetPack": (with_manifest("board.before.board.l4t", "40.1.0"), "jetpack", FAIL),
    "an unseen release": (with_manifest("board.before.board.l4t", None), "jetpack", UNKNOWN),
    "an unseen power mode": (with_manifest("board.after.mode", None), "power-mode", UNKNOWN),
    "a changed power mode": (with_manifest("board.after.mode", {"name": "50W"}), "power-mode", FAIL),
    "an old torch": (with_manifest("environment.packages.torch", "1.13.1"), "framework", FAIL),
    "torch 20": (with_manifest("environment.packages.torch", "20.1"), "framework", FAIL),
    "no torch": (with_manifest("environment.packages.torch", None), "framework", UNKNOWN),
    "another model": (with_manifest("model.lock_sha256", "e" * 64), "model", FAIL),
    "a model without a lock": (with_manifest("model.lock_sha256", ...), "model", UNKNOWN),
    "weights of another lock": (with_manifest("weights.lock_sha256", "e" * 64), "weights", FAIL),
    "no weights": (with_manifest("weights.tensors", 0), "weights", FAIL),
    "weights not looked at": (with_manifest("weights", ...), "weights", UNKNOWN),
    "half precision": (with_manifest("dtype", "float16"), "precision", FAIL),
    "a tensor fewer": (with_manifest("weights.tensors", 242), "precision", FAIL),
    "quantised to a half": (with_manifest("weights.size_bytes", 13960238080), "precision", FAIL),
    "rounded": (with_manifest("weights.rounded", True), "precision", FAIL),
    "unknown bytes": (with_manifest("weights.size_bytes", None), "precision", UNKNOWN),
    "another data set": (with_manifest("dataset.sha256", "e" * 64), "dataset", FAIL),
    "a set of one's own": (with_manifest("dataset.name", "mine.jsonl"), "dataset", UNKNOWN),
    "a set without a hash": (with_manifest("dataset.sha256", None), "dataset", UNKNOWN),
    "a row left out": (dataclasses.replace(GOOD, rows=GOOD.rows[:-1]), "whole-set", FAIL),
    "a row twice": (row(3, index=2), "whole-set", FAIL),
    "an unfinished set": (dataclasses.replace(GOOD, rows=GOOD.rows[:-1]), "sequence-length", FAIL),
    "unknown memory": (with_manifest("peak_memory", ...), "sequence-length", UNKNOWN),
    "two outputs": (row(0, output=[{"generated_text": "a"}, {"generated_text": "b"}]), "output-form", FAIL),
    "another key": (row(0, output=[{"generated_text": "a", "score": 1}]), "output-form", FAIL),
    "no text": (row(0, output=[{"generated_text": None}]), "output-form", FAIL),
    "no tokens": (row(0, token_ids="4874"), "output-form", FAIL),
    "no outputs": (dataclasses.replace(GOOD, rows=()), "output-form", FAIL),
    "fewer tokens at most": (with_manifest("arguments.max_new_tokens", 20), "arguments", FAIL),
    "sampling": (with_manifest("arguments.do_sample", True), "arguments", FAIL),
    "a number for no": (with_manifest("arguments.do_sample", 0), "arguments", FAIL),
    "unknown arguments": (with_manifest("arguments", ...), "arguments", UNKNOWN),
    "less accurate": (dataclasses.replace(GOOD, accuracy=Accuracy("broken", "Broken.")), "accuracy", FAIL),
    "perhaps less accurate": (
        dataclasses.replace(GOOD, accuracy=Accuracy("cannot tell", "Cannot tell.")),
        "accuracy",
        UNKNOWN,
    ),
    "no reference": (dataclasses.replace(GOOD, accuracy=None), "accuracy", UNKNOWN),
    "a claimed time": (with_manifest("elapsed_s", 2.0), "timed-section", FAIL),
    "sections longer than the recording": (with_manifest("telemetry.elapsed_s", 30.0), "timed-section", FAIL),
    "passes longer than the section": (with_manifest("engine.stats.passes_s", 25.0), "timed-section", FAIL),
    "gone on with": (with_manifest("resumed", [{"kept": 3}]), "timed-section", FAIL),
    "no time": (with_manifest("phases_s.timed", []), "timed-section", UNKNOWN),
    "a negative time": (with_manifest("phases_s.timed", [-1.0]), "timed-section", UNKNOWN),
    "no second clock": (with_manifest("telemetry", ...), "timed-section", UNKNOWN),
    "a throttled board": (
        with_manifest("verdict", {"state": "INVALID", "reasons": ["throttled"], "notes": []}),
        "valid-time",
        FAIL,
    ),
    "no verdict": (with_manifest("verdict", None), "valid-time", UNKNOWN),
    "bytes over the network": (
        with_manifest("network", {"interfaces": ["eth0"], "received_bytes": 9, "sent_bytes": 0}),
        "network",
        FAIL,
    ),
    "network not looked at": (with_manifest("network", None), "network", UNKNOWN),
    "source in doubt": (dataclasses.replace(GOOD, source_doubt="changed"), "source", FAIL),
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
    "an image without a digest": (with_team(image="example.org/blue"), "image", UNKNOWN),
    "no document": (with_source("docs/method.md", None), "method", FAIL),
    "a document without words": (with_source("docs/method.md", "soon"), "method", FAIL),
    "a token in the source": (with_source("pipeline/x.py", "t = 'hf_" + "a" * 34 + "'"), "no-secrets", FAIL),
    "a library that is not cited": (with_source("pipeline/x.py", "import vllm"), "third-party", FAIL),
    "no citations": (with_source("THIRD_PARTY.yaml", None), "third-party", FAIL),
    "broken citations": (with_source("THIRD_PARTY.yaml", "code: 1"), "third-party", FAIL),
    "a team of four": (with_team(members=("a", "b", "c", "d")), "team", FAIL),
    "the example's team": (dataclasses.replace(GOOD, team=None), "team", FAIL),
    **{
        f"{each} not declared": (with_team(declarations={**dict.fromkeys(DECLARED, True), each: False}), each, FAIL)
        for each in DECLARED
    },
    "nothing declared": (with_team(declarations={}), DECLARED[0], FAIL),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_each_check_sees_what_is_wrong_or_cannot_be_seen(name: str) -> None:
    evidence, rule, state = SPOILED[name]
    found = judged(evidence)[rule]
    assert found.state == state, found
    assert found.found


def test_every_check_is_seen_to_fail_or_not_to_know() -> None:
    checked = {rule.id for rule in RULES.rules if rule.by != "human"}
    assert {rule for _, rule, _ in SPOILED.values()} >= checked
    may_fail = {rule for _, rule, state in SPOILED.values() if state == FAIL}
    assert checked - may_fail == set()


ALL_OK = {rule.id for rule in RULES.rules if rule.by != "human"}


@pytest.mark.parametrize("key", [key for key in MANIFEST if key not in ("state", "request", "code")])
@pytest.mark.parametrize("value", [None, [], {}, "text", {"name": []}])
def test_a_manifest_of_other_types_never_makes_a_check_pass_or_break(key: str, value: object) -> None:
    found = judged(with_manifest(key, value))
    fine = {name for name, each in found.items() if each.state == OK}
    assert fine <= ALL_OK
    assert (fine == ALL_OK) == (key == "engine")  # no rule looks at it


def test_without_a_run_nothing_about_runs_is_ok() -> None:
    found = judged(dataclasses.replace(GOOD, manifest=None, rows=()))
    of_a_run = [found[rule.id].state for rule in RULES.rules if rule.check in rules.OF_A_RUN]
    assert len(of_a_run) > 5
    assert set(of_a_run) == {UNKNOWN}


def test_a_lock_that_nobody_here_has_is_unknown_for_the_contests_model_and_fails_for_another() -> None:
    evidence = dataclasses.replace(GOOD, pins=dataclasses.replace(GOOD.pins, models={}))
    assert judged(evidence)["model"].state == UNKNOWN
    other = with_manifest("model.name", "standin")
    assert judged(dataclasses.replace(other, pins=evidence.pins))["model"].state == FAIL


def test_a_set_that_is_not_pinned_is_never_whole() -> None:
    evidence = dataclasses.replace(GOOD, pins=dataclasses.replace(GOOD.pins, datasets={}))
    assert judged(evidence)["whole-set"].state == UNKNOWN
    cut = with_manifest("request.limit", 30)
    assert judged(dataclasses.replace(cut, pins=evidence.pins))["whole-set"].state == FAIL


def test_a_network_that_carried_nothing_is_none() -> None:
    evidence = with_manifest("network", {"interfaces": ["eth0"], "received_bytes": 0, "sent_bytes": 0})
    assert judged(evidence)["network"].state == OK


def test_a_packed_image_needs_no_address() -> None:
    assert judged(dataclasses.replace(with_team(image=None), image_packed=True))["image"].state == OK


def test_a_rehearsal_is_not_refused_for_what_only_the_contest_asks() -> None:
    elsewhere = dataclasses.replace(with_manifest("board.before.board.is_jetson", False), team=None)
    found = rules.judge(elsewhere)
    assert {each.id for each in rules.refused(found, rehearsal=False)} >= {"device", "team"}
    assert rules.refused(found, rehearsal=True) == []
    worse = rules.judge(dataclasses.replace(elsewhere, source_doubt="changed"))
    assert [each.id for each in rules.refused(worse, rehearsal=True)] == ["source"]


def test_every_row_is_whole() -> None:
    ids = [rule.id for rule in RULES.rules]
    assert len(set(ids)) == len(ids) > 30
    assert {rule.check for rule in RULES.rules} - {None} == rules.OF_A_RUN.keys() | rules.OF_A_SOURCE.keys()
    for rule in RULES.rules:
        assert len(rule.text) > 15, rule.id
        assert rule.remedy, rule.id
    defined = {name for module in (run_rules, source_rules) for name in vars(module) if callable(vars(module)[name])}
    assert {check.__name__ for check in (rules.OF_A_RUN | rules.OF_A_SOURCE).values()} <= defined


def test_the_example_declares_every_declaration_and_none_of_them() -> None:
    example = settings.load(paths.CONFIGS / "team.example.yaml", Team)
    assert set(example.declarations) == set(DECLARED)
    assert not any(example.declarations.values())


def test_the_contests_numbers_are_those_of_its_model() -> None:
    shape = settings.model(RULES.contest.model).shape
    assert RULES.contest.weights_bytes == 2 * shape.parameters
    assert RULES.contest.tensors == 6 * shape.layers + 3


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(check="no_such_check"),
        lambda row: row.update(check=None),
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


def test_what_is_pinned_here() -> None:
    pins = gathering.pins()
    public = settings.dataset("obqa")
    assert pins.datasets["obqa"] == (public.sha256, 30)
    assert pins.arguments["max_new_tokens"] == 500


def test_the_pinned_lock_of_the_stand_in_is_the_one_that_set_up_writes(standin: Path) -> None:
    assert gathering.pins().models["standin"] == json.loads((standin / "lock.json").read_text())["root"]


def test_the_table_says_what_to_do() -> None:
    text = rules.table(rules.judge(with_manifest("board.before.board.l4t", "36.4.3")))
    assert "FAIL    jetpack" in text
    assert "wanted: JetPack 6.0" in text
    assert "do: flash the board" in text
    assert "1 failed" in text
    assert all(len(line) <= 110 for line in text.splitlines())
