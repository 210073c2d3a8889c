"""From a row of a public benchmark to the organiser's prompt form, as the set's YAML describes it (`FormConfig`).

Nothing here knows a particular set: a new multiple-choice or plain-question set is a new file in `configs/datasets`.
Choices stand in the prompt as Python writes a list: one with an apostrophe comes in double quotes (the organiser's
public rows 16 and 28 show it).

Errors name the file and the row: FormError F301 a field that the row does not have, F302 an answer that is none of the
choices, F303 a field of another shape, F304 prompts that should not repeat.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import FormError
from pipeline.schemas import AnswerConfig, ChoicesConfig, FormConfig, TextConfig

Row = Mapping[str, Any]

# The organiser's instruction, byte for byte: every public row and the public longest sample begin with it.
HEAD = (
    "\nRead the question and answer the following sentence in given multiple choice.\n"
    "Answer only the sentence you chose. Never include a question and other word in your answer.\n\n"
)

LISTED = re.compile(r"^(?:(\([A-Z]\)) ?|- )(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Located:
    """A row of a source, and where it stands, for messages."""

    file: str
    """The file's name without its ending."""
    number: int
    """From 0 in that file."""
    row: Row

    def __str__(self) -> str:
        return f"{self.file} row {self.number}"


@dataclass(frozen=True)
class Converted:
    prompt: str
    answer: str
    scoring: dict[str, Any]
    """Further values that scoring needs, by name."""


@dataclass(frozen=True)
class _Choices:
    texts: Sequence[bool | str]
    labels: list[str]
    """The names by which the source's answers call them, where it prints any."""


def convert(form: FormConfig, at: Located) -> Converted:
    """One row in the organiser's form. Raises FormError F301, F302, F303."""
    try:
        return _converted(form, at)
    except (ValueError, TypeError, AttributeError, LookupError, re.error) as error:
        # Whatever a foreign row can hold, and a template or a substitute that Python cannot read.
        raise _shape_error(at, "a row cannot be converted", "a row as the set's YAML describes it", error) from error


def _converted(form: FormConfig, at: Located) -> Converted:
    choices = _choices(form.choices, at)
    answer = _answer(form.answer, choices, at)
    if choices is not None and answer not in [str(text) for text in choices.texts]:
        raise FormError(
            "F302",
            "the answer is none of the choices",
            where=at,
            expected=f"one of {choices.texts!r}",
            actual=repr(answer),
            fix="correct `answer` or `choices` of the set's YAML, or name the row under `leave_out`",
        )
    named = {name: _text(text, at) for name, text in form.fields.items()}
    extras = {**named, "head": HEAD}
    if choices is not None:
        texts = choices.texts
        if isinstance(form.choices, ChoicesConfig) and form.choices.shuffle:
            question = _fill("{question}", {**at.row, **named}, at)
            texts = sorted(texts, key=lambda text: hashlib.sha256(f"{question}\n{text}".encode()).digest())
        extras["choices"] = repr(texts)
    prompt = _fill(form.prompt, {**at.row, **extras}, at)
    return Converted(prompt, answer, {name: value_at(path, at.row, at) for name, path in form.scoring.items()})


def check_repeats(converted: Sequence[Converted], rows: Sequence[Located], expected: int) -> None:
    """Raise FormError (F304) unless exactly so many prompts are ones that an earlier row has."""
    first: dict[str, Located] = {}
    repeats = []
    for each, at in zip(converted, rows, strict=True):
        if each.prompt in first:
            repeats.append(f"{at} as {first[each.prompt]}")
        first.setdefault(each.prompt, at)
    if len(repeats) != expected:
        raise FormError(
            "F304",
            "the set repeats more or fewer prompts than expected",
            where="; ".join(repeats[:3]) or None,
            expected=f"{expected} rows whose prompt an earlier row has",
            actual=len(repeats),
            fix="find out whether the source is the right one; if it is, correct `repeated_prompts` of the set's YAML",
        )


def one_line(text: str) -> str:
    """A choice as the organiser writes it: stripped, inner line ends as blanks (the scorer drops line ends)."""
    return text.replace("\r", "").strip().replace("\n", " ")


def value_at(path: str, row: Row, at: Located) -> Any:
    """The value at `answer.value`, say. Raises FormError (F301) with the fields that there are."""
    value: Any = row
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            known = ", ".join(value) if isinstance(value, Mapping) else f"no fields, it is a {type(value).__name__}"
            raise FormError(
                "F301",
                f"the set's YAML names a field {path!r} that the row does not have",
                where=at,
                expected=path,
                actual=known,
                fix="correct the name in the set's YAML",
            )
        value = value[key]
    return value


