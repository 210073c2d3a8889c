"""Many data sets in one go: each engine is loaded once, and every set becomes a run folder of its own.

`runs/<utc>-evaluate-<model>/`: `evaluation.json` says what was asked; `<set>-<engine>/` are run folders as `record`
describes them, fit for `invoke compare`; `results.json` is the table. An evaluation that was cut off goes on where it
stopped, within a set too. Time is not what it is about: nothing here is under the contest's clock.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline import paths, reference, settings, text_generation
from pipeline.accuracy import sandbox
from pipeline.accuracy.scoring import Verdicts, verdicts
from pipeline.dataset import fetch, records
from pipeline.engine.device import pick_device
from pipeline.errors import UsageError
from pipeline.files import sha256_of, write_json
from pipeline.model import fetch as model_setup
from pipeline.model import lock
from pipeline.model.attest import attest
from pipeline.model.dtype import pick_dtype
from pipeline.record import provenance, run_folder
from pipeline.record.outputs import read_outputs
from pipeline.runs import resume
from pipeline.runs.progress import Bar
from pipeline.runs.request import Request, arguments_of, check
from pipeline.text.answers import Answered
from pipeline.text.arguments import PromptTooLong

SCHEMA = "phi3-offline-pipeline/evaluation/1"


@dataclass(frozen=True)
class Asked:
    """Names are as on the command line."""

    sets: tuple[str, ...]
    engines: tuple[str, ...] = ("ours",)
    model: str = "standin"
    limit: int | None = None
    """Only the first rows of each set."""
    max_new_tokens: int | None = None
    dtype: str | None = None
    device: str | None = None

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


def evaluate(asked: Asked, folder: Path, execute_code: bool, say: Callable[[str], None] = print) -> list[Result]:
    """Answer all that is not answered yet, and score it all. `folder` is one that `begin` or `find` gave.

    Raises UsageError (U315) where data, model or machine are not what they were when other answers were given, and any
    other PipelineError; what was answered until then stays in the folder.
    """
    if execute_code:
        sandbox.check()
    data = {name: fetch.resolve(name, say) for name in asked.sets}
    model = model_setup.resolve(asked.model, say)
    locked = lock.current(model)
    known = {
        "command": ["invoke", *sys.argv[1:]],
        "dtype": str(pick_dtype(asked.dtype, model)).removeprefix("torch."),
        "device": str(pick_device(asked.device)),
        "model": {"name": asked.model, "lock_sha256": locked.root},
        "code": provenance.commit(),
        "environment": provenance.environment(),
    }
    for engine in asked.engines:
        todo = {}
        for name in asked.sets:
            path, request = place(folder, name, engine), asked.request(name, engine)
            dataset = {"name": name, "sha256": sha256_of(data[name])}
            began = {"request": asdict(request), "arguments": arguments_of(request), "dataset": dataset, **known}
            before = _manifest(path)
            # Finished or not: answers of two models must not stand in one table.
            resume.check_same(resume.Unfinished(path, request, before), began)
            if before.get("state") != run_folder.FINISHED:
                todo[path] = (request, began)
        if not todo:
            continue
        say(f"loading {asked.model} for {engine}")
        load = text_generation.load if engine == "ours" else reference.load
        pipe = load(model, dtype=asked.dtype, device=asked.device)
        pipe.warm_up()
        attested = attest(model, pipe.resident(), locked)
        weights = {key: value for key, value in asdict(attested).items() if key != "elapsed_s"}
        for path, (request, began) in todo.items():
            _answer(pipe, request, path, data[request.dataset], {**began, "weights": weights})
        del pipe
        gc.collect()  # the next engine needs the memory
    return [
        _scored(place(folder, name, engine), name, engine, data[name], execute_code)
        for name in asked.sets
        for engine in asked.engines
    ]


def begin(asked: Asked) -> Path:
    """A folder for a new evaluation. Raises UsageError (U343 no sets, U101, U301, U302, U204), ResourceError."""
    if not asked.sets or not asked.engines:
        raise UsageError(
            "U343",
            "there is nothing to evaluate",
            expected="--sets and --engine, several names by commas",
            fix="name a set, for instance --sets obqa; invoke data --list shows them",
        )
    for name in asked.sets:
        settings.dataset(name)
        for engine in asked.engines:
            check(asked.request(name, engine))
    folder = run_folder.make_stamped(paths.runs(), f"evaluate-{Path(asked.model).name[:60]}")
    write_json(folder / "evaluation.json", {"schema": SCHEMA, **asdict(asked)})
    return folder


def find(name_or_path: str, given: Asked) -> tuple[Path, Asked]:
    """The evaluation that `--resume` means, and what it was asked; `given` are the other options of the command line.

    Raises UsageError: U311 no such folder, U341 it is no evaluation's, U342 an option differs from what it was asked.
    """
    folder = run_folder.find(name_or_path)
    try:
        told = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        if told.pop("schema") != SCHEMA:
            raise ValueError("another schema")  # noqa: TRY301
        asked = Asked(**{**told, "sets": tuple(told["sets"]), "engines": tuple(told["engines"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "U341",
            "this folder is not an evaluation's",
            where=paths.shown(folder),
            expected="the evaluation.json that invoke evaluate writes",
            actual=f"{type(error).__name__}: {error}",
            fix="name an evaluation, or start a new one; a single run goes on by invoke run --resume",
        ) from error
    untouched = Asked(sets=())
    for name in (field.name for field in fields(Asked)):
        now, before = getattr(given, name), getattr(asked, name)
        if now not in (getattr(untouched, name), before):
            raise UsageError(
                "U342",
                f"the evaluation was asked otherwise: {name}",
                where=paths.shown(folder),
                expected=before,
                actual=now,
                fix="leave the option out, or start a new evaluation",
            )
    return folder, asked


def place(folder: Path, dataset: str, engine: str) -> Path:
    """The run folder of one set and one engine."""
    return folder / f"{dataset}-{engine}"


def _manifest(path: Path) -> dict[str, Any]:
    """As far as there is one: a process may have been killed before it wrote any."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    return {}


def _answer(pipe: Any, request: Request, path: Path, data: Path, began: Mapping[str, Any]) -> None:
    """The rows of one set that are not answered yet."""
    path.mkdir(exist_ok=True)
    rows = records.read(data)[: request.limit]
    with run_folder.RunFolder(path) as folder, Bar(request.dataset) as bar:
        folder.begin({**began, "dataset": {**began["dataset"], "rows": len(rows)}})
        todo = [row for row in rows if row.index not in folder.kept]
        bar.begin(len(todo))

        def on_answer(answered: Answered) -> None:
            folder.append(todo[answered.index].index, answered.output, answered.token_ids)
            bar.answered(len(answered.token_ids))

        start = time.perf_counter()
        try:
            pipe([row.messages for row in todo], **began["arguments"], on_answer=on_answer, on_pass=bar.passed)
        except PromptTooLong as error:
            error.where = f"{paths.shown(data)} line {todo[error.index].index + 1}"
            raise
        elapsed_s = time.perf_counter() - start
        engine = {"name": request.engine, **pipe.describe()}
        folder.finish({"answered": len(todo), "answered_s": elapsed_s, "engine": engine})


def _scored(path: Path, dataset: str, engine: str, data: Path, execute_code: bool) -> Result:
    outputs = read_outputs(path)
    rows = records.read(data)
    texts = tuple(each["output"][0]["generated_text"] for each in outputs)
    judged = verdicts(dataset, [rows[each["index"]] for each in outputs], texts, execute_code)
    return Result(dataset, engine, path, texts, tuple(tuple(each["token_ids"]) for each in outputs), judged)
