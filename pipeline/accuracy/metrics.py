"""When an answer counts as right, by the rule that its set's YAML names.

* `exact`: the organiser's, see `is_exact`.
* `last-number`: the last number in the text, without commas, as GSM8K is commonly scored (its own answers stand behind
  "####").
* `alias`: TriviaQA's own normalisation (its triviaqa_evaluation.py), then equal to any alias.
* `humaneval`, `mbpp`: the set's tests run on the program, by their authors' recipes; never a comparison of texts.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

NUMBER = re.compile(r"-?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
FENCED = re.compile(r"```[a-zA-Z0-9+]*[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL)
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


def is_exact(text: str, answer: str) -> bool:
    """The organiser's rule: `lstrip()`, drop newlines, equal; nothing else is forgiven."""
    return text.lstrip().replace("\n", "") == answer


def is_escaped(prompt: str, answer: str) -> bool:
    r"""Whether the prompt's list of choices prints the answer escaped, as Python does with backslashes and with quotes
    of both kinds (`\\frac` for `\frac`): what is printed, copied, is then not the answer."""
    printed = repr(answer)
    return printed[1:-1] != answer and printed in prompt


def is_last_number(text: str, answer: str) -> bool:
    given, expected = last_number(text), last_number(answer)
    return given is not None and given == expected


def last_number(text: str) -> Decimal | None:
    """The last number of a text: "$1,200.50." is 1200.50."""
    numbers = NUMBER.findall(text)
    try:
        return Decimal(re.sub("[$,]", "", numbers[-1])) if numbers else None
    except InvalidOperation:
        return None  # digits of another script


def is_alias(text: str, answer: str, aliases: Sequence[str]) -> bool:
    """Whether the text is the answer or another name for it, as TriviaQA's authors compare."""
    # Some answers are all articles ("The The", a band): they come out empty, which must not make silence right.
    return bool(text.strip()) and normalised(text) in {normalised(alias) for alias in (answer, *aliases)}


def normalised(text: str) -> str:
    """A text as TriviaQA's authors compare it: lower case, no punctuation, no articles, single blanks."""
    lower = text.replace("_", " ").lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", lower).split())


def humaneval_program(text: str, scoring: dict[str, Any]) -> str:
    """The prompt, the model's answer to it and the tests, as one program.

    A chat model repeats the function as a rule: then its own version counts, behind the imports and helpers of the
    prompt. Otherwise the text goes on where the prompt ends.
    """
    prompt, name = scoring["prompt"], scoring["entry_point"]
    code = _code(text, f"def {name}(")
    if f"def {name}(" in code:
        program = f"{prompt[: prompt.rindex(f'def {name}(')]}\n{code}"
    else:
        # pipe() puts a blank before the text: the first line's indentation is lost, the others' is not.
        first, *others = code.strip("\n").split("\n")
        program = "\n".join([f"{prompt}    {first.lstrip()}", *others])
    return f"{program}\n{scoring['test']}\ncheck({name})\n"


def mbpp_program(text: str, scoring: dict[str, Any]) -> str:
    """The model's program, the tests' set-up, which may use it, and the tests, as one program."""
    return "\n".join([_code(text, "def "), scoring["setup"], *scoring["tests"]]) + "\n"


def _code(text: str, mark: str) -> str:
    """The first fenced block with the mark, or the first one, or the whole text."""
    blocks = FENCED.findall(text)
    return next((block for block in blocks if mark in block), blocks[0] if blocks else text)
