"""Reading what a submission says of itself: its JSON and its answers, strictly, each with the check of its form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import schemas
from pipeline.check import FORM, CheckResult, decided, unknown
from pipeline.contest.archive import strict_json
from pipeline.contest.checks.submitted import Answer, Manifest, Submission
from pipeline.contest.format import SCHEMA, SUBMISSION
from pipeline.record import run_folder

SUBMISSION_WANTED = f"submission.json, schema {SCHEMA}"
MANIFEST_WANTED = f"the manifest of a finished run with a time, schema {run_folder.SCHEMA}"
ANSWERS_WANTED = 'lines {"index", "output": [{"generated_text"}], "token_ids", "at_s"}, as pipe() nests them'

MOST_ANSWERS, MOST_BYTES = 100_000, 256 << 20
"""Lines and bytes of outputs.jsonl: ten times the largest known set's 10,042 rows."""


def read_submission(folder: Path) -> tuple[Submission | None, CheckResult]:
    return _read(folder / SUBMISSION, "submission", Submission, SCHEMA, SUBMISSION_WANTED)


def read_manifest(run: Path) -> tuple[Manifest | None, CheckResult]:
    """Read the manifest in a run's folder, with the check of its form; None if it fails."""
    return _read(run / "manifest.json", "manifest", Manifest, run_folder.SCHEMA, MANIFEST_WANTED)


def read_answers(run: Path) -> tuple[tuple[Answer, ...] | None, CheckResult]:
    """Read outputs.jsonl line by line, held exactly to the form of pipe()'s output for chats: nesting, keys, types."""
    path = run / "outputs.jsonl"
    if not path.is_file():
        return None, decided("form", FORM, False, "there is no outputs.jsonl", ANSWERS_WANTED)
    if path.stat().st_size > MOST_BYTES:
        return None, decided("form", FORM, False, f"more than {MOST_BYTES:,} bytes", ANSWERS_WANTED)
    content = path.read_bytes()
    if content.count(b"\n") > MOST_ANSWERS:
        return None, decided("form", FORM, False, f"more than {MOST_ANSWERS:,} lines", ANSWERS_WANTED)
    lines = content.split(b"\n")
    answers: list[Answer] = []
    try:
        for line in lines[:-1]:
            answers.append(_answer(strict_json.loads(line)))
        if lines[-1]:
            raise ValueError("the last line has no end")  # noqa: TRY301
    except ValueError as error:
        return None, decided("form", FORM, False, f"line {len(answers) + 1}: {error}", ANSWERS_WANTED)
    return tuple(answers), decided("form", FORM, True, f"{len(answers):,} lines in pipe()'s form", ANSWERS_WANTED)


def _answer(row: Any) -> Answer:
    if not isinstance(row, dict) or set(row) != {"index", "output", "token_ids", "at_s"}:
        raise ValueError("other keys than index, output, token_ids, at_s")
    output, index, ids, at_s = row["output"], row["index"], row["token_ids"], row["at_s"]
    one = isinstance(output, list) and len(output) == 1 and isinstance(output[0], dict)
    if not one or set(output[0]) != {"generated_text"} or not isinstance(output[0]["generated_text"], str):
        raise ValueError("the output is not one object with its generated_text in a list")
    if type(index) is not int or index < 0:
        raise ValueError("the index is not a row's number")
    if not isinstance(ids, list) or any(type(each) is not int or each < 0 for each in ids):
        raise ValueError("the token ids are not a list of numbers")
    if not (at_s is None or type(at_s) in (int, float)):
        raise ValueError("at_s is not a number")
    return Answer(index, output[0]["generated_text"], tuple(ids), at_s)


def _read(path: Path, name: str, model: type[Any], schema: object, expected: str) -> tuple[Any, CheckResult]:
    try:
        value = strict_json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it is not an object")  # noqa: TRY004, TRY301
        actual = value.get("schema")
        if actual != schema:
            # Perhaps not wrong, perhaps newer than this program: it does not know what it would be reading.
            return None, unknown(name, FORM, f"schema {actual!r}, which this program does not know", expected)
        if value.get("shards"):
            return None, decided(name, FORM, False, "the run was made in shards, so it has no time", expected)
        if value.get("resumed"):
            why = "the run was resumed, so its time is not that of all rows"
            return None, decided(name, FORM, False, why, expected)
        return model.model_validate(value), decided(name, FORM, True, f"schema {schema}", expected)
    except ValidationError as error:
        return None, decided(name, FORM, False, schemas.words(error), expected)
    except ValueError as error:
        return None, decided(name, FORM, False, error, expected)
