"""Checks of a submission that was run again: the same answers, in the same time, by the organiser's clock?

When times count as different: `record/speed.py`. More between the runs of one image, and nothing can be said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from pipeline.check import ACCURACY, FAIL, HUMAN, INVALID_RUN, CheckResult, decided, listed, unknown
from pipeline.contest.checks import answer_checks, by_id
from pipeline.contest.checks.answer_checks import Accuracy, allowance
from pipeline.contest.checks.facts import Facts
from pipeline.contest.checks.organiser import Data, Organiser
from pipeline.contest.checks.submitted import Answer, Manifest, Submitted
from pipeline.contest.verify.again.once import One
from pipeline.record.speed import DIFFERENT

CLOCK_SHARE, CLOCK_S = 0.01, 0.05
"""How far a run's own time may be from the organiser's: the larger of both."""
ENDED_WELL = "every run ends well, its answers written once and only added to"


def checks(
    told: Submitted, runs: Sequence[One], organiser: Organiser, data: Data, *, here: bool
) -> tuple[list[CheckResult], tuple[int, ...]]:
    """All checks, and the rows that were answered differently. On other data than the submission's, the runs are held
    against each other, and their time against nothing."""
    fresh = data.sha256 != told.manifest.dataset.sha256
    answered = [one.answers for one in runs if one.answers is not None]
    yardstick = (answered[0] if answered else ()) if fresh else told.answers
    differing = tuple(sorted({index for answers in answered for index in _differing(yardstick, answers)}))
    records = [one.manifest for one in runs if one.manifest is not None and one.answers]
    measure = (records[0] if records else told.manifest) if fresh else told.manifest
    found = [
        _ended(told, runs, data, here),
        _anew(told, runs, organiser),
        _outputs(measure, records, len(yardstick), differing, fresh),
        _clock(runs),
        _measured(data, runs) if fresh else _times(told, runs),
    ]
    return found, differing


def _ended(told: Submitted, runs: Sequence[One], data: Data, here: bool) -> CheckResult:
    """Check that every run ended well, on the same data and weights; status 8 (a busy board) has its answers too."""
    bad = [one for one in runs if one.measured.wrong or one.measured.status not in {0, 8} or not _is_whole(one)]
    if bad:
        # Without the image, what is missing may be this machine's.
        fine = None if here and bad[0].measured.status in {3, 5} else False
        return decided("rerun", INVALID_RUN, fine, f"{len(bad)} of {len(runs)} failed: {_trouble(bad[0])}", ENDED_WELL)
    manifests = [one.manifest for one in runs if one.manifest is not None]
    wanted = (data.sha256, told.manifest.model.lock_sha256)
    same = all((each.dataset.sha256, each.model.lock_sha256) == wanted for each in manifests)
    other = ", on other data or weights" * (not same)
    return decided("rerun", INVALID_RUN, same, f"{len(runs)} ended{other}", ENDED_WELL)


def _is_whole(one: One) -> bool:
    return None not in (one.manifest, one.answers, one.elapsed_s)


def _trouble(one: One) -> str:
    if one.measured.wrong:
        return listed(one.measured.wrong)
    if one.measured.status in {0, 8}:
        return "it ended and left no run that can be read"
    last = (one.stderr_tail.strip() or one.stdout_tail.strip() or "no word").splitlines()[-1]
    return f"status {one.measured.status}: {last}"


def _anew(told: Submitted, runs: Sequence[One], organiser: Organiser) -> CheckResult:
    """Check each run's record as the submission's own was checked."""
    wanted = "each run's record passes the checks that the submission's did"
    wrong: dict[str, str] = {}
    for one in runs:
        if one.manifest is None or one.answers is None:
            continue
        facts = _facts(told, one.folder, one.manifest, one.answers, organiser)
        found = [by_id.made(id, facts) for id in by_id.CHECKS]
        wrong |= {each.id: each.found for each in found if each.state == FAIL}
    if not any(one.manifest and one.answers for one in runs):
        return unknown("rerun-record", INVALID_RUN, "no run left a record", wanted)
    found_words = listed(f"{id}: {why}" for id, why in wrong.items())
    return decided("rerun-record", INVALID_RUN, not wrong, found_words or "they do", wanted)


def accuracy(told: Submitted, runs: Sequence[One], organiser: Organiser) -> Accuracy | None:
    """The accuracy of the first run that left a record; None without one, or where the right answers are not known
    here."""
    for one in runs:
        if one.manifest is not None and one.answers is not None:
            return answer_checks.accuracy(_facts(told, one.folder, one.manifest, one.answers, organiser))
    return None


def _facts(
    told: Submitted, folder: Path, manifest: Manifest, answers: tuple[Answer, ...], organiser: Organiser
) -> Facts:
    model = told.submission.model.model_copy(update={"name": manifest.model.name})  # where it is mounted
    submission = told.submission.model_copy(update={"dataset": manifest.dataset, "model": model})
    return Facts(Submitted(folder / "judged", submission, manifest, answers), organiser)


def _differing(was_answers: Sequence[Answer], now_answers: Sequence[Answer]) -> list[int]:
    was = {answer.index: (answer.text, answer.token_ids) for answer in was_answers}
    now = {answer.index: (answer.text, answer.token_ids) for answer in now_answers}
    return [index for index in was.keys() | now.keys() if was.get(index) != now.get(index)]


def _outputs(
    measure: Manifest, records: Sequence[Manifest], rows: int, differing: Sequence[int], fresh: bool
) -> CheckResult:
    """Check how many of `rows` differ from the answers of the run that `measure` records: none where all of them
    promise equal bytes."""
    whose = "the first run's" if fresh else "the submission's"
    if not records or not rows:
        return unknown("rerun-outputs", ACCURACY, "no run answered", f"{whose} answers, but for rounding")
    allowed = min((allowance(measure.model_dump(), each.model_dump()) for each in records), key=lambda each: each.share)
    found = f"{len(differing)} of {rows} rows differ" + f": {listed(differing)}" * bool(differing)
    return decided(
        "rerun-outputs", ACCURACY, allowed.fine(len(differing), rows), found, f"{whose} answers; {allowed.words(rows)}"
    )


def _clock(runs: Sequence[One]) -> CheckResult:
    """Check each run's own time, which begins when it has opened the data, against the organiser's."""
    wanted = f"its own time within {CLOCK_SHARE:.0%} or {CLOCK_S * 1000:.0f} ms of the organiser's, the larger"
    pairs = [(one.manifest.elapsed_s, one.elapsed_s) for one in runs if one.manifest and one.elapsed_s is not None]
    if not pairs:
        return unknown("rerun-clock", INVALID_RUN, "no run has both times", wanted)
    fine = all(abs(own - ours) <= max(CLOCK_S, CLOCK_SHARE * ours) for own, ours in pairs)
    found = listed(f"{own:.3f} s where {ours:.3f} were measured" for own, ours in pairs)
    return decided("rerun-clock", INVALID_RUN, fine, found, wanted)


def _measured(data: Data, runs: Sequence[One]) -> CheckResult:
    """The time on data that no claim is about."""
    wanted = "a time by the organiser's clock"
    times = [one.elapsed_s for one in runs if one.elapsed_s is not None]
    if len(times) < len(runs) or not times:
        return unknown("rerun-time", INVALID_RUN, f"{len(times)} of {len(runs)} runs have a time", wanted)
    middle = median(times)
    spread = (max(times) - min(times)) / middle
    each = listed(f"{time:.3f}" for time in times)
    found = f"{each} s for {len(data.rows)} rows: median {middle:.3f} s, spread {spread:.1%}; not the submission's data"
    return decided("rerun-time", INVALID_RUN, True, found, wanted)


def _times(told: Submitted, runs: Sequence[One]) -> CheckResult:
    """Check that the median is not materially slower than claimed; decided only on the same device, undisturbed."""
    claimed_s, wanted = told.manifest.elapsed_s, f"at most {DIFFERENT:.0%} slower than claimed"
    times = [one.elapsed_s for one in runs if one.elapsed_s is not None]
    if not times:
        return unknown("rerun-time", INVALID_RUN, "no run has a time", wanted)
    middle = median(times)
    each = listed(f"{time:.3f}" for time in times)
    found = f"{each} s by the organiser's clock, claimed {claimed_s:.3f}: {middle / claimed_s - 1:+.1%}"
    theirs, ours = told.manifest.board.before.board, [one.measured.board[0].board for one in runs]
    same = all((each.module, each.l4t) == (theirs.module, theirs.l4t) for each in ours)
    if not same or not theirs.is_jetson:
        why = f"{found}; not both on the contest's kind of device"
        return replace(decided("rerun-time", INVALID_RUN, None, why, wanted), state=HUMAN)
    held_back = [reason for one in runs if one.seen is not None for reason in one.seen.reasons]
    if held_back:
        return unknown("rerun-time", INVALID_RUN, f"{found}; this board was disturbed: {listed(held_back)}", wanted)
    if max(times) - min(times) > DIFFERENT * middle:
        return unknown("rerun-time", INVALID_RUN, f"{found}; the runs themselves are further apart", wanted)
    return decided("rerun-time", INVALID_RUN, middle <= (1 + DIFFERENT) * claimed_s, found, wanted)
