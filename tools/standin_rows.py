"""The rows that the stand-in's adapter is trained on: reading, guarding, varying, hashing.

The rows are third-party and are not committed; what is committed are short hashes of every prompt and every question,
so that a test can tell from a clean clone that none of them is in an evaluation set.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "choices: "
HASH_FILES = ("train_prompts.sha256", "train_questions.sha256")


@dataclass(frozen=True)
class TrainingRow:
    content: str
    """The user's message."""
    answer: str
    source: str
    head: str
    """`content` up to the list of choices."""
    choices: tuple[str, ...]
    """Empty where the list is not one of strings, as in `[True, False]`: then it is left as it is."""


def read(path: Path) -> list[TrainingRow]:
    """Rows in the organiser's form with one user turn, plus `source`."""
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            row = json.loads(line)
            (turn,) = row["message"]
            head, choices = _split(turn["content"])
            rows.append(TrainingRow(turn["content"], row["answer"], row["source"], head, choices))
    return rows


def _split(content: str) -> tuple[str, tuple[str, ...]]:
    """Head and choices, such that head + repr(choices) + newline is the content."""
    head, mark, listed = content.rpartition("\n" + MARK)
    try:
        choices = ast.literal_eval(listed) if mark else []
    except (ValueError, SyntaxError):
        choices = []
    if repr(choices) + "\n" != listed or not all(isinstance(choice, str) for choice in choices):
        return content, ()
    return head + mark, tuple(choices)


# --- guarding -----------------------------------------------------------------------------------------------


def question(content: str) -> str:
    """The question without its choices, lower case, letters and digits only: a guard should not hang on a comma."""
    start = content.rfind("question: ")
    text = content[start + len("question: ") if start >= 0 else 0 :].rpartition("\n" + MARK)[0] or content
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def short_hash(text: str) -> str:
    """The first 16 hexadecimal digits of the sha256."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def guarded(rows: Sequence[TrainingRow], evaluated: Iterable[str]) -> list[TrainingRow]:
    """The rows of which neither the prompt nor the question is in an evaluation set. `evaluated`: users' messages."""
    contents = set(evaluated)
    questions = {question(content) for content in contents}
    return [row for row in rows if row.content not in contents and question(row.content) not in questions]


def write_hashes(folder: Path, rows: Sequence[TrainingRow]) -> None:
    """One hash a line, sorted, each once: of the prompts as they are, and of their questions by `question`."""
    texts = ([row.content for row in rows], [question(row.content) for row in rows])
    for name, part in zip(HASH_FILES, texts, strict=True):
        lines = sorted({short_hash(text) + "\n" for text in part})
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="\n")


# --- varying ------------------------------------------------------------------------------------------------


def varied(
    rows: Sequence[TrainingRow], rng: random.Random, *, shuffle: bool, distractors: float
) -> list[tuple[str, str]]:
    """(user's message, answer) of every row, in order, as one epoch sees them.

    shuffle: the choices come in a new order; the answer is a text, so it stays right.
    distractors: with this probability each wrong choice becomes the answer of another row of the same source, so that
    knowing the four choices by heart does not help.
    """
    answers: dict[str, list[str]] = {}
    for row in rows:
        answers.setdefault(row.source, []).append(row.answer)
    result = []
    for row in rows:
        choices = list(row.choices)
        if row.answer in choices:
            for i, choice in enumerate(choices):
                if choice != row.answer and rng.random() < distractors:
                    other = rng.choice(answers[row.source])
                    choices[i] = choice if other in choices else other
            if shuffle:
                rng.shuffle(choices)
            result.append((f"{row.head}{choices!r}\n", row.answer))
        else:
            result.append((row.content, row.answer))
    return result


def batches(lengths: Sequence[int], rows_a_batch: int, rng: random.Random) -> list[list[int]]:
    """Row numbers in batches of similar length: sorted within chunks of 16 batches, which keeps the sources mixed."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    made = []
    for start in range(0, len(order), 16 * rows_a_batch):
        chunk = sorted(order[start : start + 16 * rows_a_batch], key=lambda i: lengths[i])
        made += [chunk[i : i + rows_a_batch] for i in range(0, len(chunk), rows_a_batch)]
    rng.shuffle(made)
    return made
