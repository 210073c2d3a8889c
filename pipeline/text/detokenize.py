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


@dataclass(frozen=True)
class Form:
    with_prompt: bool
    """Decode prompt and answer together, then cut off as many characters as the prompt alone has."""
    clean_up: bool | None
    """`clean_up_tokenization_spaces` of `decode`; None leaves it to the tokenizer."""
    skip_special: bool = True
    """Leave control tokens out: a tokenizer with a response template keeps them for it."""
    parses: bool = False
    """Make a whole chat's last message by the tokenizer's response template (transformers 5)."""

    def text(self, tokenizer: Any, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """`generated_text` of a chat with return_full_text=False."""
        if not self.with_prompt:
            return self._decode(tokenizer, answer)
        return self._decode(tokenizer, [*prompt, *answer])[len(self._decode(tokenizer, prompt)) :]

    def message(self, tokenizer: Any, prompt: Sequence[int], text: str) -> dict[str, Any]:
        """The turn that a whole chat ends with, whose text is `text`."""
        if not self.parses:
            return {"role": "assistant", "content": text}
        message: dict[str, Any] = tokenizer.parse_response(text, prefix=self._decode(tokenizer, prompt))
        return message

    def _decode(self, tokenizer: Any, ids: Sequence[int]) -> str:
        return tokenizer.decode(
            list(ids), skip_special_tokens=self.skip_special, clean_up_tokenization_spaces=self.clean_up
        )


class _Witness:
    """A tokenizer that only remembers how it was asked to decode and to parse."""

    def __init__(self, response_template: Any) -> None:
        self.response_template = response_template
        self.asked: list[tuple[list[int], bool | None]] = []
        self.skipped, self.parsed = True, False

    def decode(self, ids: Any, skip_special_tokens: bool, clean_up_tokenization_spaces: bool | None) -> str:
        self.asked.append((list(map(int, ids)), clean_up_tokenization_spaces))
        self.skipped = skip_special_tokens
        return "x" * len(ids)

    def parse_response(self, *_: Any, **__: Any) -> dict[str, str]:
        self.parsed = True
        return {}


def probe(response_template: Any = None) -> Form:
    """Read the form off the installed pipe(), for a tokenizer with that `response_template`."""
    import torch  # noqa: PLC0415 - not needed to apply a form
    from transformers.pipelines.text_generation import (  # noqa: PLC0415 - takes seconds
        Chat,
        ReturnType,
        TextGenerationPipeline,
    )

    witness = _Witness(response_template)
    outputs = {"generated_sequence": torch.tensor([[[1, 2, 3]]]), "input_ids": torch.tensor([[1, 2]])}
    pipe = cast(TextGenerationPipeline, SimpleNamespace(tokenizer=witness))  # postprocess uses no more of a pipe
    TextGenerationPipeline.postprocess(pipe, {**outputs, "prompt_text": "xx"}, return_type=ReturnType.NEW_TEXT)
    asked = list(witness.asked)
    if response_template is not None:
        chat = Chat(cast(Any, [{"role": "user", "content": ""}]))
        TextGenerationPipeline.postprocess(pipe, {**outputs, "prompt_text": chat}, return_type=ReturnType.FULL_TEXT)
    return Form([1, 2, 3] in [ids for ids, _ in asked], asked[0][1], witness.skipped, witness.parsed)
