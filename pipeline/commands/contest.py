"""Tasks of the contest: the rules, packing a submission, its verdict, the ranking, shared source."""

from __future__ import annotations

from pathlib import Path

from invoke import Context, task

from pipeline import paths, table
from pipeline.commands.common import TORCH, TRANSFORMERS, guarded, names_of, on_checkout, saying, show, whole
from pipeline.commands.next_step import then


@task(
    help={
        "run": "a finished run's folder, or its name under runs/; left out, the newest one",
        "json": "print JSON, for programs",
    }
)
@guarded
@on_checkout
def rules(_context: Context, run: str = "", json: bool = False) -> None:
    """List the contest's rules, who decides each, and whether this checkout and a run meet them."""
    with saying("asking the rules"):
        from pipeline.contest.rules import evidence
        from pipeline.contest.rules import rules as asking
        from pipeline.record import run_folder

        folder = run_folder.find(run) if run else evidence.newest_run()
        judged = asking.judge(evidence.here(folder))
    if not json:
        print(f"\nrun: {folder.name if folder else 'there is none yet'}\n")
    show(judged, asking.as_json, asking.table, json)
    then("rules", json, run=folder.name if folder else "NAME")


@task(
    help={
        "run": "a finished run's folder, or its name under runs/; left out, the newest one",
        "rehearsal": "pack although rules about board, model or team are not met; the file is marked as a rehearsal",
        "save-image": "pack the image itself too (gigabytes)",
        "json": "print JSON, for programs",
    }
)
@guarded
@on_checkout
def submit(
    _context: Context, run: str = "", rehearsal: bool = False, save_image: bool = False, json: bool = False
) -> None:
    """Ask the contest's rules, then pack a run into dist/<team>-<hash>.tar. Example: invoke submit --run runs/NAME"""
    from pipeline.text import tokenizers_only

    with saying(TRANSFORMERS):
        tokenizers_only.import_without_torch()
        from pipeline.contest.submit import submit as submitting
    from pipeline.record import run_folder

    folder = run_folder.find(run) if run else submitting.newest()
    with saying("asking the rules, packing, and verifying what was packed"):
        submission = submitting.submit(submitting.Request(folder, rehearsal, save_image))
    show(submission, submitting.as_json, submitting.text, json)
    submitting.conclude(submission)
    then("submit", json, file=paths.shown(submission.path or Path()))


@task(
    positional=["file"],
    help={
        "file": "the submission: a tar file that invoke submit wrote",
        "data": "the organiser's own copy of the data, or with --rerun data that no team saw; left out: the known set",
        "reference": "reference runs for the 0.5 % rule, by commas, one a data set: folders, or names under runs/",
        "model": "the organiser's own copy of the model; left out: the known model of that name on this disk",
        "audit": "let your copy of the model check every submitted token; it generates nothing and takes minutes",
        "device": "where the audit computes: cpu or cuda; left out: a GPU where there is one",
        "rerun": "run it again from its image, in fresh containers without a network",
        "rerun-here": "run it again from its source on this machine, without a container: for teams that you trust",
        "times": "how often it is run again",
        "sign": "your key's file (invoke signing-key): also write the verdict signed, as verdict.dsse.json",
        "out": "where the verdict goes; left out: beside the file",
        "json": "print JSON, for programs",
    },
)
@guarded
def verify(
    _context: Context,
    file: str,
    data: str = "",
    reference: str = "",
    model: str = "",
    audit: bool = False,
    device: str = "",
    rerun: bool = False,
    rerun_here: bool = False,
    times: str = "3",
    sign: str = "",
    out: str = "",
    json: bool = False,
) -> None:
    """Check a submission and recompute all that it claims; writes FILE.verdict/. Example: invoke verify blue-1a2b.tar

    Ends with 0 when it is VALID, 4 to 8 by the class of the reason when it is INVALID, 9 when nobody can tell.
    """
    from pipeline.contest.checks.organiser import Organiser
    from pipeline.text import tokenizers_only

    with saying(TORCH if audit else TRANSFORMERS):
        if not audit:
            tokenizers_only.import_without_torch()
        from pipeline.contest.verify import audit_checks, signed_verdict
        from pipeline.contest.verify import rerun as rerunning
        from pipeline.contest.verify import verify as verifying

    key = signed_verdict.key(paths.given(sign)) if sign else None  # before the work, that a wrong one does not waste it
    again = rerunning.request(whole("times", times), here=rerun_here) if rerun or rerun_here else None
    references = [paths.given(name) for name in names_of(reference)]
    organiser = Organiser(paths.given(data) if data else None, None, model or None, references=references)
    tar = paths.given(file)
    folder = Path(out) if out else verifying.folder_of(tar)
    looking = audit_checks.asked(device or None) if audit else None
    with saying("" if again or looking else "checking the submission"):  # those tell what they do
        verdict = verifying.verify(tar, organiser, again, folder, looking)
    signed_verdict.settle(tar, folder, key)
    show(verdict, lambda each: each.as_json(), lambda each: verifying.text(each, folder), json)
    verifying.conclude(verdict, folder)
    then("verify", json, folder=paths.shown(folder.parent))


