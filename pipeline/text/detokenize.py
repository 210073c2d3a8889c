"""The text that the installed transformers' pipe() makes of token ids.

It changed over the releases that we support: in 5.5 and before pipe() decodes prompt and answer together
and cuts the prompt's characters off, in 5.10 it decodes the answer alone; and in 5.17 and before it
cleans spaces up by default. Rather than keep a list of versions, `probe` lets the installed pipe() post-process three
made-up tokens with a tokenizer that writes down what it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch


@dataclass(frozen=True)
class Form:
    with_prompt: bool
    """Decode prompt and answer together, then cut off as many characters as the prompt alone has."""
    clean_up: bool | None
    """`clean_up_tokenization_spaces` of `decode`; None leaves it to the tokenizer."""

    def text(self, tokenizer: Any, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """`generated_text` of a chat with return_full_text=False."""
        if not self.with_prompt:
            return self._decode(tokenizer, answer)
        return self._decode(tokenizer, [*prompt, *answer])[len(self._decode(tokenizer, prompt)) :]

    def _decode(self, tokenizer: Any, ids: Sequence[int]) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=self.clean_up)


class _Witness:
    """A tokenizer that only remembers how it was asked to decode."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], bool | None]] = []

    def decode(self, ids: Any, skip_special_tokens: bool, clean_up_tokenization_spaces: bool | None) -> str:
        self.asked.append((list(map(int, ids)), clean_up_tokenization_spaces))
        return "x" * len(ids)


def probe() -> Form:
    """Read the form off the installed pipe()."""
    from transformers.pipelines.text_generation import ReturnType, TextGenerationPipeline  # noqa: PLC0415 - takes seconds

    witness = _Witness()
    outputs = {
        "generated_sequence": torch.tensor([[[1, 2, 3]]]),
        "input_ids": torch.tensor([[1, 2]]),
        "prompt_text": "xx",
    }
    pipe = cast(TextGenerationPipeline, SimpleNamespace(tokenizer=witness))  # postprocess uses no more of a pipe
    TextGenerationPipeline.postprocess(pipe, outputs, return_type=ReturnType.NEW_TEXT)
    whole = [1, 2, 3] in [ids for ids, _ in witness.asked]
    return Form(with_prompt=whole, clean_up=witness.asked[0][1])