class _Filler(string.Formatter):
    """`str.format` whose names are paths into a row; a list becomes lines."""

    def __init__(self, at: Located) -> None:
        self.at = at

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        return value_at(field_name, kwargs, self.at), field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        text = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        if format_spec == "capitalize":
            return text.capitalize()
        if format_spec:
            raise _shape_error(self.at, "a template knows one conversion", ":capitalize", f":{format_spec}")
        return text


def _fill(template: str, row: Row, at: Located) -> str:
    return _Filler(at).vformat(template, (), row)


def _text(config: str | TextConfig, at: Located) -> str:
    if isinstance(config, str):
        return _fill(config, at.row, at)
    if config.when is not None and not value_at(config.when, at.row, at):
        return ""
    return _changed(_fill(config.template, at.row, at), config.match, config.replace, at)


def _changed(
    text: str, match: re.Pattern[str] | None, replace: Sequence[tuple[re.Pattern[str], str]], at: Located
) -> str:
    if match is not None:
        matched = match.search(text)
        if matched is None:
            raise _shape_error(at, "a text is not as the set's YAML expects it", match.pattern, repr(text[-60:]))
        text = matched[1]
    for pattern, substitute in replace:
        text = pattern.sub(substitute, text)
    return text


def _choices(config: tuple[bool | str, ...] | ChoicesConfig | None, at: Located) -> _Choices | None:
    if config is None:
        return None
    if not isinstance(config, ChoicesConfig):
        filled = [each if isinstance(each, bool) else one_line(_fill(each, at.row, at)) for each in config]
        return _Choices(filled, [])
    if at.file in config.by_file:
        texts = list(config.by_file[at.file])
        return _Choices(texts, texts)
    if config.listed_in is not None:
        lines = LISTED.findall(value_at(config.listed_in, at.row, at))
        texts, labels = [one_line(text) for _, text in lines], [label or one_line(text) for label, text in lines]
    else:
        value = value_at(config.path or "choices", at.row, at)
        if not isinstance(value, list | Mapping):
            raise _shape_error(at, "the choices are no list", "a list, or an object", repr(value)[:60])
        texts, labels = list(value), []
        if config.mark is not None:
            texts, labels = _without_marks(config.mark, texts, at)
        texts = [one_line(_changed(text, None, config.replace, at)) for text in texts]
    if len(texts) < 2:
        raise _shape_error(at, "there are no two choices", "two or more", repr(texts))
    return _Choices(texts, labels)


def _without_marks(mark: re.Pattern[str], printed: Sequence[str], at: Located) -> tuple[list[str], list[str]]:
    """The choices' texts without the marks that the source prints before them, and their letters, one each.

    The letters need not come in order (a list set in two columns reads A, C, B, D). Raises FormError (F303) where two
    choices have the same one.
    """
    marks = [mark.match(text) for text in printed]
    texts = [text if match is None else text[match.end() :] for text, match in zip(printed, marks, strict=True)]
    places = list(string.ascii_uppercase[: len(printed)])
    letters = [
        place if match is None else match[match.lastindex or 0] for place, match in zip(places, marks, strict=True)
    ]
    if sorted(letters) != places:
        raise _shape_error(at, "the choices' letters are not one each", ", ".join(places), ", ".join(letters))
    return texts, letters


def _answer(config: AnswerConfig, choices: _Choices | None, at: Located) -> str:
    if config.kind == "text":
        text = _changed(_fill(config.of, at.row, at), config.match, config.replace, at)
        return text if choices is None else one_line(text)
    value = value_at(config.of, at.row, at)
    if config.kind == "map":
        if str(value) not in config.to:
            raise _shape_error(at, "an answer that the set's YAML has no text for", ", ".join(config.to), repr(value))
        return config.to[str(value)]
    texts = [] if choices is None else [str(text) for text in choices.texts]
    try:
        index = _index(config, value, choices, at)
    except ValueError:
        index = -1
    if not 0 <= index < len(texts):
        raise _shape_error(
            at, f"the answer names no choice (`{config.kind}`)", f"one of {len(texts)} choices", repr(value)
        )
    return texts[index]


def _index(config: AnswerConfig, value: Any, choices: _Choices | None, at: Located) -> int:
    """Which choice is right. Raises ValueError where the value names none."""
    if config.kind == "index":
        return int(value) - config.first
    if config.kind == "label":
        return list(value_at(config.labels or "", at.row, at)).index(value)
    if config.kind == "letter":
        letters = choices.labels if choices is not None and choices.labels else list(string.ascii_uppercase)
        return letters.index(value)
    if config.kind == "flags":
        return list(value.values()).index(1)
    return (choices.labels if choices else []).index(value.strip())


def _shape_error(at: Located, what: str, expected: str, actual: object) -> FormError:
    return FormError("F303", what, where=at, expected=expected, actual=actual, fix="correct the set's YAML")
