"""The contest's rules, a row each in `configs/rules.yaml`, and how a run stands to them.

Whoever asks gets one of four states. `ok` is only what a check has seen or the team has declared; what could not be
seen is `unknown`, and never taken for good; what only people can judge is `human`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal

from pydantic import model_validator

from pipeline import paths, schemas, settings
from pipeline.check import FAIL, HUMAN, OK, UNKNOWN, WARN, CheckResult, Kind, State
from pipeline.contest.checks import by_id
from pipeline.contest.numbers import Contest
from pipeline.contest.rules import run_rules, source_rules
from pipeline.contest.rules.evidence import Evidence, decide, unknown
from pipeline.table import folded, painted, terminal_width

Check = Callable[[Evidence, Contest], CheckResult]
"""A check of one rule; its result has no id until the rule adds its own."""

OF_A_RUN: dict[str, Check] = {
    "device": run_rules.device,
    "jetpack": run_rules.jetpack,
    "power_mode": run_rules.power_mode,
    "framework": run_rules.framework,
    "arguments": run_rules.arguments,
    "network": run_rules.network,
}
"""Checks by name that only rules need, and that need a run."""

OF_A_SOURCE: dict[str, Check] = {
    "script": source_rules.script,
    "image": source_rules.image,
    "method": source_rules.method,
    "no_secrets": source_rules.no_secrets,
    "third_party": source_rules.third_party_cited,
    "team": source_rules.team,
}

OF_VERIFICATION = frozenset({*by_id.CHECKS, *by_id.READ})
"""Checks by name that decide about a run wherever it is verified."""

NO_RUN = "no run yet"


class Rule(schemas.Strict):
    id: str
    text: str
    by: Literal["check", "declaration", "human"]
    checks: tuple[str, ...] = ()
    """Names of the checks: of OF_A_RUN, OF_A_SOURCE or OF_VERIFICATION. The worst result among them is the rule's."""
    kind: Kind | None = None
    """Kind of failure, which decides the exit status; None if people judge the rule."""
    contest: bool = False
    """Whether the rule needs the contest's board, model or people; a rehearsal need not meet it."""
    remedy: str

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        if (self.by == "check") != bool(self.checks) or (self.by == "human") != (self.kind is None):
            raise ValueError(f"{self.id}: a check has a name, and what is not a human's has a kind")
        if nobodys := set(self.checks) - OF_A_RUN.keys() - OF_A_SOURCE.keys() - OF_VERIFICATION:
            raise ValueError(f"{self.id}: there is no check named {min(nobodys)}")
        return self

    @property
    def verified(self) -> bool:
        """Whether checks of verification decide it, so that a verdict has it already."""
        return bool(self.checks) and OF_VERIFICATION.issuperset(self.checks)

    @property
    def of_a_run(self) -> bool:
        return bool(set(self.checks) & (OF_A_RUN.keys() | OF_VERIFICATION))


class Rules(schemas.Strict):
    """The content of `configs/rules.yaml`."""

    version: int
    """Of the rules and of the checks that decide them."""
    source: str
    contest: Contest
    rules: tuple[Rule, ...]


def load() -> Rules:
    """Read `configs/rules.yaml`. Raises IntegrityError (M101)."""
    return settings.load(paths.CONFIGS / "rules.yaml", Rules)


def judge(evidence: Evidence, rules: Rules | None = None) -> list[CheckResult]:
    """Judge every rule, in the file's order; without `rules`, those of `configs/rules.yaml`."""
    rules = rules or load()
    return [_result(rule, evidence, rules.contest) for rule in rules.rules]


def refused(judged: Sequence[CheckResult], rehearsal: bool) -> list[CheckResult]:
    """The failed rules that forbid packing; a rehearsal is excused from those that are the contest's own."""
    return [each for each in judged if each.state == FAIL and not (rehearsal and is_waived(each))]