@task(
    positional=["folder"],
    help={
        "folder": "the folder with the archives, where the verdicts go too; on a farm, one that all boards share",
        "data": "your data file, on which all submissions are run",
        "repeat": "how often each is run",
        "on": "local: on this machine; slurm: on the boards of a partition",
        "partition": "the partition of Slurm to use; left out: the default one",
        "yardstick": "a submission of your own, run on each board for comparison; needed with several boards",
        "reference": "reference runs for the 0.5 % rule, by commas, one a data set: folders, or names under runs/",
        "model": "your copy of the model, where every board has it; left out: phi3-medium under models/",
        "status": "only show how far it is, and the time left",
        "cancel": "stop the jobs that run and remove those that wait; finished runs are kept",
        "json": "print JSON, for programs",
    },
)
@guarded
def judge(
    _context: Context,
    folder: str,
    data: str = "",
    repeat: str = "3",
    on: str = "local",
    partition: str = "",
    yardstick: str = "",
    reference: str = "",
    model: str = "",
    status: bool = False,
    cancel: bool = False,
    json: bool = False,
) -> None:
    """Run all submissions of a folder under your clock, and write verdicts. Example: invoke judge received --data F

    If it is killed, the same command goes on from there: docs/farm.md.
    """
    import sys

    from pipeline.contest.judge import commanded

    place = paths.given(folder)
    if status:
        from pipeline.contest.judge import status as showing

        show(commanded.status(place), showing.as_json, showing.text, json)
        return
    from pipeline.contest.checks.organiser import Organiser
    from pipeline.contest.judge import judge as judging

    if cancel:
        ended = judging.cancel(place, on, partition or None)
        print(table.fitted(f"{ended} jobs ended; the same command without --cancel goes on"))
        return
    own = paths.given(yardstick) if yardstick else None
    asked = judging.request(place, commanded.data(data), whole("repeat", repeat), on, partition, own, model)
    references = [paths.given(name) for name in names_of(reference)]
    organiser = Organiser(asked.data, None, model or None, references=references)
    verdicts = judging.judge(asked, organiser, lambda line: print(line, file=sys.stderr, flush=True))
    show(commanded.as_json(verdicts, place), list, commanded.text, json)
    then("judge", json, folder=paths.shown(place))


