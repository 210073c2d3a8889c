"""From results to a verdict: a submission's runs held against its claims, its time beside that of the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.check import INVALID_RUN, CheckResult, plain, unknown
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.judge import classes, measured_file, references
from pipeline.contest.judge.plan import Entry, Plan
from pipeline.contest.judge.references import Measurement
from pipeline.contest.judge.work import image_check
from pipeline.contest.verify import rerun, verify
from pipeline.contest.verify.again.once import One
from pipeline.contest.verify.verify import Verdict
from pipeline.queues import attempts


@dataclass(frozen=True)
class Settled:
    """A run with its result."""

    key: str
    kind: str
    why: str
    node: str
    moment_s: float
    one: One | None
    result: Mapping[str, Any]


def settled(place: Path, key: str) -> Settled | None:
    run = place / "runs" / key
    result = attempts.result(run)
    if result is None:
        return None
    attempt = run / str(result.get("attempt") or "-")
    started = attempts.read(attempt / attempts.STARTED) or {}
    return Settled(
        key, str(result["kind"]), str(result.get("why", "")), str(result.get("node") or ""),
        float(started.get("at_s", 0.0)), measured_file.read(attempt), result,
    )  # fmt: skip


def conclude(plan: Plan, entry: Entry, place: Path, organiser: Organiser) -> Verdict:
    """The verdict of a submission whose runs are all settled; written beside its archive."""
    tar = place.parent / entry.file
    keys = [each.counts for each in references.turns(plan, place) if plan.entry(each.counts) is entry]
    runs = [done for key in keys if (done := settled(place, key)) is not None]
    made = [each for each in runs if each.one is not None and each.kind != classes.NODE]
    known = references.reference_times(place)
    timed = [(each.node, each.moment_s, each.one.elapsed_s) for each in made
             if each.one is not None and each.one.elapsed_s is not None]  # fmt: skip
    times, drift = references.levelled(timed, known)
    noted = (*_image(runs), *_lacking(plan, runs), *_drift(drift))
    ones = tuple(each.one for each in made if each.one is not None)
    out = verify.folder_of(tar)
    verdict = verify.verify(tar, organiser, rerun.Request(len(ones), here=False, done=ones, noted=noted), out)
    told: dict[str, Any] = {"judged": _judged(runs, times, known, drift)}
    if times and known:
        told |= {"median_s": median(times), "spread": told["judged"]["spread"]}
    verdict = replace(verdict, rerun={**(verdict.rerun or {}), **told} if verdict.rerun else None)
    verify.write(verdict, out)
    return verdict


def _judged(
    runs: Sequence[Settled], times: Sequence[float], known: Mapping[str, Sequence[Measurement]], drift: float
) -> dict[str, Any]:
    middle = median(times) if times else None
    return {
        "spread": (max(times) - min(times)) / middle if middle else None,
        "levelled_s": list(times),
        "reference_runs": sum(map(len, known.values())),
        "drift": drift,
        "runs": [
            {
                "key": each.key, "class": each.kind, "why": plain(each.why), "node": each.node,
                "device": each.result.get("device"), "elapsed_s": each.result.get("elapsed_s"),
            }
            for each in runs
        ],
    }  # fmt: skip


def _image(runs: Sequence[Settled]) -> list[CheckResult]:
    told = next((each.result["image"] for each in runs if each.result.get("image")), None)
    return [image_check(told)]


def _lacking(plan: Plan, runs: Sequence[Settled]) -> list[CheckResult]:
    """Runs that no board brought to an end: nobody's fault, and nothing can be said."""
    lost = [each for each in runs if each.kind == classes.NODE]
    if not lost:
        return []
    why = f"{len(lost)} of {plan.repeat} were not brought to an end by any board: {lost[0].why}"
    return [unknown("judge-boards", INVALID_RUN, why, f"{plan.repeat} runs")]


def _drift(drift: float) -> list[CheckResult]:
    if drift <= references.DRIFT:
        return []
    why = f"two reference runs around a run are {drift:.1%} apart"
    return [unknown("judge-drift", INVALID_RUN, why, f"at most {references.DRIFT:.0%}; look at that board")]
