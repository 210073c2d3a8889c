"""Tasks that make pages for people: a run's report, the leaderboard, the similarity of submissions."""

from __future__ import annotations

from invoke import Context, task

from pipeline.commands.common import guarded


@task(
    positional=["run"],
    help={
        "run": "a run's folder, or its name under runs/",
        "against": "hold it against this run, row by row: the yardstick, as A in invoke compare",
        "to": "the page's file; left out: report.html in the run's folder",
        "execute-code": "run answers to HumanEval and MBPP as programs, in a sandbox, to score them",
    },
)
@guarded
def report(_context: Context, run: str, against: str = "", to: str = "", execute_code: bool = False) -> None:
    """Write one run as one page that needs nothing else. Example: invoke report NAME --against BASELINE"""
    from pipeline import paths
    from pipeline.report import report as reporting

    made = reporting.make(run, against, to, execute_code)
    for line in made.missing:
        print(f"not on the page: {line}")
    print(f"written: {paths.shown(made.path)}")
