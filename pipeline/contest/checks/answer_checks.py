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
from pipeline.accuracy.scoring import NEEDS_CODE, Verdicts, verdicts
from pipeline.check import ACCURACY, FORM, INTEGRITY, INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.checks.organiser import Data, Model, Organiser
from pipeline.contest.checks.submitted import Submitted
from pipeline.dataset import fetch
from pipeline.errors import PipelineError
from pipeline.record import promise
from pipeline.record.outputs import outputs_digest
from pipeline.text.detokenize import Form

FORMS = tuple(Form(with_prompt, clean_up) for with_prompt in (False, True) for clean_up in (None, True, False))
"""Forms of pipe() in the releases that we support (pipeline/text/detokenize.py); one of them must hold for all."""

SAME_SHARE = {"float32": 0.005, "bfloat16": 0.05}
"""Dtype to the share of rows that may differ between two runs by rounding alone, where they do not promise equal bytes:
docs/exactness.md counted none in float32, 1.8 % in bfloat16 between batch sizes."""


@dataclass(frozen=True)
class Allowance:
    """The share of rows in which two runs' answers may differ, and the reason, in words."""

    share: float
    why: str

    @property
    def words(self) -> str:
        return f"at most {self.share:.1%} of rows may differ: {self.why}"


def allowance(a: Mapping[str, Any], b: Mapping[str, Any]) -> Allowance:
    """Of two runs' manifests: none where both promise that answers depend on their prompts alone, else rounding's."""
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


def checks(submitted: Submitted, organiser: Organiser) -> tuple[list[CheckResult], Accuracy | None]:
    """All checks of the answers, and the accuracy if the data's answers are known."""
    name = submitted.manifest.dataset.name
    data, model = organiser.data(name), organiser.model(submitted.manifest.model.name)
    judged = None if data is None else _judged(submitted, data, name)
    accuracy = Accuracy(judged.correct, judged.scored, judged.rule) if judged and judged.scored else None
    results = [
        _dataset(submitted, data),
        _rows(submitted, data),
        _digest(submitted),
        _tokens(
            submitted, model, organiser.prompts(name, submitted.manifest.model.name, submitted.manifest.dataset.rows)
        ),
        _ends(submitted, model),
        _limit(submitted),
        _score(submitted, data, judged),
        *_reference(submitted, organiser, data),
    ]
    return results, accuracy


def _dataset(submitted: Submitted, data: Data | None) -> CheckResult:
    claimed = submitted.manifest.dataset
    of_both = [(each.sha256, each.rows) for each in (submitted.submission.dataset, claimed)]
    if of_both[0] != of_both[1]:
        return decided("dataset", INTEGRITY, False, "submission.json and the manifest name two", "one data set")
    if data is None:
        why = f"{claimed.name}, sha256 {claimed.sha256[:12]}…; the organiser's copy is not here (--data FILE)"
        return unknown("dataset", INTEGRITY, why, "the organiser's file")
    expected = f"{data.path.name}, sha256 {data.sha256[:12]}…"
    return decided(
        "dataset", INTEGRITY, claimed.sha256 == data.sha256, f"{claimed.name}, sha256 {claimed.sha256[:12]}…", expected
    )


def _rows(submitted: Submitted, data: Data | None) -> CheckResult:
    """Check that every row of the data is answered once and no other; a rehearsal may stop after the first rows."""
    claimed, limit = submitted.manifest.dataset.rows, submitted.manifest.request.limit
    if data is not None:
        expected = min(len(data.rows), limit) if limit and submitted.submission.rehearsal else len(data.rows)
    else:
        expected = claimed
    counts = Counter(answer.index for answer in submitted.answers)
    missing = [index for index in range(min(expected, 10**7)) if index not in counts]
    twice = sorted(index for index, count in counts.items() if count > 1)
    beyond = sorted(index for index in counts if index >= expected)
    wrong = {"missing": missing, "twice": twice, "not in the data": beyond}
    faults = [f"{what}: rows {listed(rows)}" for what, rows in wrong.items() if rows]
    faults += [f"the manifest says {claimed:,} rows"] * (claimed != expected)
    fine = False if faults else None if data is None else True
    return decided("rows", FORM, fine, "; ".join(faults) or f"{len(counts):,} rows", f"each of {expected:,} rows once")


def _digest(submitted: Submitted) -> CheckResult:
    """Check the outputs against the hash that the run noted when each section ended."""
    by_row = submitted.by_row
    outputs = [[{"generated_text": by_row[index].text}] for index in sorted(by_row)]
    actual, claimed = outputs_digest(outputs), [section.outputs_sha256 for section in submitted.manifest.sections]
    fine = set(claimed) == {actual}
    return decided(
        "outputs-hash", INTEGRITY, fine, f"{actual[:12]}…", f"as every section noted: {listed(set(claimed))}"
    )


