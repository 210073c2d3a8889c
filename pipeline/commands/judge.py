"""Tasks of the organiser: what teams hand in becomes verdicts."""

from __future__ import annotations

from pathlib import Path

from invoke import Context, task

from pipeline.commands.common import guarded, whole


@task(
    positional=["file"],
    help={
        "file": "the submission: a tar file that invoke submit wrote",
        "data": "the organiser's own copy of the data; left out: the known set of that name on this disk",
        "reference": "a reference run on the same data, for the 0.5 % rule: its folder, or its name under runs/",
        "model": "the organiser's own copy of the model; left out: the known model of that name on this disk",
        "rerun": "run it again from its image, in fresh containers without a network",
        "rerun-here": "run it again from its source on this machine, without a container: for teams that you trust",
        "times": "how often it is run again",
        "out": "where the verdict goes; left out: beside the file",
        "json": "for programs",
    },
)
@guarded
def verify(
    _context: Context,
    file: str,
    data: str = "",
    reference: str = "",
    model: str = "",
    rerun: bool = False,
    rerun_here: bool = False,
    times: str = "3",
    out: str = "",
    json: bool = False,
) -> None:
    """Check a submission and recompute all that it claims; writes FILE.verdict/. Example: invoke verify blue-1a2b.tar

    Ends with 0 when it is VALID, 4 to 8 by the class of the reason when it is INVALID, 9 when nobody can tell.
    """
    from pipeline.commands.common import show
    from pipeline.submission import rerun as rerunning  # seconds, for torch
    from pipeline.submission import verify as verifying
    from pipeline.submission.organiser import Organiser

    again = rerunning.asked(whole("times", times), here=rerun_here) if rerun or rerun_here else None
    organiser = Organiser(Path(data) if data else None, Path(reference) if reference else None, model or None)
    tar = Path(file)
    folder = Path(out) if out else verifying.folder_of(tar)
    verdict = verifying.verify(tar, organiser, again, folder)
    show(verdict, lambda made: made.as_json(), lambda made: verifying.text(made, folder), json)
    verifying.conclude(verdict, folder)
