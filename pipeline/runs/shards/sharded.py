"""`invoke run --shards N`: one large file in shards, and the run folder that one process would have written."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import files, paths, table
from pipeline.accuracy.scoring import Verdicts, verdicts
from pipeline.dataset import records, stream
from pipeline.errors import UsageError
from pipeline.model import lock
from pipeline.queues import opening
from pipeline.record import run_folder
from pipeline.record.outputs import read_outputs
from pipeline.runs import resume
from pipeline.runs.request import Looked, Request, arguments_of
from pipeline.runs.shards import drive, merge, plan
from pipeline.runs.shards.plan import FOLDER, Part, Plan
from pipeline.table import Say


@dataclass(frozen=True)
class How:
    """Names are as on the command line."""

    shards: int | None
    """None: those of the plan that is there."""
    on: str = "local"
    partition: str | None = None


@dataclass(frozen=True)
class Summary:
    folder: Path
    rows: int
    shards: int
    kept: int
    """Answers that were there when an attempt began."""
    answer_tokens: int
    score: Verdicts
    part: Part


HERE = How(None)


def is_sharded(unfinished: resume.Unfinished) -> bool:
    return "shards" in unfinished.began


def check(request: Request, how: How) -> None:
    """Refuse before anything is queued. Raises UsageError: U344 options that do not go together, U347 what shards
    have no use for, and what `opening.check` does."""
    opening.check(how.on, how.partition)
    if request.repeat > 1:
        raise UsageError(
            "U344", "a run in shards has no time for the contest, so there is nothing to repeat", where="--repeat",
            expected="1", actual=request.repeat, fix="leave --repeat or --shards out",
        )  # fmt: skip


def check_used(shards: int | None, on: str, partition: str, *, resumed: bool) -> None:
    """Check that options of a queue come with a number of shards.

    Raises UsageError (U347) for a queue without shards.
    """
    if shards is None and not resumed and (on != "local" or partition):
        raise UsageError(
            "U347", "--on and --partition need --shards", where="--on, --partition", expected="--shards N",
            fix="give --shards too, or leave these out",
        )  # fmt: skip


def run(
    request: Request, looked: Looked, how: How, say: Say = print, unfinished: resume.Unfinished | None = None
) -> Summary:
    """Do a run in shards, or go on with one. Raises what its parts do; whole answers stay."""
    check(request, how)
    if stream.is_stream(looked.data):
        fix = "leave --shards out, or write the data to a file first"
        raise stream.refuse_again("U348", "every shard reads the data for itself", looked.data, fix)
    locked = lock.current(looked.model)
    count = how.shards or 0
    if unfinished is not None:
        count = int(unfinished.began["shards"]["count"])
        if how.shards not in (None, count):
            raise UsageError(
                "U349", "this run was cut into another number of shards", where="--shards", expected=count,
                actual=how.shards, fix="leave --shards out, or start a new run",
            )  # fmt: skip
    before = plan.read(unfinished.path / FOLDER) if unfinished is not None else None
    made = before.parts[0] if before else plan.part(_name(request), request, looked.data, looked.model, count)
    plan.check(count, made.rows)
    path = unfinished.path if unfinished is not None else _folder(request)
    place = path / FOLDER
    command = ["invoke", *sys.argv[1:]]
    began = {"command": command, "request": asdict(request), "arguments": arguments_of(request),
             "model": {"name": request.model, "lock_sha256": locked.root}}  # fmt: skip
    if unfinished is not None:
        sha256 = files.sha256_of(looked.data)
        resume.check_same(unfinished, {**began, "dataset": {"name": request.dataset, "sha256": sha256}})
    else:
        with run_folder.RunFolder(path) as folder:
            dataset = {"name": request.dataset, "sha256": made.sha256}
            folder.begin({**began, "dataset": dataset, "shards": {"time": merge.NO_TIME, "count": count}})
    whole = plan.write(Plan(request.engine, str(looked.model.resolve()), locked.root, count, (made,)), place)
    (part,) = whole.parts
    say(f"{part.rows:,} rows in {count} shards; to go on if this is cut off: invoke run --resume {path.name}")
    queue = drive.open_queue(place, how.on, how.partition, request.device)
    attempts = drive.answer(place, whole, queue, how.on, say)
    shards = [merge.read(each / part.name, number) for number, each in enumerate(attempts, 1)]
    merge.check(part, shards)
    judged = _scored(request, looked.data, shards)
    merge.merge(part, shards, path, command, {"score": judged.describe()})
    tokens = sum(len(row["token_ids"]) for row in read_outputs(path))
    kept = sum(int(each.manifest["shard"]["kept"]) for each in shards)
    return Summary(path, part.rows, count, kept, tokens, judged, part)


def answer_sets(
    place: Path, count: int, how: How, todo: Mapping[Path, tuple[Request, Mapping[str, Any]]],
    looked: Mapping[str, Looked], say: Say,
) -> None:  # fmt: skip
    """An engine's share of an evaluation: each shard has a piece of every set. Writes the run folders that are the keys
    of `todo`, whose values are the request and the manifest's head of each."""
    ((model, engine, lock_sha256),) = {
        (looked[request.dataset].model, request.engine, began["model"]["lock_sha256"])
        for request, began in todo.values()
    }
    whole = plan.read(place)
    if whole is None:
        parts = tuple(plan.part(request.dataset, request, looked[request.dataset].data, model, count)
                      for request, _ in todo.values())  # fmt: skip
        plan.check(count, max(each.rows for each in parts))
        whole = plan.write(Plan(engine, str(model.resolve()), lock_sha256, count, parts), place)
    queue = drive.open_queue(place, how.on, how.partition, next(iter(todo.values()))[0].device)
    attempts = drive.answer(place, whole, queue, how.on, say)
    parts_by_name = {each.name: each for each in whole.parts}
    for path, (request, began) in todo.items():
        part = parts_by_name[request.dataset]
        shards = [merge.read(attempts[number] / part.name, number + 1) for number in range(len(part.pieces))]
        path.mkdir(exist_ok=True)
        merge.merge(part, shards, path, began["command"], {})


