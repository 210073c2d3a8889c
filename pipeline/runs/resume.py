"""Going on with a run that was cut off: which one it is, and that it is still the same run.

What a run answers is fixed by the data file, the model's lock, the arguments, the dtype and the device. All of these
stand in the manifest from the run's beginning; when one of them is another now, answers of two different runs would
lie in one file, so that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from pipeline import paths
from pipeline.dataset import stream
from pipeline.errors import UsageError, in_words
from pipeline.record import promise, run_folder
from pipeline.runs.request import Request

SAME = ("arguments", "dtype", "device", "model", "dataset")
"""Keys of the manifest that must be what they were."""


@dataclass(frozen=True)
class Unfinished:
    """A run to go on with."""

    path: Path
    request: Request
    began: Mapping[str, Any]
    """Its manifest as it was left."""


def find(name_or_path: str, asked: Request) -> Unfinished:
    """The run that `--resume` means: a folder, or the name of one among the runs.

    `asked` holds the other options of the command line: those left alone are as they were, the others must be.
    Raises UsageError: U311 there is no such run, U312 it is finished, U313 it did not get as far as its manifest,
    U314 an option differs from what the run was asked, U316 its data came from a pipe.
    """
    path = run_folder.find(name_or_path)
    try:
        began = run_folder.read_manifest(path, known_schema=True)
        request, state = Request(**began["request"]), began["state"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "U313",
            "this folder does not say how the run was started",
            where=paths.shown(path / "manifest.json"),
            expected="the manifest that a run writes when it begins",
            actual=in_words(error),
            fix="start the run anew",
        ) from error
    if state == run_folder.FINISHED:
        raise UsageError(
            "U312",
            "this run is finished",
            where=paths.shown(path),
            actual="its manifest says so",
            fix="read its outputs.jsonl, or start a new run",
        )
    if stream.was_stream(began):
        fix = "start a new run, and have the data written again"
        raise stream.refuse_again("U316", "a run on data from a pipe cannot be resumed", request.dataset, fix)
    defaults = asdict(Request())
    given = {key: value for key, value in asdict(asked).items() if value != defaults[key]}
    _refuse_differing(
        "U314",
        "this run was started with other options",
        path,
        {key: began["request"].get(key) for key in given},
        given,
        f"leave out {', '.join('--' + key.replace('_', '-') for key in given)}, or start a new run",
    )
    return Unfinished(path, request, began)


def check_same(unfinished: Unfinished, now: Mapping[str, Any]) -> None:
    """`now` has keys of the manifest as they would be written today. Raises UsageError (U315) for those that differ
    from what they were. What the run had not got to yet, it had not used either."""
    keys = [key for key in SAME if key in now and key in unfinished.began]
    before = {key: unfinished.began[key] for key in keys}
    _refuse_differing(
        "U315",
        "the run cannot go on: its model, data or environment has changed since it began",
        unfinished.path,
        before,
        {key: now[key] for key in keys},
        "restore what changed, or start a new run",
    )


def warn_of_ties(unfinished: Unfinished, now: Mapping[str, Any]) -> None:
    """Log why answers from here on may differ from those of an unbroken run, where `now`, the manifest with the loaded
    engine, and the manifest of the beginning do not promise equal bytes, and the dtype is one in which logits tie."""
    promised = promise.between(unfinished.began, now)
    if now["dtype"] != "float32" and not promised.equal:
        logger.warning("answers from here on may differ at near ties from those of an unbroken run: {}", promised.why)


def history(unfinished: Unfinished | None, kept: int) -> dict[str, Any]:
    """For the manifest of a resumed run: its first command, and each time how many answers were there, by
    which code, and what had ended it."""
    if unfinished is None:
        return {}
    began = unfinished.began
    now = {
        "kept": kept,
        "code": began["code"],
        "after": began["failed"]["reason"] if "failed" in began else "the process ended without saying why",
    }
    known = {key: began[key] for key in ("command", "dataset") if key in began}
    return {**known, "resumed": [*began.get("resumed", []), now]}


def _refuse_differing(
    code: str, what: str, path: Path, before: Mapping[str, Any], now: Mapping[str, Any], fix: str
) -> None:
    before, now = _flat(before), _flat(now)
    names = [name for name in now if before.get(name) != now[name]]
    if names:
        raise UsageError(
            code,
            what,
            where=f"{paths.shown(path)}: {', '.join(names)}",
            expected=", ".join(f"{name} {_plain(before.get(name))}" for name in names),
            actual=", ".join(f"{name} {_plain(now[name])}" for name in names),
            fix=fix,
        )


def _plain(value: object) -> str:
    return "none" if value is None else str(value)


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """{"model": {"name": x}} as {"model.name": x}."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= {f"{key}.{k}": v for k, v in inner.items()} if isinstance(inner, Mapping) else {key: inner}
    return flat