def _tokens(submitted: Submitted, model: Model | None, encoded: list[list[int]] | None) -> CheckResult:
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
    for form in FORMS:
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


def _ends(submitted: Submitted, model: Model | None) -> CheckResult:
    """Check that each answer ends with its only end token, or has all tokens that were allowed."""
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
    return decided("ends", INVALID_RUN, not wrong, f"rows {listed(wrong)}" if wrong else "all do", expected)


def _limit(submitted: Submitted) -> CheckResult:
    most = _most_tokens(submitted)
    wrong = [answer.index for answer in submitted.answers if most is None or len(answer.token_ids) > most]
    longest = max((len(answer.token_ids) for answer in submitted.answers), default=0)
    actual = f"rows {listed(wrong)}: up to {longest:,}" if wrong else f"at most {longest:,}"
    return decided("limit", INVALID_RUN, not wrong, actual, f"at most {most} new tokens an answer")


def _most_tokens(submitted: Submitted) -> int | None:
    most = submitted.manifest.arguments.get("max_new_tokens")
    return most if type(most) is int else None


def _judged(submitted: Submitted, data: Data, name: str) -> Verdicts | None:
    """Score the answers by the set's own rule if the data is that set, else by the organiser's exact match."""
    by_row = submitted.by_row
    rows = [row for row in data.rows if row.index in by_row]
    texts = [by_row[row.index].text for row in rows]
    known = name in settings.dataset_names() and settings.dataset(name).sha256 == data.sha256
    if known and not _can_score(name):
        return None
    return verdicts(name if known else "", rows, texts, execute_code=False)


def _can_score(name: str) -> bool:
    """Whether the scoring file that the set's rule needs, if any, is on this disk: nothing is fetched."""
    needs = name in settings.dataset_names() and settings.dataset(name).form.scoring
    return not needs or fetch.scoring_place(name).is_file()


def _score(submitted: Submitted, data: Data | None, judged: Verdicts | None) -> CheckResult:
    claimed, expected = submitted.manifest.score, "as counted anew"
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


def _reference(submitted: Submitted, organiser: Organiser, data: Data | None) -> list[CheckResult]:
    """Check the drop in accuracy against the contest's limit, and the share of rows that differ from the reference."""
    rule, same = f"a drop of at most {stats.ALLOWED_DROP:.1%}", "the reference run's answers, but for rounding"
    reference = organiser.reference
    trouble = (
        "no reference run was given (--reference RUN)"
        if reference is None
        else "the organiser's data is not here"
        if data is None
        else "the reference run answered other data"
        if reference.manifest["dataset"]["sha256"] != data.sha256
        else None
        if _can_score(reference.manifest["dataset"]["name"])
        else "the set's scoring file is not here (invoke data)"
    )
    common: list[int] = []
    if reference is not None and data is not None and trouble is None:
        common = sorted(set(reference.outputs) & set(submitted.by_row) & set(range(len(data.rows))))
    if reference is None or data is None or not common:
        why = trouble or "the reference run has no row in common"
        return [unknown("accuracy", ACCURACY, why, rule), unknown("reference", ACCURACY, why, same)]
    mine = compare.Run(submitted.folder / "run", submitted.manifest.model_dump(), _as_outputs(submitted))
    try:
        compared = compare.paired(reference, mine, list(data.rows), common, execute_code=False)
    except PipelineError as error:
        return [unknown("accuracy", ACCURACY, error.what, rule), unknown("reference", ACCURACY, error.what, same)]
    drop = -(compared.difference or 0.0)
    fine = False if compared.verdict == "broken" else True if drop <= stats.ALLOWED_DROP else None
    fine = None if compared.verdict == "not scored" or (fine and len(common) < len(submitted.by_row)) else fine
    share, allowed = len(compared.differing) / compared.rows, allowance(reference.manifest, mine.manifest)
    where = f": {listed(each.index for each in compared.differing)}" if compared.differing else ""
    differing = f"{len(compared.differing)} of {compared.rows} rows differ{where}"
    in_float32 = submitted.manifest.dtype == reference.manifest.get("dtype") == "float32"
    certain = in_float32 or promise.between(reference.manifest, mine.manifest).equal
    return [
        decided("accuracy", ACCURACY, fine, compared.words, rule),
        decided(
            "reference", ACCURACY, share <= allowed.share or (False if certain else None), differing, allowed.words
        ),
    ]


def _as_outputs(submitted: Submitted) -> dict[int, dict[str, object]]:
    return {
        answer.index: {
            "index": answer.index,
            "output": [{"generated_text": answer.text}],
            "token_ids": list(answer.token_ids),
        }
        for answer in submitted.answers
    }
