"""One run: load, warm up, answer the file under the clock, score, write it all down.

The clock: what happens between start and stop is reading the file, tokenising, generating, decoding.
Nothing that depends on the data happens before; the result is a list of texts and the device is idle
before it stops.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import torch
from loguru import logger

from pipeline import paths, record, reference, settings, text_generation
from pipeline.accuracy.score import Score, score
from pipeline.dataset import fetch, records
from pipeline.errors import InvalidRun, UsageError
from pipeline.files import sha256_of
from pipeline.model import lock
from pipeline.model import setup as model_setup
from pipeline.progress import Bar

ENGINES = ("ours", "reference")

WARM_UP_TOKENS = 16
"""Of the warm-up chat's answer: enough to touch every path."""


class Pipe(Protocol):
    """What both engines are: called like pipe(), told where to report each finished answer."""

    def __call__(self, chats: Any, **arguments: Any) -> list[Any]: ...

    def warm_up(self) -> None: ...

    def describe(self) -> dict[str, Any]:
        """For the manifest: how it was set, and what its last call did."""


@dataclass(frozen=True)
class Request:
    """What a user asks for. Names are as on the command line."""

    dataset: str = "obqa"
    model: str = "standin"
    engine: str = "ours"
    limit: int | None = None
    """Only the first rows of the file."""
    repeat: int = 1
    """Timed sections, one after another; their median counts."""
    batch_size: int | None = None
    """Of the reference; ours packs by itself."""
    max_new_tokens: int | None = None
    dtype: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Summary:
    folder: Path
    rows: int
    load_s: float
    warm_up_s: float
    elapsed_s: float
    """Median of the timed sections."""
    all_elapsed_s: tuple[float, ...]
    score: Score
    answer_tokens: int


def run(request: Request, say: Callable[[str], None] = print) -> Summary:
    """Do a run. Raises any PipelineError; whatever was answered until then stays in the run folder."""
    check(request)
    data = fetch.resolve(request.dataset, say)
    model = model_setup.resolve(request.model, say)
    arguments = arguments_of(request)
    name = f"{Path(request.dataset).stem[:60]}-{Path(request.model).name[:60]}-{request.engine}"
    with record.RunFolder(paths.runs(), name) as folder:
        locked = lock.verify(model, say=say)
        ready = _prepare(request, model, arguments)
        timed = [
            _timed(ready, data, request, arguments, folder if turn == 0 else None) for turn in range(request.repeat)
        ]
        _same_outputs([section.outputs for section in timed])
        first = timed[0]
        result = score(first.outputs, [row.answer for row in first.rows])
        summary = Summary(
            folder=folder.path,
            rows=len(first.rows),
            load_s=ready.load_s,
            warm_up_s=ready.warm_up_s,
            elapsed_s=statistics.median(section.elapsed_s for section in timed),
            all_elapsed_s=tuple(section.elapsed_s for section in timed),
            score=result,
            answer_tokens=first.answer_tokens,
        )
        folder.write_manifest(
            {
                "command": ["invoke", *sys.argv[1:]],
                "request": asdict(request),
                "arguments": arguments,
                "dtype": str(text_generation.pick_dtype(request.dtype, model)).removeprefix("torch."),
                "device": str(ready.device),
                "model": {"name": request.model, "lock_sha256": locked.root},
                "dataset": {"name": request.dataset, "sha256": sha256_of(data), "rows": len(first.rows)},
                "phases_s": {"load": ready.load_s, "warm_up": ready.warm_up_s, "timed": summary.all_elapsed_s},
                "elapsed_s": summary.elapsed_s,
                "answer_tokens": first.answer_tokens,
                "score": {**asdict(result), "share": result.share},
                "engine": {"name": request.engine, **ready.pipe.describe()},
                "code": record.commit(),
                "environment": record.environment(),
                "peak_memory": record.peak_memory(),
            }
        )
    return summary


def arguments_of(request: Request) -> dict[str, Any]:
    """What the pipe is called with: the organiser's rules, and what the user changed."""
    rules = settings.run()
    return {
        "max_new_tokens": request.max_new_tokens or rules.max_new_tokens,
        "return_full_text": rules.return_full_text,
        "do_sample": rules.do_sample,
        "temperature": rules.temperature,
        "batch_size": request.batch_size,
    }


