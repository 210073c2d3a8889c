"""From the rows of public benchmarks to the organiser's prompt form.

To add a set: write a function from one source row to (content of the user's message, answer), and name it in
`CONVERTERS`; the data set's YAML names it as `converter`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

# The organiser's instruction, byte for byte: every public row and the public longest sample begin with it.
HEAD = (
    "\nRead the question and answer the following sentence in given multiple choice.\n"
    "Answer only the sentence you chose. Never include a question and other word in your answer.\n\n"
)


def choice_prompt(question: str, choices: list[str] | list[bool], passage: str | None = None) -> str:
    """The organiser's multiple-choice prompt.

    The choices stand as Python writes a list: one with an apostrophe comes in double quotes. The organiser's public
    rows 16 and 28 show it.
    """
    context = "" if passage is None else f"passage: {passage}\n"
    return f"{HEAD}{context}question: {question}\nchoices: {choices!r}\n"


def openbookqa(row: Row) -> tuple[str, str]:
    """OpenBookQA, either as published (`question_stem`) or as a request document (`query`, `gold`)."""
    if "question_stem" in row:
        question, choices = row["question_stem"], row["choices"]["text"]
        right = row["choices"]["label"].index(row["answerKey"])
    else:
        question, choices, right = _asked(row["query"]), row["choices"], row["gold"]
    choices = [one_line(choice) for choice in choices]
    return choice_prompt(question, choices), choices[right]


def boolq(row: Row) -> tuple[str, str]:
    """BoolQ as published (`passage`, `question`, `answer` a bool). The organiser's longest sample is its row 55."""
    return choice_prompt(row["question"], [True, False], row["passage"]), str(row["answer"])


CONVERTERS: dict[str, Callable[[Row], tuple[str, str]]] = {"openbookqa": openbookqa, "boolq": boolq}


def one_line(text: str) -> str:
    """A choice as the organiser writes it: stripped, inner line ends as blanks (the scorer drops line ends)."""
    return text.replace("\r", "").strip().replace("\n", " ")


def _asked(query: str) -> str:
    """The question inside a request's "Question: …\\nAnswer:"."""
    start, end = "Question: ", "\nAnswer:"
    if not (query.startswith(start) and query.endswith(end)):
        raise ValueError(f"a query of another form: {query[:60]!r}")
    return query[len(start) : -len(end)]


def rows_of(member: str, content: bytes) -> list[Row]:
    """The rows of a source's file, by the ending of its name. Raises ValueError for an ending that nobody reads.

    `.parquet`; `.arrow` (Arrow's stream format, as the `datasets` library writes it); `.jsonl.gz` (evaluation requests:
    one line a choice, and everything once more without context under document numbers from 1,000,000, so each
    document counts once).
    """
    if member.endswith(".jsonl.gz"):
        requests = [json.loads(line) for line in gzip.decompress(content).splitlines()]
        documents: dict[int, Row] = {}
        for request in requests:
            if request["doc_id"] < 1_000_000:
                documents.setdefault(request["doc_id"], request["doc"])
        return list(documents.values())
    # Slow to import, and not needed for sets that are already built.
    import pyarrow  # noqa: PLC0415
    import pyarrow.parquet  # noqa: PLC0415

    if member.endswith(".arrow"):
        return pyarrow.ipc.open_stream(content).read_all().to_pylist()
    if member.endswith(".parquet"):
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    raise ValueError(f"no reader for {member}")
