"""The content of a run's folder, read for a page: also of a run that is cut off, old, or lacks parts.

Nothing that is missing is made up or taken for zero: it is None here, and `missing` says in words what and why.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.accuracy import compare
from pipeline.accuracy.scoring import Verdicts, verdicts
from pipeline.dataset.records import Record
from pipeline.device import telemetry
from pipeline.errors import PipelineError, UsageError, in_words
from pipeline.record import run_folder, timeline
from pipeline.record.outputs import is_output, read_outputs
from pipeline.record.timeline import Pass


@dataclass(frozen=True)
class Row:
    """One answered prompt."""

    index: int
    given: str
    tokens: int
    prompt: str | None
    """None where the data set cannot be had."""
    expected: str | None
    right: bool | None
    """None: not scored."""


@dataclass(frozen=True)
class Channel:
    """One column of the telemetry; None where the channel gave nothing at that moment."""

    name: str
    values: tuple[float | None, ...]

    @property
    def coverage(self) -> float:
        return sum(value is not None for value in self.values) / len(self.values) if self.values else 0.0


@dataclass(frozen=True)
class Samples:
    at_s: tuple[float, ...]
    channels: tuple[Channel, ...]

    def of_unit(self, unit: str) -> list[Channel]:
        """Channels in this unit with at least one value."""
        return [channel for channel in self.channels if channel.name.endswith(f"_{unit}") and channel.coverage > 0]


@dataclass(frozen=True)
class Facts:
    folder: Path
    manifest: Mapping[str, Any]
    rows: tuple[Row, ...]
    rule: str | None
    note: str | None
    passes: tuple[Pass, ...]
    """Passes of the last timed section; none where the engine keeps no log of them."""
    samples: Samples | None
    missing: tuple[str, ...]
    """Parts that the page cannot show, each with its reason; without channels of the telemetry."""

    @property
    def silent(self) -> Mapping[str, str]:
        """Channels of the telemetry that gave nothing, each with its reason."""
        return self.get("telemetry.missing") or {}

    def get(self, path: str) -> Any:
        """A value of the manifest (`value`)."""
        return value(self.manifest, path)

    @property
    def scored(self) -> list[Row]:
        return [row for row in self.rows if row.right is not None]

    @property
    def wrong(self) -> list[Row]:
        return [row for row in self.rows if row.right is False]


def value(manifest: Mapping[str, Any], path: str) -> Any:
    """A value by its keys with dots between them; None where it is not there."""
    found: Any = manifest
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def read(folder: Path, execute_code: bool = False) -> Facts:
    """Read a run's folder.

    Raises UsageError (U701) for a folder without a run's manifest, and what a sandbox raises (`verdicts`).
    """
    manifest = _manifest(folder)
    missing: list[str] = []
    outputs = _outputs(folder, missing)
    data, judged = _judged(folder, manifest, outputs, execute_code, missing)
    right = judged.right if judged else (None,) * len(outputs)
    rows = tuple(
        Row(
            index=row["index"],
            given=row["output"][0]["generated_text"],
            tokens=len(row["token_ids"]),
            prompt=None if data is None else _prompt(data[row["index"]]),
            expected=None if data is None else data[row["index"]].answer,
            right=is_right,
        )
        for row, is_right in zip(outputs, right, strict=True)
    )
    passes, samples = _passes(folder, manifest, missing), _samples(folder, missing)
    rule, note = (judged.rule, judged.note) if judged else (None, None)
    return Facts(folder, manifest, rows, rule, note, passes, samples, tuple(missing))


def _manifest(folder: Path) -> Mapping[str, Any]:
    try:
        return run_folder.read_manifest(folder, known_schema=True)
    except (OSError, ValueError) as error:
        raise UsageError(
            "U701",
            "there is no run in this folder that can be reported on",
            where=paths.shown(folder / "manifest.json"),
            expected="the manifest that a run writes when it begins",
            actual=in_words(error),
            fix="name a run's folder, or its name under runs/",
        ) from error


def _outputs(folder: Path, missing: list[str]) -> list[dict[str, Any]]:
    try:
        rows = read_outputs(folder)
    except OSError as error:
        missing.append(f"Answers: outputs.jsonl cannot be read ({error.strerror}).")
        return []
    fine = [row for row in rows if is_output(row["output"]) and isinstance(row["token_ids"], list)]
    if len(fine) < len(rows):
        missing.append(f"Answers: {len(rows) - len(fine)} rows of outputs.jsonl are not in pipe()'s form.")
    return fine


def _judged(
    folder: Path,
    manifest: Mapping[str, Any],
    outputs: Sequence[Mapping[str, Any]],
    execute_code: bool,
    missing: list[str],
) -> tuple[Sequence[Record] | None, Verdicts | None]:
    """The data set's rows and who is right, where the very data set that was answered can be had."""
    if not outputs:
        return None, None
    run = compare.Run(folder, manifest, {row["index"]: row for row in outputs})
    try:
        data = compare.rows_of(run)
        chosen = [data[row["index"]] for row in outputs]
    except (PipelineError, OSError, KeyError, IndexError) as error:
        reason = error.what if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
        missing.append(f"Prompts and expected answers: {reason}.")
        return None, None
    texts = [row["output"][0]["generated_text"] for row in outputs]
    return data, verdicts(manifest["dataset"]["name"], chosen, texts, execute_code)


def _prompt(row: Record) -> str:
    """A single question as it is, a longer chat with the roles before each turn."""
    if len(row.messages) == 1:
        return row.messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in row.messages)


def _passes(folder: Path, manifest: Mapping[str, Any], missing: list[str]) -> tuple[Pass, ...]:
    if manifest.get("request", {}).get("engine") != "ours":
        missing.append("Passes: transformers' pipe() does not say what its passes held or how long each took.")
        return ()
    try:
        return tuple(timeline.read_passes(folder))
    except OSError:
        missing.append(f"Passes: there is no {timeline.PASSES}; it is written when a run ends.")
    except ValueError as error:
        missing.append(f"Passes: {timeline.PASSES} cannot be read ({error}).")
    return ()


def _samples(folder: Path, missing: list[str]) -> Samples | None:
    try:
        with open(folder / telemetry.NAME, encoding="utf-8", newline="") as file:
            (_, *names), *lines = csv.reader(file)
        at_s = tuple(float(line[0]) for line in lines)
        columns = [tuple(float(line[i]) if line[i] else None for line in lines) for i in range(1, len(names) + 1)]
    except OSError:
        missing.append(f"Power, temperature and memory over time: there is no {telemetry.NAME}.")
        return None
    except (ValueError, IndexError) as error:
        missing.append(f"Power, temperature and memory over time: {telemetry.NAME} cannot be read ({error}).")
        return None
    return Samples(at_s, tuple(Channel(name, values) for name, values in zip(names, columns, strict=True)))
