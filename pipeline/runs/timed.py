"""One run: load, warm up, answer the file under the clock, compare the weights, score, write it all down.

The clock: what happens between start and stop is reading the file, tokenising, generating, decoding.
Nothing of the data is kept from before (`request.begin` only refuses); the result is a list of texts and the device is
idle before it stops. Data from a named pipe: the clock starts when the pipe is open, which waits for its writer.

If a run is cut off, `resume` answers the rest. Its answers are those of one run; it has no valid time.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from loguru import logger

from pipeline import paths, settings
from pipeline.accuracy.scoring import Verdicts, verdicts
from pipeline.dataset import records, stream
from pipeline.device import host as device_host
from pipeline.device import traffic, verdict
from pipeline.device.telemetry import Recording, Telemetry
from pipeline.engine.device import pick_device, synchronize
from pipeline.errors import ResourceError, UsageError
from pipeline.model import lock
from pipeline.model.attest import attest
from pipeline.record import provenance, run_folder, timeline
from pipeline.record.outputs import outputs_digest
from pipeline.record.timeline import Interval
from pipeline.runs import engines, resume, validity
from pipeline.runs.engines import Answers, Pipe
from pipeline.runs.progress import Bar
from pipeline.runs.request import Looked, Request, arguments_of, begin, check_room, lines_of, warning
from pipeline.table import Say
from pipeline.text.answers import Answered

WARM_UP_TOKENS = 16
"""Length of the warm-up chat's answer: enough to touch every path."""


@dataclass(frozen=True)
class Summary:
    folder: Path
    rows: int
    load_s: float
    warm_up_s: float
    elapsed_s: float | None
    """Median of the timed sections; None for a run that was resumed."""
    all_elapsed_s: tuple[float, ...]
    score: Verdicts
    """By the set's own rule; by the organiser's for a file that is no set of ours."""
    answer_tokens: int
    kept: int
    """Answers that were there already when the run was resumed."""
    verdict: verdict.Verdict | None
    """Whether the time counts; None for a run that was resumed, which has none."""


