"""Chats to the token ids that pipe() would give the model, without what nobody needs of its way there.

transformers renders the chat template once for each chat, in a context into which Jinja copies all of its globals each
time, and keeps of the encoding offsets, masks and a second copy of every list. `Prompts` asks the two libraries
underneath directly: a third of the time for the template. Both ways are tried on made-up chats at start, and where one
gives anything else than transformers does, or is not there, transformers does that part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pipeline.errors import FormError, IntegrityError

Chats = Sequence[Sequence[dict[str, str]]]
Render = Callable[[Chats], list[str]]
Encode = Callable[[Chats], list[list[int]]]


def token_ids(tokenizer: Any, chats: Chats, add_generation_prompt: bool = True) -> list[list[int]]:
    """The chats through the tokenizer's own template, as pipe() does it, all in one call."""
    encoded = tokenizer.apply_chat_template(
        [list(chat) for chat in chats], add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=True
    )
    return [list(ids) for ids in encoded["input_ids"]]


class Prompts:
    """Tokenises chats as `token_ids` does, faster."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises IntegrityError (M313) where the tokenizer has no template to fill chats into."""
        _refuse_without_template(tokenizer)
        self._tokenizer = tokenizer
        quick = _quick_template(tokenizer)
        self.renders = quick is not None and _agree(quick, self._rendered)
        """Whether the template is asked directly."""
        self._render: Render = quick if quick is not None and self.renders else self._rendered
        backend = getattr(tokenizer, "backend_tokenizer", None)
        encode = getattr(backend, "encode_batch_fast", None)  # tokenizers 0.20
        self._direct: Encode | None = None if encode is None else partial(_directly, self._render, encode)
        self.encodes = self._direct is not None and _agree(self._direct, partial(token_ids, tokenizer))
        """Whether the tokenizer's library is asked directly."""

    def __call__(self, chats: Chats) -> list[list[int]]:
        """Token ids of each chat with the prompt for an answer.

        Raises whatever the template or the tokenizer raises: `prompts_of` says for which chat.
        """
        if self._direct is None or not self.encodes:
            return token_ids(self._tokenizer, chats)
        return self._direct(chats)

    def _rendered(self, chats: Chats) -> list[str]:
        texts: list[str] = self._tokenizer.apply_chat_template(
            [list(chat) for chat in chats], add_generation_prompt=True, tokenize=False
        )
        return texts


def _refuse_without_template(tokenizer: Any) -> None:
    template = getattr(tokenizer, "chat_template", "")
    if template is not None and (not isinstance(template, dict) or "default" in template):
        return
    raise IntegrityError(
        "M313",
        "the checkpoint has no chat template, so that nothing says how a chat becomes a prompt",
        where=getattr(tokenizer, "name_or_path", None) or None,
        expected="`chat_template` in tokenizer_config.json, or a chat_template.jinja",
        actual=f"only templates named {', '.join(template)}" if template else "neither",
        fix="use the model's instruct version, or lay the template that it was trained with into its folder; a base "
        "model has none, as it was not taught to chat",
    )


def prompts_of(
    prompts: Callable[[Chats], list[list[int]]], chats: Chats, vocabulary: int, place: Callable[[int], str]
) -> list[list[int]]:
    """The chats' token ids, or a FormError for the first chat that has none; `place` names it: F204 template or
    tokenizer refuses it, F205 it becomes no token at all, F206 it has a token of which the model has no embedding."""
    try:
        made = prompts(chats)
    except Exception as error:  # a template raises what it likes
        index, own = _first_refused(prompts, chats) or (0, error)
        raise _refused("F204", "the model's chat template or tokenizer refuses a prompt", place(index), own) from own
    for index, ids in enumerate(made):
        if not ids:
            raise _refused("F205", "the model's chat template turns a prompt into no text", place(index), "no token")
        if max(ids) >= vocabulary:
            raise FormError(
                "F206",
                "a prompt has a token that the model has no embedding for",
                where=place(index),
                expected=f"token ids below {vocabulary:,}",
                actual=max(ids),
                fix="use the tokenizer that the model was trained with, or leave this prompt out",
            )
    return made


def _first_refused(prompts: Callable[[Chats], list[list[int]]], chats: Chats) -> tuple[int, Exception] | None:
    """The first chat that raises by itself, and its error."""
    for index, chat in enumerate(chats):
        try:
            prompts([chat])
        except Exception as error:  # a template raises what it likes
            return index, error
    return None


def _refused(code: str, what: str, where: str, actual: object) -> FormError:
    shown = f"{type(actual).__name__}: {actual}" if isinstance(actual, Exception) else actual
    return FormError(
        code,
        what,
        where=where,
        expected="a chat that this model takes: some know no system role, or want user and assistant in turn",
        actual=" ".join(str(shown).split())[:200],
        fix="change or leave out this prompt, or use a model whose template takes it",
    )


def _agree(one: Callable[[Chats], Any], other: Callable[[Chats], Any]) -> bool:
    """Whether both make the same of chats that nobody sent: of those that the template takes."""
    try:
        return bool(one(MADE_UP) == other(MADE_UP))
    except Exception:  # it takes one turn only, say
        try:
            return bool(one(MADE_UP[:-1]) == other(MADE_UP[:-1]))
        except Exception:  # it takes neither: then transformers is asked itself, and says so of a real prompt
            return False


def _directly(render: Render, encode: Callable[..., Any], chats: Chats) -> list[list[int]]:
    return [encoding.ids for encoding in encode(render(chats), add_special_tokens=False)]


def _quick_template(tokenizer: Any) -> Render | None:
    """The tokenizer's template as transformers compiles it, with the names that transformers gives it, without a copy
    of them for each chat: https://jinja.palletsprojects.com/en/stable/api/#jinja2.Template.new_context (`shared`)."""
    try:
        from transformers.utils.chat_template_utils import _compile_jinja_template  # noqa: PLC0415 - nobody's promise
    except ImportError:
        return None
    if not isinstance(tokenizer.chat_template, str):  # several by name, say
        return None
    template = _compile_jinja_template(tokenizer.chat_template)
    names = {
        **template.globals,
        **tokenizer.special_tokens_map,
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
    }

    def render(chats: Chats) -> list[str]:
        return [
            "".join(template.root_render_func(template.new_context({**names, "messages": list(chat)}, shared=True)))
            for chat in chats
        ]

    return render


MADE_UP = [
    [{"role": "user", "content": f"{text} {number}"}]
    for number in range(16)  # as many as make the library start its threads
    for text in ("", " two  spaces\n\nand lines\t", "naïve 中文 🙂", "<|user|> <s></s> <|end|>", "x" * 600)
]
MADE_UP += [[*MADE_UP[0], {"role": "assistant", "content": " so\n"}, *MADE_UP[1]]]
"""Chats that nobody sent, to try a tokenizer with."""
