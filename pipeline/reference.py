"""transformers' own text-generation pipe(): the baseline that we must equal, under the same clock.

Loaded plainly: native Phi-3 class, no remote code, the whole model on one device (`device_map="auto"`
would leave layers on the host).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.engine.device import pick_device
from pipeline.model import config
from pipeline.model.dtype import pick_dtype
from pipeline.text.answers import Answered


class Reference:
    """Called like our own pipe. Answers come in input order, `batch_size` prompts at a time."""

    def __init__(self, pipe: Any, stop_tokens: frozenset[int]) -> None:
        self.pipe, self.stop_tokens = pipe, stop_tokens
        self.log = None
        self._sequences: list[list[int]] = []
        generate = pipe.model.generate

        # pipe() returns text only; the token ids are noted on their way out.
        def noting(*args: Any, **kwargs: Any) -> Any:
            out = generate(*args, **kwargs)
            prompt = kwargs["input_ids"].shape[1]
            self._sequences.extend(out[:, prompt:].tolist())
            return out

        pipe.model.generate = noting

    def __call__(
        self,
        chats: Any,
        *,
        batch_size: int | None = None,
        on_answer: Callable[[Answered], None] = lambda answered: None,
        on_pass: Callable[[Any], None] = lambda progress: None,
        **arguments: Any,
    ) -> list[Any]:
        rows = [chats[index] for index in range(len(chats))]
        if rows and isinstance(rows[0], dict):
            return self.pipe(rows, **arguments)
        size = batch_size or 1
        outputs: list[Any] = []
        self._sequences.clear()
        for start in range(0, len(rows), size):
            part = self.pipe(rows[start : start + size], batch_size=size, **arguments)
            for output in part:
                index = len(outputs)
                outputs.append(output)
                on_answer(Answered(index, output, self._to_stop(self._sequences[index])))
        return outputs

    def warm_up(self) -> None:
        """Nothing of its own: the warm-up chat is all."""

    def resident(self) -> dict[str, Any]:
        """The weights as they lie on the device, by their names in the checkpoint's files."""
        return self.pipe.model.state_dict()

    def stages(self) -> dict[str, float]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {}

    def _to_stop(self, tokens: list[int]) -> list[int]:
        """Without the padding behind the first stop token."""
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.stop_tokens), len(tokens))
        return tokens[:end]


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
    model = Phi3ForCausalLM.from_pretrained(str(model_dir), torch_dtype=kind).to(place).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(model_dir))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return Reference(
        pipeline("text-generation", model=model, tokenizer=tokenizer, device=place), config.stop_tokens(Path(model_dir))
    )
