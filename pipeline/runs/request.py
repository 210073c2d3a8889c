"""A run's request: its options as on the command line, checked, and the arguments of pipe() that follow from them.

Imports no torch, so that whatever is wrong with options, data file or checkpoint's settings is said within seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from pipeline import paths, settings
from pipeline.accuracy import sandbox
from pipeline.dataset import fetch, records, stream
from pipeline.errors import FormError, UsageError
from pipeline.model import config
from pipeline.model import fetch as model_setup
from pipeline.table import Say
from pipeline.text import arguments
from pipeline.text.chat_template import Chats, Prompts, prompts_of
from pipeline.text.quick_prompts import Doubt, QuickPrompts, is_templates_own
from pipeline.text.readable import readable

ENGINES = ("ours", "reference")

SURE = 0.95
"""Share of the context below which a prompt is within it, whoever counts; beyond it, so far above."""


@dataclass(frozen=True)
class Request:
    """Names are as on the command line."""

    dataset: str = "obqa"
    model: str = "standin"
    engine: str = "ours"
    limit: int | None = None
    """Only the first rows of the file."""
    repeat: int = 1
    """Timed sections, one after another; their median counts."""
    batch_size: int | None = None
    """Prompts of a batch of the reference; ours packs by itself."""
    max_new_tokens: int | None = None
    dtype: str | None = None
    device: str | None = None
    execute_code: bool = False
    """Answers to sets of programs may be run, to score them."""


def arguments_of(request: Request) -> dict[str, Any]:
    """Keyword arguments of pipe(): the organiser's, and what the request changes of them."""
    rules = settings.run()
    return {
        "max_new_tokens": request.max_new_tokens or rules.max_new_tokens,
        "return_full_text": rules.return_full_text,
        "do_sample": rules.do_sample,
        "temperature": rules.temperature,
        "batch_size": request.batch_size,
    }


def check(request: Request) -> None:
    """Refuse before anything is fetched or loaded. Raises UsageError U301 to U303, U204, and EnvironmentProblem
    (E311) where programs cannot be run: a run should not lose its time for want of a score."""
    if request.device not in (None, "cpu"):
        from pipeline.engine.device import pick_device  # noqa: PLC0415 - takes seconds, for torch

        pick_device(request.device)
    if request.execute_code:
        sandbox.check()
    if request.engine not in ENGINES:
        raise settings.unknown("U301", "engine", request.engine, list(ENGINES), "")
    for key in ("limit", "repeat", "batch_size", "max_new_tokens"):
        value = getattr(request, key)
        if value is not None and value < 1:
            raise UsageError(
                "U302", f"--{key.replace('_', '-')} must be at least 1", actual=value, fix="give 1 or more"
            )
    if request.batch_size is not None and request.engine == "ours":
        raise UsageError(
            "U303",
            "--batch-size is only for the reference",
            expected="--engine reference",
            actual="--engine ours, which packs passes by itself",
            fix="leave --batch-size out",
        )


def check_data(request: Request, data: Path) -> None:
    """Raise UsageError (U304) where a pipe would have to be read more than once."""
    if request.repeat > 1 and stream.is_stream(data):
        fix = "leave --repeat out, or write the data to a file first"
        raise stream.refuse_again("U304", "--repeat reads its data again for every section", data, fix)


@dataclass(frozen=True)
class Longest:
    """The longest prompt of a file, counted before loading."""

    index: int
    tokens: int
    where: str


@dataclass(frozen=True)
class Looked:
    """The checked model and data of a request, before anything heavy is imported or loaded; nothing of the data is
    kept."""

    data: Path
    model: Path
    longest: Longest | None
    """None for a pipe, which is not opened before the clock, and for the reference, which takes what memory holds."""
    prompts: int | None = None
    """How many there are; None for a pipe."""


