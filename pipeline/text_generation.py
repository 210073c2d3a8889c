"""The drop-in for transformers' text-generation pipe: chats in, `[[{"generated_text": …}], …]` out.

    pipe = load("models/standin")
    outputs = pipe(chats, max_new_tokens=500, return_full_text=False, do_sample=False)

Returns byte for byte what the installed transformers' pipe() returns for the same chats and arguments,
in input order. Decoding is greedy: arguments that would sample are refused.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import missing_package

try:
    import numpy  # noqa: F401 - whichever is missing is named, and what to do
    import torch
    from loguru import logger
except ModuleNotFoundError as error:
    raise missing_package(error) from None

from pipeline.dataset import records
from pipeline.engine import backend, invariance, memory, projection
from pipeline.engine.cost import PassCost
from pipeline.engine.device import pick_device
from pipeline.engine.engine import DoesNotFit, Engine, Progress, Stats
from pipeline.engine.free_memory import free_bytes
from pipeline.engine.pass_log import PassLog
from pipeline.model import config, loader
from pipeline.model.dtype import pick_dtype
from pipeline.process import importing
from pipeline.table import Say
from pipeline.text import arguments
from pipeline.text.answers import Answered
from pipeline.text.candidates import Candidates, end_of_answer
from pipeline.text.chat_template import Prompts, prompts_of, token_ids
from pipeline.text.detokenize import Form, probe
from pipeline.text.readable import readable

Chat = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Answers:
    """The outputs of one call in input order, and the counts and seconds of the work for them."""

    outputs: list[Any]
    """One for each chat, as pipe() returns it."""
    stats: Stats
    log: PassLog
    tokenise_s: float
    single: bool
    """The call was for one chat, not for a list of chats."""

    def stages(self) -> dict[str, float]:
        """Seconds of the call's parts: `hand_on`, where texts are made, lies between the passes."""
        return {
            "tokenise": self.tokenise_s,
            "plan": self.log.planned_s,
            "passes": self.stats.passes_s,
            "hand_on": sum(self.log.handed_on_s),
        }

    def describe(self) -> dict[str, Any]:
        """For a run's manifest: the call's counts, and prediction against measurement."""
        stats = self.stats
        return {
            "stats": asdict(stats),
            "tokens_saved_by_sharing": stats.prompt_tokens - stats.tree_tokens,
            "prediction": {"passes_predicted_s": stats.predicted_s, "passes_measured_s": stats.passes_s},
        }


