"""The short table that a run prints when it is over."""

from __future__ import annotations

from pipeline import paths, table
from pipeline.accuracy.scoring import Verdicts
from pipeline.device import verdict
from pipeline.runs.request import Request
from pipeline.runs.timed import Summary


def text(request: Request, summary: Summary) -> str:
    """A few aligned lines, the two numbers that count first."""
    lines = [
        ("time", _time(summary)),
        ("score", _score(summary.score)),
        ("answers", f"{summary.answer_tokens} tokens{_pace(summary)}"),
        ("before", f"load {summary.load_s:.1f} s, warm-up {summary.warm_up_s:.1f} s (not timed)"),
        *_verdict(summary),
        ("written", paths.shown(summary.folder)),
    ]
    head = f"{request.dataset} · {request.model} · {request.engine}"
    return table.labelled(head, lines)


def _score(score: Verdicts) -> str:
    if score.scored:
        text = f"{score.correct} of {score.scored} right by the rule `{score.rule}`"
        return f"{text}; {score.note}" if score.note else text
    return score.note or "none, as the file has no answers"


def _time(summary: Summary) -> str:
    if summary.elapsed_s is None:
        return f"none, as the run was cut off: {summary.kept} of {summary.rows} answers were kept"
    several = len(summary.all_elapsed_s) > 1
    all_times = f"   (median of {', '.join(f'{t:.2f}' for t in summary.all_elapsed_s)})" * several
    each_s = summary.elapsed_s / summary.rows
    return f"{summary.elapsed_s:.2f} s for {summary.rows} prompts, {each_s:.3f} s each{all_times}"


def _verdict(summary: Summary) -> list[tuple[str, str]]:
    """On a board whose times count: this one's verdict with its reasons and notes. Elsewhere only what slowed it."""
    judged = summary.verdict
    if judged is None:
        return []
    if judged.counts:
        return [("verdict", "; ".join((judged.state, *judged.reasons, *judged.notes)))]
    slowed = [note for note in judged.notes if verdict.OTHERS in note]
    return [("note", "; ".join(slowed))] if slowed else []


def _pace(summary: Summary) -> str:
    pace = table.per_second(summary.answer_tokens, summary.elapsed_s)
    return pace and f", {pace}"