def run(
    request: Request, say: Say = print, unfinished: resume.Unfinished | None = None, looked: Looked | None = None
) -> Summary:
    """Do a run, or go on with an unfinished one whose `request` this is; `looked` if that was done just now.

    Raises any PipelineError; whatever was answered until then stays in the run folder.
    """
    looked = looked or begin(request, say)
    data, model = looked.data, looked.model
    check_room(request, looked)
    arguments, locked = arguments_of(request), lock.current(model)
    zero_s, began_utc = time.perf_counter(), provenance.utc_now()
    began = {**engines.manifest_head(request, model, locked, provenance.describe()), "began_utc": began_utc}
    if unfinished is not None:
        # A resumed run has no time: its file may be read at once, rather than after minutes of loading.
        known = {"dataset": {"name": request.dataset, "sha256": _sha256(_bytes_of(data))}}
        resume.check_same(unfinished, {**began, **known})
    with _folder(request, unfinished) as folder, _saying_what_is_kept(folder, say):
        folder.begin({**began, **resume.history(unfinished, len(folder.kept))})
        ready = _prepare(request, model, arguments, looked.prompts)
        engine = {"name": request.engine, **ready.pipe.describe()}
        if unfinished is not None:
            resume.warn_of_ties(unfinished, {**began, "engine": engine})
        folder.note({"engine": engine})
        turns = request.repeat if unfinished is None else 1
        host = device_host.current()
        board_before, sent_before = verdict.state(host), traffic.counters()
        with Telemetry(host, folder.path) as telemetry:
            timed = [
                _timed(ready, data, request, arguments, folder if turn == 0 else None, unfinished, say)
                for turn in range(turns)
            ]
        board_after, sent_after = verdict.state(host), traffic.counters()
        recording, recorded = _recorded(telemetry)
        validity.check_repeats([section.outputs for section in timed])
        first, last, sent = timed[0], timed[-1].answers, traffic.between(sent_before, sent_after)
        peak_memory = provenance.peak_memory()  # before the comparison, which needs a little of its own
        attesting_s = time.perf_counter()
        attested = attest(model, ready.pipe.resident(), locked)
        texts = [output[0]["generated_text"] for output in first.outputs]
        result = verdicts(request.dataset, first.rows, texts, request.execute_code)
        all_elapsed_s = tuple(section.elapsed_s for section in timed) if unfinished is None else ()
        judged = verdict.judge(board_before, board_after, recording) if all_elapsed_s else None
        summary = Summary(
            folder=folder.path,
            rows=len(first.rows),
            load_s=ready.load_s,
            warm_up_s=ready.warm_up_s,
            elapsed_s=statistics.median(all_elapsed_s) if all_elapsed_s else None,
            all_elapsed_s=all_elapsed_s,
            score=result,
            answer_tokens=first.answer_tokens,
            kept=len(folder.kept),
            verdict=judged,
        )
        if last.log is not None:
            timeline.write_passes(folder.path, last.log)
        folder.finish(
            {
                "phases_s": {
                    "load": ready.load_s,
                    "warm_up": ready.warm_up_s,
                    "timed": all_elapsed_s,
                    "attestation": attested.elapsed_s,
                },
                "timeline_s": timeline.describe(
                    zero_s,
                    timed,
                    load=Interval(ready.start_s, ready.load_s),
                    warm_up=Interval(ready.start_s + ready.load_s, ready.warm_up_s),
                    telemetry=recorded,
                    attestation=Interval(attesting_s, attested.elapsed_s),
                ),
                "stages_s": {"read": timed[-1].read_s, **last.stages()},
                "sections": [section.describe() for section in timed],
                "ended_utc": provenance.utc_now(),
                "network": None if sent is None else asdict(sent),
                "elapsed_s": summary.elapsed_s,
                "answer_tokens": first.answer_tokens,
                "score": result.describe(),
                "engine": {**engine, **ready.pipe.describe(), **last.describe()},
                "weights": engines.weights(attested),
                "peak_memory": peak_memory,
                "board": {"before": asdict(board_before), "after": asdict(board_after)},
                "telemetry": recording.describe(prompts=turns * (summary.rows - summary.kept)),
                "verdict": None if judged is None else asdict(judged),
            }
        )
    return summary


def _folder(request: Request, unfinished: resume.Unfinished | None) -> run_folder.RunFolder:
    if unfinished is not None:
        return run_folder.RunFolder(unfinished.path)
    name = f"{Path(request.dataset).stem[:60]}-{Path(request.model).name[:60]}-{request.engine}"
    return run_folder.create(paths.runs(), name)


@contextmanager
def _saying_what_is_kept(folder: run_folder.RunFolder, say: Say) -> Iterator[None]:
    """If a run is stopped from outside, say how many answers are kept and how to go on."""
    try:
        yield
    except (KeyboardInterrupt, ResourceError):
        say(f"{folder.answers} answers are kept; to go on: invoke run --resume {paths.shown(folder.path)}")
        raise


def _recorded(telemetry: Telemetry) -> tuple[Recording, Interval]:
    """The recording of a Telemetry whose `with` has ended, and when it was made."""
    if telemetry.recording is None or telemetry.start_s is None:
        raise RuntimeError("the telemetry has not ended")
    return telemetry.recording, Interval(telemetry.start_s, telemetry.recording.elapsed_s)


@dataclass(frozen=True)
class Ready:
    """A loaded and warm engine."""

    pipe: Pipe
    device: torch.device
    start_s: float
    """When loading began, by the clock that all intervals are measured with."""
    load_s: float
    warm_up_s: float