def begin(request: Request, say: Say = print) -> Looked:
    """Refuse now, by names, files and settings alone, what would be refused after minutes of loading, and warn of what
    would be warned of. Imports no torch where all is well.

    A file's form comes first. A pipe is not opened before the clock. Nothing of the data is kept: the timed section
    reads, fills in and tokenises again, with another tokenizer. Raises what `check`, `check_data`, and finding or
    fetching data and model raise, FormError (F1xx, F204 to F206) and IntegrityError (M3xx).
    """
    check(request)
    data = fetch.resolve(request.dataset, say)
    check_data(request, data)
    rows = _rows(request, data)
    model = model_setup.resolve(request.model, say)
    return Looked(data, model, _longest(request, model, data, rows), None if stream.is_stream(data) else len(rows))


def check_room(request: Request, looked: Looked) -> None:
    """Raise ResourceError where what is free now cannot hold the weights (R302) or the longest prompt with its answer
    (R301). Imports torch, and still loads nothing."""
    if looked.longest is None:
        return
    from pipeline.engine import memory  # noqa: PLC0415 - takes seconds
    from pipeline.engine.device import pick_device  # noqa: PLC0415
    from pipeline.engine.engine import DoesNotFit  # noqa: PLC0415
    from pipeline.engine.free_memory import free_bytes  # noqa: PLC0415
    from pipeline.model.dtype import pick_dtype  # noqa: PLC0415

    shape, device = config.read_shape(looked.model), pick_device(request.device)
    most = memory.most_tokens(shape, pick_dtype(request.dtype, looked.model), device, free_bytes(device))
    new = arguments_of(request)["max_new_tokens"]
    if looked.longest.tokens + new > most:
        error = DoesNotFit(looked.longest.index, looked.longest.tokens, new, most)
        error.where = looked.longest.where
        raise error


def warning(data: Path) -> Callable[[str], object]:
    """How a call warns of the prompts of `data`: for the log alone where the look beforehand has said it."""
    return logger.warning if stream.is_stream(data) else logger.info


def _rows(request: Request, data: Path) -> list[records.Record]:
    return [] if stream.is_stream(data) else records.read(data)[: request.limit]


def _longest(request: Request, model: Path, data: Path, rows: Sequence[records.Record]) -> Longest | None:
    shape = config.read_shape(model)
    if request.engine == "ours":
        config.check_generation(model)
    place, chats = lines_of(data, rows), [row.messages for row in rows]
    lengths = _lengths(model, chats, shape.vocab, shape.max_positions, place)
    if not lengths or request.engine != "ours":
        return None
    beyond = [index for index, length in enumerate(lengths) if length >= shape.max_positions]
    if beyond:
        logger.warning(arguments.beyond_context(beyond, shape.max_positions, place))
    index = max(range(len(lengths)), key=lengths.__getitem__)
    return Longest(index, lengths[index], place(index))


def _lengths(model: Path, chats: Chats, vocab: int, context: int, place: Callable[[int], str]) -> list[int]:
    """Tokens of each prompt, by the checkpoint's files alone where these leave no doubt, else by transformers."""
    try:
        lengths = [len(ids) for ids in prompts_of(QuickPrompts(model), chats, vocab, place)]
        if not any(SURE * context <= length < context / SURE for length in lengths):
            return lengths
    except Doubt as doubt:
        logger.debug("transformers has to look at the tokenizer: {}", doubt)
    except FormError as error:
        if is_templates_own(error.__cause__):
            raise
    prompts = by_transformers(model)
    return [len(ids) for ids in prompts_of(prompts, chats, vocab, place)]


def by_transformers(model: Path) -> Prompts:
    """The prompts as transformers' tokenizer makes them.

    Raises IntegrityError: M311, M313 there is no chat template.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

    with readable(paths.shown(model)):
        return Prompts(AutoTokenizer.from_pretrained(str(model)))


def lines_of(data: Path, rows: Sequence[records.Record]) -> Callable[[int], str]:
    """How a call with the prompts of `rows` names one of them: by its line in the file."""
    return lambda index: f"{paths.shown(data)} line {rows[index].index + 1}"