class TextGenerator:
    """A loaded model, called like a pipe; `answer` returns the counts and seconds of the call as well."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        stop_tokens: frozenset[int],
        planned: memory.Plan,
        *,
        new_tokens: int | None = None,
        say: Say = lambda line: None,
    ) -> None:
        """`new_tokens`: of an answer, where a call names no number."""
        self.planned, self.new_tokens = planned, new_tokens
        self.engine, self.tokenizer, self.stop_tokens = engine, tokenizer, stop_tokens
        self.form: Form = probe(getattr(tokenizer, "response_template", None))
        self.prompts = Prompts(tokenizer)
        self.end = end_of_answer(tokenizer, stop_tokens, say)

    def __call__(self, chats: Any, **arguments: Any) -> Any:
        """The outputs of `answer` as pipe() returns them: one chat's, or a list with one for each chat; of a generator
        an iterator, which has them all already."""
        answers = self.answer(chats, **arguments)
        outputs = answers.outputs[0] if answers.single else answers.outputs
        return iter(outputs) if isinstance(chats, Generator) and outputs and not answers.single else outputs

    def answer(
        self,
        chats: Any,
        *,
        max_new_tokens: int | None = None,
        return_full_text: bool = True,
        do_sample: bool = False,
        temperature: float | None = None,
        batch_size: int | None = None,
        on_answer: Callable[[Answered], None] = lambda answered: None,
        on_pass: Callable[[Progress], None] = lambda progress: None,
        place: Callable[[int], str] = arguments.counted,
        warn: Callable[[str], object] = logger.warning,
        **unknown: Any,
    ) -> Answers:
        """Answer one chat, or whatever of chats pipe() takes: a list, a `KeyDataset`, another data set, a generator.

        `max_new_tokens`: left out, as many as the installed pipe() would make. `temperature` and `batch_size` are taken
        and change nothing: pipe() ignores the first without sampling, and the engine packs by itself. `place` names an
        input in messages, `warn` takes the one of prompts beyond the context. Raises UsageError (U2xx) for arguments
        that pipe() would sample with or that are not known here, FormError (F2xx) for inputs that are no chats,
        ResourceError (R301) for a prompt that memory cannot hold.
        """
        new_tokens = self.new_tokens if max_new_tokens is None else max_new_tokens
        arguments.refuse(new_tokens, do_sample, unknown)
        assert new_tokens is not None  # refused above
        start = time.perf_counter()
        rows = arguments.rows_of(chats)
        single = bool(rows) and all(isinstance(row, dict) for row in rows)
        chat_list: list[Chat] = [rows] if single else rows
        arguments.check_chats(chat_list, place)
        vocabulary = self.engine.weights.shape.vocab
        prompts = prompts_of(self.prompts, chat_list, vocabulary, place) if chat_list else []
        self._warn_of_lengths(prompts, place, warn)
        tokenise_s = time.perf_counter() - start
        outputs: list[Any] = [None] * len(prompts)

        def finished(index: int, tokens: list[int]) -> None:
            text = self.form.text(self.tokenizer, prompts[index], tokens)
            if return_full_text:
                message = self.form.message(self.tokenizer, prompts[index], text)
                outputs[index] = [{"generated_text": [*chat_list[index], message]}]
            else:
                outputs[index] = [{"generated_text": text}]
            on_answer(Answered(index, outputs[index], tokens))

        try:
            result = self.engine.generate(
                prompts,
                max_new_tokens=new_tokens,
                stop_tokens=self.stop_tokens,
                candidates=Candidates(self.tokenizer, chat_list, self.end, vocabulary),
                on_answer=finished,
                on_pass=on_pass,
            )
        except DoesNotFit as error:
            error.where = place(error.index)
            raise
        return Answers(outputs, result.stats, result.log, tokenise_s, single)

    def logits(self, chat: Chat, answered: Sequence[int]) -> torch.Tensor:
        """The logits (V) of the token after the prompt and the tokens `answered` so far, in float32 on the host."""
        (prompt,) = token_ids(self.tokenizer, [chat])
        return self.engine.logits([*prompt, *answered])

    def warm_up(
        self,
        on_step: Callable[[int, int], object] = lambda done, all: None,
        known: PassCost | None = None,
        few: bool = False,
    ) -> None:
        """Measure the device, as `Engine.warm_up`. Sees no data. `on_step(done, all)` is called between its steps."""
        self.engine.warm_up(on_step, known, few)
        # A full garbage collection walks everything that torch and transformers made, which takes longer than a pass.
        gc.collect()
        gc.freeze()

    def resident(self) -> Mapping[str, torch.Tensor]:
        """The weights as they lie on the device, by their names in the checkpoint's files; where they come from the
        disk in every pass, as one more reading brings them."""
        return loader.by_name(self.engine.weights)

    def describe(self) -> dict[str, Any]:
        """For a run's manifest: how the engine is set."""
        cost = self.engine.cost
        return {
            "memory_plan": asdict(self.planned),
            "weights": memory.STREAMED if self.engine.weights.streamed else "resident",
            "limits": asdict(self.engine.limits_in_use()),
            "backend": {
                "steps": self.engine.backend.ops_name,
                "attention": self.engine.backend.attention_name,
                "passed_over": self.engine.backend.passed_over,
            },
            "invariant": asdict(self.engine.backend.invariance),
            "cost": {"rows": cost.rows, "elapsed_s": cost.elapsed_s, "from": self.engine.curve_from},
        }

    def _warn_of_lengths(
        self, prompts: Sequence[Sequence[int]], place: Callable[[int], str], warn: Callable[[str], object]
    ) -> None:
        """pipe() answers beyond the context as well, with what the model makes of positions that it never saw."""
        limit = self.engine.weights.shape.max_positions
        beyond = [index for index, prompt in enumerate(prompts) if len(prompt) >= limit]
        if beyond:
            warn(arguments.beyond_context(beyond, limit, place))


