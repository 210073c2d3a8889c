"""A run's request: its options as on the command line, checked, and the arguments of pipe() that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths, settings
from pipeline.accuracy import sandbox
from pipeline.dataset import records, stream
from pipeline.engine.device import pick_device
from pipeline.errors import IntegrityError, UsageError
from pipeline.model import config
from pipeline.text.chat_template import Prompts, prompts_of

ENGINES = ("ours", "reference")


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
    pick_device(request.device)
    if request.execute_code:
        sandbox.check()
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


def check_data(request: Request, data: Path) -> None:
    """Raise UsageError (U304) where a pipe would have to be read more than once."""
    if request.repeat > 1 and stream.is_stream(data):
        fix = "leave --repeat out, or write the data to a file first"
        raise stream.refuse_again("U304", "--repeat reads its data again for every section", data, fix)


def look(request: Request, model: Path, data: Path) -> None:
    """Raise now what a run would raise of its data file or its checkpoint's settings after minutes of loading.

    For files only: a pipe is not opened before the clock. Nothing of the data is kept: the timed section reads, fills
    in and tokenises again, with another tokenizer. Raises FormError (F1xx, F204 to F206), UsageError (U111 to U113),
    and IntegrityError (M3xx).
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

    shape = config.read_shape(model)
    if request.engine == "ours":
        config.check_generation(model)
    try:
        prompts = Prompts(AutoTokenizer.from_pretrained(str(model)))
    except IntegrityError:
        raise  # M313: it has no template
    except Exception as error:  # transformers, tokenizers and Jinja raise what they like of a damaged file
        raise IntegrityError(
            "M311",
            "the checkpoint's tokenizer or chat template cannot be read",
            where=paths.shown(model),
            expected="tokenizer.json, tokenizer_config.json and a template as transformers reads them",
            actual=" ".join(f"{type(error).__name__}: {error}".split())[:200],
            fix="fetch the checkpoint's files again, or mend the template",
        ) from error
    if stream.is_stream(data):
        return
    rows = records.read(data)[: request.limit]
    place = lines_of(data, rows)
    prompts_of(prompts, [row.messages for row in rows], shape.vocab, place)


def lines_of(data: Path, rows: Sequence[records.Record]) -> Callable[[int], str]:
    """How a call with the prompts of `rows` names one of them: by its line in the file."""
    return lambda index: f"{paths.shown(data)} line {rows[index].index + 1}"
