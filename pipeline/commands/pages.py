"""Tasks that make pages for people: a run's report, the leaderboard, the similarity of submissions."""

from __future__ import annotations

from pathlib import Path

from invoke import Context, task

from pipeline.commands.common import guarded, show


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


@task(
    positional=["folder"],
    help={
        "folder": "where the verdicts are: folders that invoke verify wrote",
        "to": "where index.html and leaderboard.json go; left out: the same folder",
        "json": "print it for programs",
    },
)
@guarded
def leaderboard(_context: Context, folder: str, to: str = "", json: bool = False) -> None:
    """Rank verified submissions by time, as a page, as JSON and here. Example: invoke leaderboard dist"""
    from pipeline import paths
    from pipeline.submission import leaderboard as ranking
    from pipeline.submission import leaderboard_page as page

    board = ranking.make(Path(folder).expanduser())
    out = Path(to or folder).expanduser()
    page.write(board, out)
    show(board, page.as_json, page.text, json)
    if not json:
        print(f"\nwritten: {paths.shown(out / page.PAGE)}")


@task(
    positional=["a", "b"],
    help={
        "a": "a submission's tar file, its source.tar, or a folder with source",
        "b": "another one; further ones behind --",
        "given": "a folder or tar of what all teams were given: left out of every comparison",
        "to": "the page's file; left out: similarity.html beside the first one",
        "json": "print it for programs",
    },
)
@guarded
def similarity(_context: Context, a: str, b: str, given: str = "", to: str = "", json: bool = False) -> None:
    """Compare the source of submissions, two at a time. Example: invoke similarity A.tar B.tar -- C.tar D.tar"""
    import sys

    from pipeline import paths
    from pipeline.submission import similarity as comparing
    from pipeline.submission import similarity_page as page

    # Not invoke's own remainder, which takes names with blanks apart.
    more = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    made = comparing.compare([a, b, *more], given)
    out = Path(to).expanduser() if to else Path(a).expanduser().absolute().parent / page.NAME
    page.write(made, out)
    show(made, comparing.as_json, page.text, json)
    if not json:
        print(f"\nwritten: {paths.shown(out)}")
