"""Checks of what was answered: which rows, from which data, what the tokens say, how many answers are right.

Texts are held against their own token ids with the organiser's copy of the tokenizer; accuracy is counted anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import settings
from pipeline.accuracy import compare, metrics, stats
from pipeline.accuracy.scoring import NEEDS_CODE
from pipeline.check import ACCURACY, FORM, INTEGRITY, INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.checks.facts import Check, Facts
from pipeline.contest.checks.submitted import Submitted
from pipeline.record import promise
from pipeline.record.outputs import outputs_digest
from pipeline.schemas import DatasetConfig
from pipeline.text.detokenize import Form

SAME_SHARE = {"float32": 0.005, "bfloat16": 0.05}
"""Dtype to the share of rows that may differ between two runs by rounding alone, where they do not promise equal bytes:
docs/exactness.md counted none in float32; in bfloat16 1.8 % on one set, up to 4.5 % over 29 sets."""


BY_CHANCE = 0.001
"""How often honest runs in bfloat16 differ in more rows than chance is taken to explain. Of 30 rows that each differ in
5 % of runs, two or more do in almost every second pair: that is no lie, and no proof that there is none."""


@dataclass(frozen=True)
class Allowance:
    """How many rows of two runs' answers may differ, and the reason, in words."""

    share: float
    why: str

    def fine(self, differing: int, of: int) -> bool | None:
        """Whether so many of `of` rows are within the share; None where chance may have made them more than that."""
        return True if differing <= self.share * of else None if differing <= self._by_chance(of) else False

    def _by_chance(self, of: int) -> int:
        """In float32, where none was counted in thousands of rows, chance explains no more than the share."""
        exact = self.share <= SAME_SHARE["float32"]
        return int(self.share * of) if exact else stats.at_most(of, self.share, BY_CHANCE)

    def words(self, of: int) -> str:
        rows, most = int(self.share * of), self._by_chance(of)
        more = f", and up to {most} by chance, which --audit decides" if most > rows else ""
        return f"at most {rows} of {of} rows may differ{more}: {self.why}"


