"""What a run prints when it is over: one short table."""

from __future__ import annotations

from pipeline import paths
from pipeline.run import Request, Summary


def text(request: Request, summary: Summary) -> str:
    """A few aligned lines, the two numbers that count first."""
    score = summary.score
    each = summary.elapsed_s / summary.rows
    times = (
        ""
        if len(summary.all_elapsed_s) == 1
        else f"   (median of {', '.join(f'{t:.2f}' for t in summary.all_elapsed_s)})"
    )
    lines = [
        ("time", f"{summary.elapsed_s:.2f} s for {summary.rows} prompts, {each:.3f} s each{times}"),
        ("score", f"{score.correct} of {score.scored} exact" if score.scored else "the file has no answers"),
        ("answers", f"{summary.answer_tokens} tokens, {summary.answer_tokens / summary.elapsed_s:.0f} a second"),
        ("before", f"load {summary.load_s:.1f} s, warm-up {summary.warm_up_s:.1f} s (not timed)"),
        ("written", paths.shown(summary.folder)),
    ]
    head = f"{request.dataset} · {request.model} · {request.engine}"
    return "\n".join(["", head, *(f"  {label:<9}{value}" for label, value in lines)])
