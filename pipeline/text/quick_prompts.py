"""Chats to token ids by a checkpoint's files alone, without transformers, whose import takes seconds.

For a look before a run, never for a run: what passes here passes there too, but for what `Doubt` stands for; whoever
is in doubt asks transformers, and only that refuses. Of the refusals here one is certain: the template's own
(`raise_exception`), as the way to it depends on nothing but the chat.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment

Chats = Sequence[Sequence[dict[str, str]]]

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Special tokens that a template may name."""

OLDER = ("special_tokens_map.json", "added_tokens.json")
"""Files that transformers heeds where tokenizer_config.json does not list the added tokens."""


class Doubt(Exception):
    """The files are not of the plain kind, or not sound: transformers has to say what they are."""


class QuickPrompts:
    """Called like `chat_template.Prompts`."""

    def __init__(self, folder: Path) -> None:
        """Raises Doubt."""
        try:
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            self._names = {name: _text(settings[name]) for name in NAMES if settings.get(name) is not None}
            self._template = _environment().from_string(_template(folder, settings))
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            listed = settings.get("added_tokens_decoder")
            added = [_text(each) for each in (listed or {}).values()]
        except Exception as error:  # whatever JSON, Jinja and tokenizers raise of damaged files
            raise Doubt(" ".join(f"{type(error).__name__}: {error}".split())) from error
        if listed is None and any((folder / name).exists() for name in OLDER):
            raise Doubt("files of an older form lie beside")
        if unknown := [token for token in added if self._tokenizer.token_to_id(token) is None]:
            raise Doubt(f"{unknown[0]} is added by tokenizer_config.json alone")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(self, chats: Chats) -> list[list[int]]:
        texts = [
            self._template.render(
                messages=[dict(turn) for turn in chat],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **self._names,
            )
            for chat in chats
        ]
        return self.texts(texts)

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of plain texts."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def is_templates_own(error: BaseException | None) -> bool:
    """Whether the template itself refused a chat, rather than a library that ran it."""
    return type(error) is jinja2.TemplateError


def _template(folder: Path, settings: dict[str, Any]) -> str:
    """The one template of the folder, where transformers looks for it."""
    if (folder / "additional_chat_templates").exists():
        raise ValueError("several templates")
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.exists() else settings["chat_template"]
    if not isinstance(template, str):
        raise TypeError("several templates")
    return template


def _text(token: Any) -> str:
    """A token as a tokenizer_config.json writes it: plain, or as an object."""
    text = token["content"] if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise TypeError(f"a token that is no text: {token!r}")
    return text


def _environment() -> jinja2.Environment:
    """Set as transformers sets its own (`utils.chat_template_utils`), without what nobody needs here."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _as_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _as_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