def _scored(request: Request, data: Path, shards: list[merge.Shard]) -> Verdicts:
    answered = {index: row for each in shards for index, row in each.rows.items()}
    rows = [row for row in records.read(data)[: request.limit] if row.index in answered]
    texts = [answered[row.index]["output"][0]["generated_text"] for row in rows]
    return verdicts(request.dataset, rows, texts, request.execute_code)


def _name(request: Request) -> str:
    return Path(request.dataset).stem[:60]


def _folder(request: Request) -> Path:
    return run_folder.make_stamped(
        paths.runs(), f"{_name(request)}-{Path(request.model).name[:60]}-{request.engine}-shards"
    )


def text(request: Request, summary: Summary) -> str:
    """A few lines for the terminal."""
    part, score = summary.part, summary.score
    right = f"{score.correct} of {score.scored} right by the rule `{score.rule}`" if score.scored else "none"
    cut: list[tuple[str, Any]] = [
        ("time", f"{merge.NO_TIME}; for one, leave --shards out"),
        ("score", f"{right}; {score.note}" if score.note else right),
        ("answers", f"{summary.answer_tokens} tokens to {summary.rows} prompts, in file order"),
        ("shards", f"{summary.shards}; {part.repeated:.1%} of the rows computed once more, the longest "
                   f"{part.longest:.2f} x an equal part (predicted){_kept(summary)}"),
        ("written", paths.shown(summary.folder)),
    ]  # fmt: skip
    return table.labelled(f"{request.dataset} · {request.model} · {request.engine}", cut)


def _kept(summary: Summary) -> str:
    return f"; {summary.kept} answers kept of attempts that were cut off" if summary.kept else ""