def allowance(a: Mapping[str, Any], b: Mapping[str, Any]) -> Allowance:
    """The allowance for two runs: none where both promise that answers depend on their prompts alone, else that of
    rounding."""
    promised = promise.between(a, b)
    share = 0.0 if promised.equal else max(SAME_SHARE.get(str(each.get("dtype")), 0.0) for each in (a, b))
    return Allowance(share, promised.why)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy as the organiser counts it, from the answers."""

    right: int
    of: int
    rule: str

    def as_json(self) -> dict[str, object]:
        low, high = stats.wilson(self.right, self.of)
        return {
            "right": self.right,
            "of": self.of,
            "rule": self.rule,
            "share": self.right / self.of,
            "interval_95": [low, high],
        }


def accuracy(facts: Facts) -> Accuracy | None:
    """None if the answers of the data are not known here."""
    judged = facts.judged
    return Accuracy(judged.correct, judged.scored, judged.rule) if judged and judged.scored else None


def _dataset(facts: Facts) -> CheckResult:
    claimed, data = facts.manifest.dataset, facts.data
    of_both = [(each.sha256, each.rows) for each in (facts.submitted.submission.dataset, claimed)]
    if of_both[0] != of_both[1]:
        return decided("dataset", INTEGRITY, False, "submission.json and the manifest name two", "one data set")
    actual, pinned = f"{claimed.name}, sha256 {claimed.sha256[:12]}…", _pinned(facts)
    if data is None and pinned is None:
        why = f"{actual}; the organiser's copy is not here (--data FILE)"
        return unknown("dataset", INTEGRITY, why, "the organiser's file")
    name, sha256 = (data.path.name, data.sha256) if data is not None else (claimed.name, pinned and pinned.sha256)
    return decided("dataset", INTEGRITY, claimed.sha256 == sha256, actual, f"{name}, sha256 {str(sha256)[:12]}…")


def _pinned(facts: Facts) -> DatasetConfig | None:
    """The facts of a set known by its name, also where its file is not on this disk."""
    name = facts.manifest.dataset.name
    known = settings.dataset(name) if name in settings.dataset_names() else None
    return None if known is None or known.sha256 is None else known


def _rows(facts: Facts) -> CheckResult:
    """Check that every row of the data is answered once and no other; a rehearsal may stop after the first rows."""
    submitted, pinned = facts.submitted, _pinned(facts)
    claimed, limit = submitted.manifest.dataset.rows, submitted.manifest.request.limit
    known = len(facts.data.rows) if facts.data is not None else None if pinned is None else pinned.rows
    expected = claimed if known is None else known
    if limit and submitted.submission.rehearsal:
        expected = min(expected, limit)
    counts = Counter(answer.index for answer in submitted.answers)
    missing = [index for index in range(min(expected, 10**7)) if index not in counts]
    twice = sorted(index for index, count in counts.items() if count > 1)
    beyond = sorted(index for index in counts if index >= expected)
    wrong = {"missing": missing, "twice": twice, "not in the data": beyond}
    faults = [f"{what}: rows {listed(rows)}" for what, rows in wrong.items() if rows]
    faults += [f"the manifest says {claimed:,} rows"] * (claimed != expected)
    fine = False if faults else None if known is None else True
    return decided("rows", FORM, fine, "; ".join(faults) or f"{len(counts):,} rows", f"each of {expected:,} rows once")


def _digest(facts: Facts) -> CheckResult:
    """Check the outputs against the hash that the run noted when each section ended."""
    submitted = facts.submitted
    by_row = submitted.by_row
    outputs = [[{"generated_text": by_row[index].text}] for index in sorted(by_row)]
    actual, claimed = outputs_digest(outputs), [section.outputs_sha256 for section in submitted.manifest.sections]
    fine = set(claimed) == {actual}
    return decided(
        "outputs-hash", INTEGRITY, fine, f"{actual[:12]}…", f"as every section noted: {listed(set(claimed))}"
    )


def _tokens(facts: Facts) -> CheckResult:
    submitted, model, encoded = facts.submitted, facts.model, facts.prompts
    expected = "every text is what its token ids decode to"
    if model is None or model.tokenizer is None:
        why = (
            f"the tokenizer of {submitted.manifest.model.name} is not on this disk (invoke setup --model …, or --model)"
        )
        return unknown("tokens", INTEGRITY, why, expected)
    tokenizer = model.tokenizer
    size = len(tokenizer)
    outside = [answer.index for answer in submitted.answers if any(each >= size for each in answer.token_ids)]
    if outside:
        return decided("tokens", INTEGRITY, False, f"rows {listed(outside)}: ids that no token has", expected)
    best: list[int] | None = None
    # Forms of pipe() in the releases that we support; one of them must hold for all.
    for form in [Form(with_prompt, clean_up) for with_prompt in (False, True) for clean_up in (None, True, False)]:
        if form.with_prompt and not encoded:
            continue
        wrong = list(_otherwise(submitted, form, tokenizer, encoded or []))
        best = wrong if best is None or len(wrong) < len(best) else best
        if not wrong:
            break
    actual = f"rows {listed(best)}: another text" if best else f"{len(submitted.answers):,} texts"
    return decided("tokens", INTEGRITY, not best, actual, expected)


def _otherwise(submitted: Submitted, form: Form, tokenizer: object, encoded: list[list[int]]) -> Iterator[int]:
    for answer in submitted.answers:
        known = answer.index < len(encoded)
        prompt = encoded[answer.index] if known else []
        if (form.with_prompt and not known) or form.text(tokenizer, prompt, answer.token_ids) != answer.text:
            yield answer.index


def _ends(facts: Facts) -> CheckResult:
    """Check that each answer ends with its only end token, or has all tokens that were allowed."""
    submitted, model = facts.submitted, facts.model
    expected = "each answer has one end token, its last, or all tokens that were allowed"
    stops = None if model is None else model.stop_tokens
    if stops is None:
        return unknown(
            "ends", INVALID_RUN, f"the end tokens of {submitted.manifest.model.name} are not known here", expected
        )
    most = _most_tokens(submitted)
    wrong = [
        answer.index
        for answer in submitted.answers
        if stops & set(answer.token_ids[:-1])
        or not answer.token_ids
        or (answer.token_ids[-1] not in stops and len(answer.token_ids) != most)
    ]
    return decided("ends", INVALID_RUN, not wrong, f"rows {listed(wrong)}" if wrong else "every answer", expected)


def _limit(facts: Facts) -> CheckResult:
    submitted = facts.submitted
    most = _most_tokens(submitted)
    wrong = [answer.index for answer in submitted.answers if most is None or len(answer.token_ids) > most]
    longest = max((len(answer.token_ids) for answer in submitted.answers), default=0)
    actual = f"rows {listed(wrong)}: up to {longest:,}" if wrong else f"at most {longest:,}"
    return decided("limit", INVALID_RUN, not wrong, actual, f"at most {most} new tokens an answer")


def _most_tokens(submitted: Submitted) -> int | None:
    most = submitted.manifest.arguments.get("max_new_tokens")
    return most if type(most) is int else None


def _score(facts: Facts) -> CheckResult:
    submitted, data, judged = facts.submitted, facts.data, facts.judged
    claimed, expected = submitted.manifest.score, "as counted again here"
    actual = f"claimed {claimed.correct} of {claimed.scored}"
    if data is None or judged is None or (not judged.scored and judged.rule in NEEDS_CODE):
        why = (
            "the organiser's data is not here" if data is None else "needs the set's scoring file, or running programs"
        )
        return unknown("score", ACCURACY, f"{actual}; {why}", expected)
    by_row = submitted.by_row
    scored = [row for row in data.rows if row.index in by_row and row.answer is not None]
    exact = (sum(metrics.is_exact(by_row[row.index].text, row.answer or "") for row in scored), len(scored))
    # A run scores by the contest's exact match, whatever the set.
    fine = (claimed.correct, claimed.scored) in {(judged.correct, judged.scored), exact}
    return decided("score", ACCURACY, fine, f"{actual}; counted {judged.correct} of {judged.scored}", expected)


def _accuracy(facts: Facts) -> CheckResult:
    """Check the drop in accuracy against the contest's limit."""
    rule, compared = f"a drop of at most {stats.ALLOWED_DROP:.1%}", facts.compared
    if isinstance(compared, str):
        return unknown("accuracy", ACCURACY, compared, rule)
    drop = -(compared.difference or 0.0)
    fine = False if compared.verdict == "broken" else True if drop <= stats.ALLOWED_DROP else None
    less = stats.coverage(compared.rows, compared.rows_of_data)
    fine = None if compared.verdict == "not scored" or (fine and less) else fine
    words = compared.words
    if fine and compared.verdict == "cannot tell":  # the rule is about these rows; those words are about any like them
        words = f"on all {compared.rows:,} rows, which the rule is about: {compare.change(drop)}"
    return decided("accuracy", ACCURACY, fine, words, rule)


def _reference(facts: Facts) -> CheckResult:
    """Check the share of rows that differ from the reference run."""
    same, compared = "the reference run's answers, but for rounding", facts.compared
    if isinstance(compared, str):
        return unknown("reference", ACCURACY, compared, same)
    reference = {} if facts.organiser.reference is None else facts.organiser.reference.manifest
    differ, allowed = len(compared.differing), allowance(reference, facts.manifest.model_dump())
    where = f": {listed(each.index for each in compared.differing)}" if compared.differing else ""
    less = stats.coverage(compared.rows, compared.rows_of_data)
    differing = f"{less}{differ} of {compared.rows} rows differ{where}"
    certain = compared.promise.equal or facts.manifest.dtype == reference.get("dtype") == "float32"
    fine = allowed.fine(differ, compared.rows)
    fine = (None if less else True) if fine else False if fine is False and certain else None
    return decided("reference", ACCURACY, fine, differing, allowed.words(compared.rows))


CHECKS: dict[str, Check] = {
    "dataset": _dataset,
    "rows": _rows,
    "outputs-hash": _digest,
    "tokens": _tokens,
    "ends": _ends,
    "limit": _limit,
    "score": _score,
    "accuracy": _accuracy,
    "reference": _reference,
}