@task(
    positional=["folder"],
    help={
        "folder": "where the verdicts are: folders that invoke verify wrote",
        "to": "where index.html, leaderboard.json and the log go; left out: the same folder",
        "sign": "your key's file: also write the log's head signed, as leaderboard.head.dsse.json",
        "check": "only check that no line of the log was changed, removed or moved",
        "head": "with --check: a head that was printed earlier, or the file of a signed one (then with --key)",
        "key": "with --check: the public key that the head's file was signed with",
        "json": "print JSON, for programs",
    },
)
@guarded
def leaderboard(
    _context: Context,
    folder: str,
    to: str = "",
    sign: str = "",
    check: bool = False,
    head: str = "",
    key: str = "",
    json: bool = False,
) -> None:
    """Rank verified submissions by time, here and as a page. Example: invoke leaderboard dist"""
    from pipeline.contest.ranking import leaderboard as ranking
    from pipeline.contest.ranking import log, page

    out = Path(to).expanduser() if to else paths.given(folder)
    if check:
        print(f"the log is whole, head {log.check(out, log.expected(out, head, key))}")
        return
    board = ranking.make(paths.given(folder))
    page.write(board, out)
    ended = log.record(out, paths.given(folder))
    show(board, page.as_json, page.text, json)
    signed = log.sign_head(out, paths.given(sign)) if sign else None
    if not json:
        print(f"\nwritten: {paths.shown(out / page.PAGE)}")
        beside = f", signed: {paths.shown(signed)}" if signed else ""
        print(table.fitted(f"the log's head, to keep elsewhere: {ended}{beside}"))
        then("leaderboard")


@task(positional=["file"], help={"file": "the private key's file; its public half goes beside it, as FILE.pub"})
@guarded
def signing_key(_context: Context, file: str) -> None:
    """Make a key to sign verdicts and the leaderboard's log with. Example: invoke signing-key ~/organiser.key"""
    from pipeline.contest.signing import keys

    public = keys.make(paths.given(file))
    print(table.fitted(f"written: {file}, to keep secret, and {paths.shown(public)}, for everybody"))
    print(f"its id: {keys.key_id(keys.read_public(public))}")
    then("signing-key", file=file)


@task(
    positional=["verdict", "key"],
    help={
        "verdict": "a signed verdict: verdict.dsse.json, or the folder with it",
        "key": "the organiser's public key",
        "file": "the submission that the verdict should be about; left out: not checked",
        "json": "print the verdict as JSON, for programs",
    },
)
@guarded
def check_signed(_context: Context, verdict: str, key: str, file: str = "", json: bool = False) -> None:
    """Check that a verdict was signed with an organiser's key. Example: invoke check-signed V --key K.pub"""
    from pipeline.contest.verify import signed_verdict

    statement = signed_verdict.check(paths.given(verdict), paths.given(key), paths.given(file) if file else None)
    show(statement, lambda each: dict(each.predicate), signed_verdict.text, json)
    then("check-signed", json)


@task(
    positional=["a", "b"],
    help={
        "a": "a submission's tar file, its source.tar, or a folder with source",
        "b": "another one, and as many further ones as there are",
        "given": "a folder or tar of what all teams were given: left out of every comparison",
        "to": "the page's file; left out: similarity.html beside the first one",
        "json": "print JSON, for programs",
    },
)
@guarded
def similarity(_context: Context, a: str, b: str, given: str = "", to: str = "", json: bool = False) -> None:
    """Compare the source of submissions, two at a time. Example: invoke similarity received/*.tar"""
    import sys

    from pipeline.contest.similarity import fingerprints as comparing
    from pipeline.contest.similarity import page

    # Further names stand behind --, where the command line put them (`own_program`). Not invoke's own remainder, which
    # takes names with blanks apart.
    more = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    compared = comparing.compare([str(paths.given(each)) for each in (a, b, *more)], given and str(paths.given(given)))
    out = Path(to).expanduser() if to else paths.given(a).absolute().parent / page.NAME
    page.write(compared, out)
    show(compared, comparing.as_json, page.text, json)
    if not json:
        print(f"\nwritten: {paths.shown(out)}")
    comparing.conclude(compared)
    if not json:
        then("similarity")
