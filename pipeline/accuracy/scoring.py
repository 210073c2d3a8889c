"""Right or wrong, row by row, for a set that the project knows or for any file with answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import settings
from pipeline.accuracy import metrics, sandbox
from pipeline.dataset import fetch
from pipeline.dataset.records import Record

NEEDS_CODE = ("humaneval", "mbpp")


@dataclass(frozen=True)
class Verdicts:
    rule: str
    right: tuple[bool | None, ...]
    """None: not scored."""
    note: str | None
    """A caveat for readers of these numbers."""

    @property
    def correct(self) -> int:
        return sum(each is True for each in self.right)

    @property
    def scored(self) -> int:
        return sum(each is not None for each in self.right)

    @property
    def share(self) -> float | None:
        return self.correct / self.scored if self.scored else None

    def describe(self) -> dict[str, Any]:
        """For a run's manifest."""
        return {
            "rule": self.rule,
            "correct": self.correct,
            "scored": self.scored,
            "share": self.share,
            "note": self.note,
        }


def verdicts(dataset: str, rows: Sequence[Record], texts: Sequence[str], execute_code: bool) -> Verdicts:
    """`texts` are what was answered to `rows`, one each; a set that is not known is scored by the organiser's rule.

    Rows without an answer are not scored, and those of HumanEval and MBPP only when their programs may be run. Raises
    EnvironmentProblem (E311) where they cannot be.
    """
    known = settings.dataset_name(dataset) in settings.dataset_names()
    config = settings.dataset(dataset) if known else None
    rule = "exact" if config is None else config.score
    note = None if config is None else config.caveat
    if rule in NEEDS_CODE and not execute_code:
        note = "not scored: that means running the answers as programs, which --execute-code allows"
        return Verdicts(rule, (None,) * len(rows), note)
    scoring: dict[int, dict[str, Any]] = {}
    if config is not None and config.form.scoring:
        fetch.ensure(config.name, lambda line: None)
        scoring = _scoring(fetch.scoring_place(config.name))
    right = [
        None if row.answer is None else _is_right(rule, text, row.answer, scoring.get(row.index, {}))
        for row, text in zip(rows, texts, strict=True)
    ]
    notes = [each for each in (note, _escaped(rows) if rule == "exact" else None) if each]
    return Verdicts(rule, tuple(right), "; ".join(notes) or None)


def _escaped(rows: Sequence[Record]) -> str | None:
    """How many rows can be right only by undoing the escapes of the printed list, which is the organiser's form."""
    count = sum(metrics.is_escaped(row.messages[-1]["content"], row.answer) for row in rows if row.answer is not None)
    return f"answers that stand escaped in their prompts (wrong if copied as printed): {count:,}" if count else None


def _is_right(rule: str, text: str, answer: str, scoring: dict[str, Any]) -> bool:
    if rule == "last-number":
        return metrics.is_last_number(text, answer)
    if rule == "alias":
        return metrics.is_alias(text, answer, scoring["aliases"])
    if rule == "humaneval":
        return sandbox.passes(metrics.humaneval_program(text, scoring))
    if rule == "mbpp":
        return sandbox.passes(metrics.mbpp_program(text, scoring))
    return metrics.is_exact(text, answer)


def _scoring(path: Path) -> dict[int, dict[str, Any]]:
    """Row index to the data that scoring needs beside the answers."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return {index: json.loads(line) for index, line in enumerate(lines) if line}