def check(request: Request) -> None:
    """Refuse before anything is fetched or loaded. Raises UsageError U301 to U303, U204."""
    text_generation.pick_device(request.device)
    if request.engine not in ENGINES:
        raise settings.unknown("U301", "engine", request.engine, list(ENGINES), "nothing else")
    for key in ("limit", "repeat", "batch_size", "max_new_tokens"):
        value = getattr(request, key)
        if value is not None and value < 1:
            raise UsageError(
                "U302", f"--{key.replace('_', '-')} must be at least 1", actual=value, fix="give 1 or more"
            )
    if request.batch_size is not None and request.engine == "ours":
        raise UsageError(
            "U303",
            "--batch-size is the reference's",
            expected="--engine reference",
            actual="--engine ours, which packs passes by itself",
            fix="leave --batch-size out",
        )


@dataclass(frozen=True)
class Ready:
    """A loaded and warm engine."""

    pipe: Pipe
    device: torch.device
    load_s: float
    warm_up_s: float


def _prepare(request: Request, model: Path, arguments: dict[str, Any]) -> Ready:
    """Sections one and two: load, warm up. Nothing here knows the data set."""
    rules = settings.run()
    torch.manual_seed(rules.seed)
    device = text_generation.pick_device(request.device)
    start = time.perf_counter()
    load = text_generation.load if request.engine == "ours" else reference.load
    pipe: Pipe = load(model, dtype=request.dtype, device=request.device)
    text_generation.synchronize(device)
    loaded = time.perf_counter()
    pipe.warm_up()
    pipe([dict(message) for message in rules.warmup_messages], **{**arguments, "max_new_tokens": WARM_UP_TOKENS})
    text_generation.synchronize(device)
    warm = time.perf_counter()
    logger.info("load {:.2f} s, warm-up {:.2f} s", loaded - start, warm - loaded)
    return Ready(pipe, device, loaded - start, warm - loaded)


@dataclass(frozen=True)
class Timed:
    elapsed_s: float
    rows: list[records.Record]
    outputs: list[Any]
    answer_tokens: int


def _timed(
    ready: Ready, data: Path, request: Request, arguments: dict[str, Any], folder: record.RunFolder | None
) -> Timed:
    """The section that counts."""
    with Bar(request.dataset) as bar:

        def on_answer(answered: text_generation.Answered) -> None:
            if folder is not None:
                folder.append(answered.index, answered.output, answered.token_ids)
            bar.answered(len(answered.token_ids))

        text_generation.synchronize(ready.device)
        start = time.perf_counter()
        rows = records.read(data)[: request.limit]
        bar.begin(len(rows))
        try:
            outputs = ready.pipe([row.messages for row in rows], **arguments, on_answer=on_answer, on_pass=bar.passed)
        except text_generation.PromptTooLong as error:
            error.where = f"{paths.shown(data)} line {error.index + 1}"
            raise
        text_generation.synchronize(ready.device)
        elapsed_s = time.perf_counter() - start
    _check_materialised(outputs, len(rows))
    logger.info("{} prompts in {:.3f} s, {} tokens", len(rows), elapsed_s, bar.tokens)
    return Timed(elapsed_s, rows, outputs, bar.tokens)


def _check_materialised(outputs: Any, rows: int) -> None:
    """A lazy result would not have been timed. Raises InvalidRun (I101)."""
    fine = isinstance(outputs, list) and len(outputs) == rows
    fine = fine and all(_is_output(out) for out in outputs)
    if not fine:
        raise InvalidRun(
            "I101",
            "the timed section did not end with all texts",
            expected=f"a list of {rows} outputs in pipe()'s form",
            actual=f"{type(outputs).__name__}",
            fix="report this: the time of this run means nothing",
        )


def _is_output(out: Any) -> bool:
    """One prompt's output as pipe() returns it with return_full_text=False."""
    one = isinstance(out, list) and len(out) == 1 and isinstance(out[0], dict)
    return one and isinstance(out[0].get("generated_text"), str)


def _same_outputs(repeats: list[list[Any]]) -> None:
    """Repeats must agree, or the time is not of one thing. Raises InvalidRun (I102)."""
    for turn, outputs in enumerate(repeats[1:], start=2):
        differing = [index for index, (a, b) in enumerate(zip_longest(repeats[0], outputs)) if a != b]
        if differing:
            raise InvalidRun(
                "I102",
                f"repeat {turn} answers otherwise than the first",
                where=f"rows {', '.join(map(str, differing[:10]))}",
                expected="the same outputs",
                actual=f"{len(differing)} of {len(outputs)} rows differ",
                fix="in bfloat16 compare the two with a look at near ties; in float32 report this",
            )
