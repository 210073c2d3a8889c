"""The results of an evaluation, beside what the model's authors published; for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import paths, settings, table
from pipeline.files import write_json
from pipeline.runs.evaluate import Result
from pipeline.table import Column

CONTEXT = (
    "The card's scores are Phi-3-medium's, by few-shot prompts that are not public (shots in parentheses); these here "
    "are zero-shot in the organiser's form: context, not a measure."
)


def text(results: Sequence[Result], folder: Path) -> str:
    """For the terminal: a row a set, a column an engine."""
    engines = list(dict.fromkeys(each.engine for each in results))
    both = len(engines) == 2
    columns = [Column("set"), *(Column(name, right=True) for name in ("rows", *engines))]
    columns += [*[Column("same bytes", right=True)] * both, Column("model card", right=True)]
    rows: list[list[str]] = []
    notes: dict[str, str] = {}
    for name, of_set in _by_set(results).items():
        published = settings.model_card().benchmarks[settings.dataset(name).benchmark]
        same = [f"{_same(of_set):,}"] * both
        shares = [_share(each) for each in of_set]
        rows.append([name, f"{len(of_set[0].texts):,}", *shares, *same, f"{published.score:.1f} % ({published.shots})"])
        if note := of_set[0].verdicts.note:
            notes[name] = note
    lines = ["", table.text(columns, rows)]
    lines += ["", *(f"  {name}: {note}" for name, note in notes.items()), *_same_lines(results, both)]
    return "\n".join([*lines, f"  {CONTEXT}", f"  written  {paths.shown(folder)}"])


def write(results: Sequence[Result], folder: Path) -> None:
    """`results.json`, the same for programs."""
    rows: list[dict[str, Any]] = []
    for name, of_set in _by_set(results).items():
        for each in of_set:
            judged = each.verdicts
            rows.append(
                {
                    "set": name,
                    "engine": each.engine,
                    "rows": len(each.texts),
                    "rule": judged.rule,
                    "scored": judged.scored,
                    "correct": judged.correct,
                    "note": judged.note,
                    "same_bytes": _same(of_set),
                    "model_card": settings.model_card().benchmarks[settings.dataset(name).benchmark].model_dump(),
                }
            )
    write_json(folder / "results.json", {"context": CONTEXT, "results": rows})


def _by_set(results: Sequence[Result]) -> dict[str, list[Result]]:
    return {each.dataset: [other for other in results if other.dataset == each.dataset] for each in results}


def _share(result: Result) -> str:
    judged = result.verdicts
    return f"{judged.correct} = {judged.share:.1%}" if judged.share is not None else "not scored"


def _same(of_set: Sequence[Result]) -> int:
    """Rows in which all engines gave the same text by the same tokens."""
    answers = [list(zip(each.texts, each.token_ids, strict=True)) for each in of_set]
    return sum(len(set(row)) == 1 for row in zip(*answers, strict=True))


def _same_lines(results: Sequence[Result], both: bool) -> list[str]:
    if not both:
        return []
    sets = _by_set(results).values()
    same, rows = sum(map(_same, sets)), sum(len(of_set[0].texts) for of_set in sets)
    return [f"  {same:,} of {rows:,} answers are the same bytes and tokens by both engines"]
