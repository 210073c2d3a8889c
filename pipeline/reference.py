"""transformers' own text-generation pipe(): the baseline that we must equal, under the same clock.

Loaded plainly: native Phi-3 class, no remote code, the whole model on one device (`device_map="auto"`
would leave layers on the host).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.device import pick_device
from pipeline.model import config
from pipeline.model.dtype import pick_dtype
from pipeline.text.answers import Answered
from pipeline.text.arguments import counted, rows_of


@dataclass(frozen=True)
class Answers:
    """The outputs of one call in input order. transformers counts and times nothing, so the rest is empty."""

    outputs: list[Any]
    single: bool
    """The call was for one chat, not for a list of chats."""
    log: None = None

    def stages(self) -> dict[str, float]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {}


class Reference:
    """Called like our own pipe. Answers come in input order, `batch_size` prompts at a time."""

    def __init__(self, pipe: Any, stop_tokens: frozenset[int]) -> None:
        self.pipe, self.stop_tokens = pipe, stop_tokens

    def __call__(self, chats: Any, **arguments: Any) -> list[Any]:
        """The outputs of `answer` as pipe() returns them: one chat's, or a list with one for each chat."""
        answers = self.answer(chats, **arguments)
        return answers.outputs[0] if answers.single else answers.outputs

    def answer(
        self,
        chats: Any,
        *,
        batch_size: int | None = None,
        on_answer: Callable[[Answered], None] = lambda answered: None,
        on_pass: Callable[[Any], None] = lambda progress: None,
        place: Callable[[int], str] = counted,
        warn: Callable[[str], object] = lambda line: None,
        **arguments: Any,
    ) -> Answers:
        rows = rows_of(chats)
        if rows and isinstance(rows[0], dict):
            return Answers([self.pipe(rows, **arguments)], single=True)
        size = batch_size or 1
        outputs: list[Any] = []
        with _noting_tokens(self.pipe.model) as sequences:
            for start in range(0, len(rows), size):
                part = self.pipe(rows[start : start + size], batch_size=size, **arguments)
                for output in part:
                    index = len(outputs)
                    outputs.append(output)
                    on_answer(Answered(index, output, self._to_stop(sequences[index])))
        return Answers(outputs, single=False)

    def warm_up(self, on_step: Callable[[int, int], object] = lambda done, all: None) -> None:
        """Nothing of its own: the warm-up chat is all."""

    def resident(self) -> dict[str, Any]:
        """The weights as they lie on the device, by their names in the checkpoint's files."""
        return self.pipe.model.state_dict()

    def describe(self) -> dict[str, Any]:
        return {}

    def _to_stop(self, tokens: list[int]) -> list[int]:
        """An answer without the padding behind the first stop token."""
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.stop_tokens), len(tokens))
        return tokens[:end]


@contextmanager
def _noting_tokens(model: Any) -> Iterator[list[list[int]]]:
    """The new token ids of every row that `model.generate` answers inside of the `with`: pipe() returns text only."""
    sequences: list[list[int]] = []
    generate = model.generate

    def noting(*args: Any, **kwargs: Any) -> Any:
        out = generate(*args, **kwargs)
        prompt = kwargs["input_ids"].shape[1]
        sequences.extend(out[:, prompt:].tolist())
        return out

    model.generate = noting
    try:
        yield sequences
    finally:
        model.generate = generate


def load(
    model_dir: Path | str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    on_bytes: Callable[[int], object] | None = None,
) -> Reference:
    """transformers' pipe() on a checkpoint's folder. Raises as `text_generation.load` does for dtype and device.

    `on_bytes` is taken so that both engines are loaded alike; transformers does not report what it reads.
    """
    from transformers import AutoTokenizer, Phi3ForCausalLM, pipeline  # noqa: PLC0415 - takes seconds
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # the run has one bar, its own

    place = pick_device(device)
    kind = pick_dtype(dtype, Path(model_dir))
    config.read_shape(Path(model_dir))  # refuses what is no Phi-3 checkpoint, with the same message
    model = Phi3ForCausalLM.from_pretrained(str(model_dir), torch_dtype=kind).eval()  # pipeline() puts it on the device
    tokenizer = AutoTokenizer.from_pretrained(str(model_dir))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return Reference(
        pipeline("text-generation", model=model, tokenizer=tokenizer, device=place), config.stop_tokens(Path(model_dir))
    )
