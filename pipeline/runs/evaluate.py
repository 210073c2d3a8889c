"""Many data sets in one go: each engine is loaded once, and every set becomes a run folder of its own.

`runs/<utc>-evaluate-<model>/`: `evaluation.json` holds the request; `<set>-<engine>/` are run folders as `record`
describes them, fit for `invoke compare`; `results.json` is the table. An evaluation that was cut off goes on where it
stopped, within a set too. Time is not what it is about: nothing here is under the contest's clock.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline import paths, settings
from pipeline.accuracy import sandbox
from pipeline.accuracy.scoring import Verdicts, verdicts
from pipeline.dataset import records
from pipeline.errors import UsageError, in_words
from pipeline.files import sha256_of, write_json
from pipeline.model import lock
from pipeline.record import provenance, run_folder
from pipeline.record.outputs import read_outputs
from pipeline.runs import request as request_look
from pipeline.runs import resume
from pipeline.runs.request import Looked, Request, check, check_room
from pipeline.runs.shards import answering, sharded
from pipeline.runs.shards.plan import FOLDER
from pipeline.runs.shards.sharded import HERE, How
from pipeline.table import Say

SCHEMA = "phi3-offline-pipeline/evaluation/1"


@dataclass(frozen=True)
class Evaluation:
    """Names are as on the command line."""

    sets: tuple[str, ...]
    engines: tuple[str, ...] = ("ours",)
    model: str = "standin"
    limit: int | None = None
    """Only the first rows of each set."""
    max_new_tokens: int | None = None
    dtype: str | None = None
    device: str | None = None
    shards: int | None = None
    """So many jobs an engine, each with a piece of every set; None: in this process."""

    def request(self, dataset: str, engine: str) -> Request:
        return Request(
            dataset=dataset,
            model=self.model,
            engine=engine,
            limit=self.limit,
            max_new_tokens=self.max_new_tokens,
            dtype=self.dtype,
            device=self.device,
        )


@dataclass(frozen=True)
class Result:
    """One set by one engine."""

    dataset: str
    engine: str
    folder: Path
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    verdicts: Verdicts


def look(evaluation: Evaluation, say: Say = print) -> dict[str, Looked]:
    """Each set as `request.begin` looks at it, by name: before a folder is made, and before torch is imported."""
    by = "ours" if "ours" in evaluation.engines else "reference"  # ours refuses all that the reference does
    return {name: request_look.begin(evaluation.request(name, by), say) for name in evaluation.sets}


def evaluate(
    evaluation: Evaluation,
    folder: Path,
    execute_code: bool,
    say: Say = print,
    looked: Mapping[str, Looked] | None = None,
    how: How = HERE,
) -> list[Result]:
    """Answer all that is not answered yet, and score it all. `folder` is one that `begin` or `find` gave; `looked`
    what `look` gave just now; `how` by which queue shards are answered.

    Raises UsageError (U315) where data, model or machine are not what they were when other answers were given, and any
    other PipelineError; what was answered until then stays in the folder.
    """
    if execute_code:
        sandbox.check()
    from pipeline.model.attest import attest  # noqa: PLC0415 - takes seconds, for torch
    from pipeline.runs import engines  # noqa: PLC0415

    looked = looked or look(evaluation, say)
    data = {name: each.data for name, each in looked.items()}
    sha256 = {name: sha256_of(path) for name, path in data.items()}
    (model,) = {each.model for each in looked.values()}
    locked, origin = lock.current(model), provenance.describe()
    for engine in evaluation.engines:
        todo = {}
        for name in evaluation.sets:
            path, request = place(folder, name, engine), evaluation.request(name, engine)
            dataset = {"name": name, "sha256": sha256[name]}
            began = {**engines.manifest_head(request, model, locked, origin), "dataset": dataset}
            if evaluation.shards:
                del began["device"]  # that of the boards, which this machine may lack
            before = _manifest(path)
            # Finished or not: answers of two models must not stand in one table.
            resume.check_same(resume.Unfinished(path, request, before), began)
            if before.get("state") != run_folder.FINISHED:
                todo[path] = (request, began)
        if not todo:
            continue
        if evaluation.shards:
            sharded.answer_sets(folder / FOLDER / engine, evaluation.shards, how, todo, looked, say)
            continue
        for request, _ in todo.values():
            check_room(request, looked[request.dataset])
        say(f"loading {evaluation.model} for {engine}")
        pipe = engines.load(engine, model, dtype=evaluation.dtype, device=evaluation.device)
        engines.warm_up(pipe)
        attested = attest(model, pipe.resident(), locked)
        weights = engines.weights(attested)
        for path, (request, began) in todo.items():
            answering.answer(pipe, request, path, data[request.dataset], {**began, "weights": weights})
        del pipe
        gc.collect()  # the next engine needs the memory
    return [
        _scored(place(folder, name, engine), name, engine, data[name], execute_code)
        for name in evaluation.sets
        for engine in evaluation.engines
    ]


def begin(evaluation: Evaluation) -> Path:
    """A folder for a new evaluation. Raises UsageError (U343 no sets, U101, U301, U302, U204), ResourceError."""
    if not evaluation.sets or not evaluation.engines:
        raise UsageError(
            "U343",
            "there is nothing to evaluate",
            expected="--sets and --engine, several names by commas",
            fix="name a set, for instance --sets obqa; invoke data --list shows them",
        )
    for name in evaluation.sets:
        settings.dataset(name)
        for engine in evaluation.engines:
            check(evaluation.request(name, engine))
    folder = run_folder.make_stamped(paths.runs(), f"evaluate-{Path(evaluation.model).name[:60]}")
    write_json(folder / "evaluation.json", {"schema": SCHEMA, **asdict(evaluation)})
    return folder


def find(name_or_path: str, given: Evaluation) -> tuple[Path, Evaluation]:
    """The evaluation that `--resume` means, and its request; `given` are the other options of the command line.

    Raises UsageError: U311 no such folder, U341 it is no evaluation's, U342 an option differs from the request.
    """
    folder = run_folder.find(name_or_path)
    try:
        content = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            raise ValueError("another schema")  # noqa: TRY301
        evaluation = Evaluation(**{**content, "sets": tuple(content["sets"]), "engines": tuple(content["engines"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "U341",
            "this folder is not an evaluation's",
            where=paths.shown(folder),
            expected="the evaluation.json that invoke evaluate writes",
            actual=in_words(error),
            fix="name an evaluation, or start a new one; a single run goes on by invoke run --resume",
        ) from error
    untouched = Evaluation(sets=())
    for name in (field.name for field in fields(Evaluation)):
        now, before = getattr(given, name), getattr(evaluation, name)
        if now not in (getattr(untouched, name), before):
            raise UsageError(
                "U342",
                f"this evaluation was started with another {name}",
                where=paths.shown(folder),
                expected=before,
                actual=now,
                fix="leave the option out, or start a new evaluation",
            )
    return folder, evaluation


def place(folder: Path, dataset: str, engine: str) -> Path:
    """The run folder of one set and one engine."""
    return folder / f"{dataset}-{engine}"


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest, or nothing: a process may have been killed before it wrote one."""
    with contextlib.suppress(OSError, ValueError):
        return run_folder.read_manifest(path)
    return {}


def _scored(path: Path, dataset: str, engine: str, data: Path, execute_code: bool) -> Result:
    outputs = read_outputs(path)
    rows = records.read(data)
    texts = tuple(each["output"][0]["generated_text"] for each in outputs)
    judged = verdicts(dataset, [rows[each["index"]] for each in outputs], texts, execute_code)
    return Result(dataset, engine, path, texts, tuple(tuple(each["token_ids"]) for each in outputs), judged)