def load(
    model_dir: Path | str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    memory_bytes: int | None = None,
    on_bytes: Callable[[int], object] | None = None,
    say: Say = lambda line: None,
) -> TextGenerator:
    """Load a checkpoint's folder. Left out, `dtype` is the checkpoint's own and `device` a GPU where there is one.

    `memory_bytes`: what the model, K/V and passes may take of the device; left out, what is free. Where the weights do
    not fit into it beside one longest context, each pass reads them from the disk.
    `on_bytes`: called with the number of bytes of each read of the weights, in all `loader.file_bytes(model_dir)`.
    `say`: told how memory is planned and which ways to compute were chosen; only warnings are logged.

    Raises IntegrityError (M…) for a checkpoint that is damaged or that the engine does not run or decode,
    ResourceError (R…) when memory is short, UsageError (U203, U204) for a dtype or a device that is none.
    """
    try:
        with importing():
            from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds
    except ModuleNotFoundError as error:
        raise missing_package(error) from None

    folder = Path(model_dir)
    place = pick_device(device)
    kind = pick_dtype(dtype, folder)
    shape = config.read_shape(folder)
    config.check_generation(folder)
    stop_tokens = config.stop_tokens(folder)
    with readable(folder):
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    if kind is torch.bfloat16 and config.own_dtype(folder) == "float32":
        logger.warning("the weights are stored in float32 and are rounded to bfloat16, as asked")
    before_bytes = free_bytes(place)
    allowed_bytes = before_bytes if memory_bytes is None else min(memory_bytes, before_bytes)
    chosen = backend.choose(shape, kind, place)
    streamed = memory.must_stream(shape, kind, place, allowed_bytes, chosen.fused)
    rounding = dtype is not None
    packer = None if streamed else projection.packer(kind, place)
    head_bytes = shape.vocab * shape.hidden * kind.itemsize if packer and shape.tied else 0
    if head_bytes and not memory.fits(shape, kind, place, allowed_bytes - head_bytes, chosen.fused):
        head_bytes = 0  # a copy only saves time
    if streamed:
        logger.warning("the weights do not fit into memory: every pass reads them from the disk")
        weights = loader.open_streamed(folder, kind, place, on_bytes, rounding=rounding)
    else:
        weights = loader.load(folder, kind, place, on_bytes, rounding=rounding, place=packer, tied_head=head_bytes > 0)
    if place.type == "cuda":
        torch.cuda.empty_cache()  # what probing and loading left behind
    held_bytes = memory.streamed_bytes(shape, kind) if streamed else shape.parameters * kind.itemsize + head_bytes
    left_bytes = min(free_bytes(place), allowed_bytes - held_bytes)
    planned = memory.plan(shape, kind, place, left_bytes, fused=chosen.fused, streamed=streamed)
    say(f"memory beside the weights: {planned.text()}")
    chosen = invariance.settle(chosen, weights, planned.limits)
    engine = Engine(weights, planned.limits, backend=chosen, most_slots=planned.most_slots)
    passed_over = "; ".join(f"{name} ({reason})" for name, reason in chosen.passed_over.items()) or "none"
    say(f"between the products: {chosen.ops_name}, attention: {chosen.attention_name}; passed over: {passed_over}")
    settled = chosen.invariance
    products = "".join(f"; {name}: {ways}" for name, ways in settled.products.items())
    say(f"answers depend on their prompts alone: {'yes' if settled.holds else 'no'}, {settled.why}{products}")
    return TextGenerator(engine, tokenizer, stop_tokens, planned, new_tokens=config.default_new_tokens(folder), say=say)


def load_dataset(path: Path | str) -> list[dict[str, Any]]:
    """A file in the organiser's form, as rows with `message` and `answer`. Raises FormError, UsageError."""
    return [{"message": row.messages, "answer": row.answer} for row in records.read(Path(path), once=True)]


class KeyDataset:
    """One column of a data set, as transformers' KeyDataset is (which is taken as well)."""

    def __init__(self, dataset: Sequence[dict[str, Any]], key: str) -> None:
        self.dataset, self.key = dataset, key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index][self.key]
