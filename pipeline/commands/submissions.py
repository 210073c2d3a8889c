"""Tasks around what a team hands in: the contest's rules, and the packing."""

from __future__ import annotations

from invoke import Context, task

from pipeline.commands.common import guarded, show


@task(
    help={
        "run": "a finished run's folder, or its name under runs/; left out, the newest one",
        "json": "for programs",
    }
)
@guarded
def rules(_context: Context, run: str = "", json: bool = False) -> None:
    """Every rule of the contest, who decides it, and how this checkout and a run stand to it."""
    from pipeline import record
    from pipeline.submission import evidence
    from pipeline.submission import rules as asking

    folder = record.find_folder(run) if run else evidence.newest_run()
    judged = asking.judge(evidence.here(folder))
    if not json:
        print(f"\nrun: {folder.name if folder else 'there is none yet'}\n")
    show(judged, asking.as_json, asking.table, json)


@task(
    help={
        "run": "a finished run's folder, or its name under runs/; left out, the newest one",
        "rehearsal": "pack what only the contest's board, model and people could meet; plainly marked",
        "save-image": "pack the image itself too (gigabytes)",
        "json": "for programs",
    }
)
@guarded
def submit(
    _context: Context, run: str = "", rehearsal: bool = False, save_image: bool = False, json: bool = False
) -> None:
    """Ask the contest's rules, then pack a run into dist/<team>-<hash>.tar. Example: invoke submit --run runs/NAME"""
    from pipeline import record
    from pipeline.submission import submit as submitting

    folder = record.find_folder(run) if run else submitting.newest()
    made = submitting.submit(submitting.Asked(folder, rehearsal, save_image))
    show(made, submitting.as_json, submitting.text, json)
    submitting.conclude(made)