def as_json(judged: Sequence[CheckResult]) -> list[dict[str, Any]]:
    by_id = {rule.id: rule for rule in load().rules}
    return [
        {
            "id": each.id,
            "text": by_id[each.id].text,
            "by": by_id[each.id].by,
            "state": each.state,
            "found": each.found,
            "wanted": each.expected,
            "kind": each.kind,
            "contest": by_id[each.id].contest,
            "remedy": each.fix,
        }
        for each in judged
    ]


def table(judged: Sequence[CheckResult], rehearsal: bool = False, width: int = 110) -> str:
    """The results as text, a line a rule; one that failed or is unknown adds what it expects and what to do, unless a
    rehearsal is excused from it."""
    width = min(width, terminal_width() or width)
    wide = max(len(each.id) for each in judged)
    margin = " " * (wide + 12 if width - wide > 50 else 10)
    lines = []
    for each in judged:
        words = each.found
        waived = rehearsal and is_waived(each)
        state = "-" if waived else _SHOWN[each.state]
        first, *more = folded(words, width, f"  {state:<8}{each.id:<{wide}}  ", len(margin))
        lines += [first.replace(state, painted(state, _COLOURS.get(state)), 1), *more]
        if each.state in {FAIL, UNKNOWN} and each.found != NO_RUN and not waived:
            if each.expected:
                lines += folded(each.expected, width, f"{margin}wanted: ", len(margin))
            lines += folded(each.fix, width, f"{margin}do: ", len(margin))
    return "\n".join([*lines, "", f"  {counts(judged, rehearsal)}"])


def is_waived(each: CheckResult) -> bool:
    """Whether a rehearsal is excused from this rule, which is not met."""
    return each.state in {FAIL, UNKNOWN} and each.id in _of_the_contest()


@cache
def _of_the_contest() -> frozenset[str]:
    return frozenset(rule.id for rule in load().rules if rule.contest)


def counts(judged: Sequence[CheckResult], rehearsal: bool = False) -> str:
    """The number of rules in each state, such as `20 ok, 1 failed, 2 unknown, 8 for people`."""
    applicable = [each for each in judged if not (rehearsal and is_waived(each))]
    parts = [f"{sum(each.state == state for each in applicable)} {words}" for state, words in _COUNTED.items()]
    return ", ".join([*parts, f"{len(judged) - len(applicable)} not checked"] if rehearsal else parts)


_SHOWN: dict[State, str] = {OK: "ok", FAIL: "FAIL", UNKNOWN: "unknown", HUMAN: "human"}
_COLOURS = {"ok": "green", "FAIL": "red", "unknown": "yellow"}
_COUNTED: dict[State, str] = {OK: "ok", FAIL: "failed", UNKNOWN: "unknown", HUMAN: "for people"}


def _result(rule: Rule, evidence: Evidence, contest: Contest) -> CheckResult:
    result = _decided(rule, evidence, contest)
    return replace(result, id=rule.id, expected=result.expected or rule.text, fix=rule.remedy, kind=rule.kind)


def _decided(rule: Rule, evidence: Evidence, contest: Contest) -> CheckResult:
    if rule.by == "human":
        return CheckResult("", HUMAN, rule.text, rule.text)
    if rule.by == "declaration":
        if evidence.team is None:
            return unknown("there is no team to declare it")
        declared = evidence.team.declarations.get(rule.id) is True
        return decide(declared, "declared by the team" if declared else "not declared", rule.text)
    if rule.of_a_run and evidence.manifest is None:
        return unknown(NO_RUN)
    results = (_checked(name, rule, evidence, contest) for name in rule.checks)
    return max(results, key=lambda each: _WORSE.index(each.state))  # of equals, the first


_WORSE: tuple[State, ...] = (OK, WARN, HUMAN, UNKNOWN, FAIL)


def _checked(name: str, rule: Rule, evidence: Evidence, contest: Contest) -> CheckResult:
    if name in OF_VERIFICATION:
        return evidence.checked(name, of_the_contest=rule.contest)
    return (OF_A_RUN | OF_A_SOURCE)[name](evidence, contest)