def _prepare(request: Request, model: Path, arguments: dict[str, Any], prompts: int | None = None) -> Ready:
    """Load and warm up: sections one and two of the organiser's script. Of the data only their number is known here."""
    rules = settings.run()
    torch.manual_seed(rules.seed)
    device = pick_device(request.device)
    start = time.perf_counter()
    pipe = engines.load(request.engine, model, dtype=request.dtype, device=request.device)
    synchronize(device)
    loaded = time.perf_counter()
    engines.warm_up(pipe, prompts)
    pipe.answer([dict(message) for message in rules.warmup_messages], **{**arguments, "max_new_tokens": WARM_UP_TOKENS})
    synchronize(device)
    warm = time.perf_counter()
    logger.info("load {:.2f} s, warm-up {:.2f} s", loaded - start, warm - loaded)
    return Ready(pipe, device, start, loaded - start, warm - loaded)


@dataclass(frozen=True)
class Timed(Interval):
    read_s: float
    """From the start until the prompts were handed to the engine."""
    rows: list[records.Record]
    outputs: list[Any]
    """One for each of `rows`, in this section or before the run was resumed."""
    answers: Answers
    """The engine's own result of this section."""
    answer_tokens: int
    passes: int

    def describe(self) -> dict[str, Any]:
        """For the manifest: counts and a hash, by which a section shows that it did its own work."""
        return {
            "passes": self.passes,
            "answer_tokens": self.answer_tokens,
            "outputs_sha256": outputs_digest(self.outputs),
        }


def _timed(
    ready: Ready,
    data: Path,
    request: Request,
    arguments: dict[str, Any],
    folder: run_folder.RunFolder | None,
    unfinished: resume.Unfinished | None,
    say: Say,
) -> Timed:
    """One timed section. Answers are appended to `folder` if there is one; rows answered there already are left out."""
    kept: Mapping[int, dict[str, Any]] = {} if folder is None else folder.kept
    with Bar(request.dataset) as bar:
        todo: list[records.Record] = []

        def on_answer(answered: Answered) -> None:
            if folder is not None:
                at_s = time.perf_counter() - start
                folder.append(todo[answered.index].index, answered.output, answered.token_ids, at_s)
            bar.answered(len(answered.token_ids))

        synchronize(ready.device)
        pipe = stream.open_stream(data, say) if stream.is_stream(data) else None
        start = time.perf_counter()
        content = _bytes_of(data, pipe)
        rows = records.parse(data, content)[: request.limit]
        if folder is not None:
            dataset = {"name": request.dataset, "sha256": _sha256(content), "rows": len(rows)}
            dataset |= {} if pipe is None else {"pipe": True}
            if unfinished is not None:
                resume.check_same(unfinished, {"dataset": dataset})
            folder.note({"dataset": dataset})
        todo.extend(row for row in rows if row.index not in kept)
        bar.begin(len(todo))
        read_s = time.perf_counter() - start
        chats, place = [row.messages for row in todo], lines_of(data, todo)
        told = {"place": place, "on_answer": on_answer, "on_pass": bar.passed, "warn": warning(data)}
        answers = ready.pipe.answer(chats, **arguments, **told)
        synchronize(ready.device)
        elapsed_s = time.perf_counter() - start
    validity.check_materialised(answers.outputs, len(todo))
    logger.info("{} prompts in {:.3f} s, {} tokens", len(todo), elapsed_s, bar.tokens)
    by_index = {row.index: output for row, output in zip(todo, answers.outputs, strict=True)}
    by_index |= {index: row["output"] for index, row in kept.items()}
    tokens = bar.tokens + sum(len(row["token_ids"]) for row in kept.values())
    outputs = [by_index[row.index] for row in rows]
    return Timed(start, elapsed_s, read_s, rows, outputs, answers, tokens, bar.passes)


def _bytes_of(data: Path, pipe: BinaryIO | None = None) -> bytes:
    """The data file, which was there when the run began. Raises ResourceError (R103) where it is not any more."""
    try:
        if pipe is None:
            return records.read_bytes(data)
        with pipe:
            return pipe.read()
    except UsageError as error:
        if data.exists():
            raise
        raise ResourceError(
            "R103",
            "the data file has vanished since the run began",
            where=paths.shown(data),
            expected="the file that was there",
            actual=error.actual,
            fix="bring it back, then go on",
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
