"""Two runs of the same data set, row by row: what they answered, how often they were right, and why they may differ.

A is the yardstick, B the run that is held against it. The contest allows a drop of 0.5 percentage points; on a set of
some size that cannot always be told from chance, and then the verdict says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.accuracy.scoring import verdicts
from pipeline.accuracy.stats import ALLOWED_DROP, ALLOWED_PERCENT, Z95, coverage, interval, mcnemar
from pipeline.dataset import fetch, records
from pipeline.dataset.records import Record
from pipeline.errors import IntegrityError, UsageError, in_words
from pipeline.files import sha256_of
from pipeline.record import promise, run_folder, speed
from pipeline.record.outputs import read_outputs
from pipeline.record.promise import Promise
from pipeline.record.speed import Speed

EXPLAINS = (
    "model",
    "dataset",
    "arguments",
    "dtype",
    "device",
    "code",
    "environment",
    "weights",
    "request",
    "engine.name",
)
"""Parts of a manifest that can be why two runs differ."""


@dataclass(frozen=True)
class Run:
    path: Path
    manifest: Mapping[str, Any]
    outputs: Mapping[int, Mapping[str, Any]]
    """By row."""


@dataclass(frozen=True)
class Margin:
    """How near to a tie the model was where two answers part."""

    best_less_second: float
    """Logit of the likeliest token less that of the next."""
    behind: tuple[float | None, float | None]
    """By how much A's and B's token are behind the likeliest; None behind the end."""


@dataclass(frozen=True)
class Differing:
    """A row whose text or tokens are not the same."""

    index: int
    position: int | None
    """Index of the first token that differs; None where the tokens are the same and the text is not."""
    tokens: tuple[int | None, int | None]
    """A's and B's there; None behind the end."""
    texts: tuple[str, str]
    right: tuple[bool | None, bool | None]
    margin: Margin | None = None
    """Where it was asked for, and the tokens differ."""


@dataclass(frozen=True)
class Comparison:
    dataset: str
    runs: tuple[str, str]
    rule: str
    note: str | None
    rows: int
    """Count of rows that both runs answered."""
    rows_of_data: int
    """All that there are to answer."""
    unpaired: tuple[int, int]
    """Rows that only A, only B answered."""
    byte_equal: int
    scored: int
    both: int
    only_a: int
    only_b: int
    neither: int
    difference: float | None
    """B's accuracy less A's; None where no row is scored."""
    interval: tuple[float, float] | None
    p: float | None
    verdict: str
    """`kept`, `broken`, or `cannot tell`; `not scored` without answers."""
    words: str
    speed: Speed
    promise: Promise
    """Whether the answers must be equal to the byte, by what the runs tried of themselves."""
    differing: tuple[Differing, ...]
    manifests: tuple[tuple[str, Any, Any], ...]
    """Name, A's value, B's value of all that differs and can be why."""


def compare(run_a: str, run_b: str, execute_code: bool = False) -> Comparison:
    """Both runs by name or folder.

    Raises UsageError (U311 no such run, U331 no run's folder, U332 different data, U333 no row in common),
    IntegrityError (M141 the data file is another one by now) and what finding the data raises.
    """
    a, b = (read(run_folder.find(name)) for name in (run_a, run_b))
    of_a, of_b = a.manifest["dataset"]["sha256"], b.manifest["dataset"]["sha256"]
    if of_a != of_b:
        raise UsageError(
            "U332",
            "these two runs answered different data",
            where=f"{paths.shown(a.path)}, {paths.shown(b.path)}",
            expected=f"{a.manifest['dataset']['name']}, sha256 {of_a[:12]}…",
            actual=f"{b.manifest['dataset']['name']}, sha256 {of_b[:12]}…",
            fix="compare runs of the same data set",
        )
    common = sorted(a.outputs.keys() & b.outputs.keys())
    if not common:
        raise UsageError(
            "U333",
            "these two runs have no answered row in common",
            where=f"{paths.shown(a.path)}, {paths.shown(b.path)}",
            expected="rows that both answered",
            actual=f"{len(a.outputs)} and {len(b.outputs)} rows",
            fix="let both answer the same rows, for instance by the same --limit",
        )
    return paired(a, b, rows_of(a), common, execute_code)


def read(path: Path) -> Run:
    """A run from its folder, finished or not. Raises UsageError (U331)."""
    try:
        manifest = run_folder.read_manifest(path)
        if not {"name", "sha256"} <= manifest["dataset"].keys():
            raise KeyError("dataset")  # noqa: TRY301
        outputs = {row["index"]: row for row in read_outputs(path)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "U331",
            "this folder holds no run that can be compared",
            where=paths.shown(path),
            expected="manifest.json with the data set's name and hash, and outputs.jsonl",
            actual=in_words(error),
            fix="name a run that got as far as answering",
        ) from error
    return Run(path, manifest, outputs)


def rows_of(run: Run) -> list[Record]:
    """The data that a run answered. Raises IntegrityError (M141)."""
    name, sha256 = run.manifest["dataset"]["name"], run.manifest["dataset"]["sha256"]
    path = fetch.resolve(name, lambda line: None)
    if (actual := sha256_of(path)) != sha256:
        raise IntegrityError(
            "M141",
            "the data file is not the one that the runs answered",
            where=paths.shown(path),
            expected=f"sha256 {sha256}",
            actual=f"sha256 {actual}",
            fix="bring the file back, or repeat both runs",
        )
    return records.read(path)


def paired(a: Run, b: Run, rows: list[Record], common: list[int], execute_code: bool) -> Comparison:
    """The comparison over the rows `common` of the data set's `rows`."""
    name = a.manifest["dataset"]["name"]
    chosen = [rows[index] for index in common]
    texts = [[run.outputs[index]["output"][0]["generated_text"] for index in common] for run in (a, b)]
    judged = [verdicts(name, chosen, answers, execute_code) for answers in texts]
    pairs = list(zip(judged[0].right, judged[1].right, strict=True))
    counts = {pair: sum(each == pair for each in pairs) for pair in ((True, True), (True, False), (False, True))}
    scored = sum(None not in pair for pair in pairs)
    only_a, only_b = counts[True, False], counts[False, True]
    byte_equal = sum(text_a == text_b for text_a, text_b in zip(*texts, strict=True))
    verdict, words = judge(only_a, only_b, scored, all_equal=byte_equal == len(common))
    every = max(len(rows), len(set(a.outputs) | set(b.outputs)))
    if less := coverage(len(common), every):
        verdict = "cannot tell" if verdict == "kept" else verdict
        words = less + words.replace("Kept:", "On those rows")
    return Comparison(
        dataset=name,
        runs=(paths.shown(a.path), paths.shown(b.path)),
        rule=judged[0].rule,
        note=judged[0].note,
        rows=len(common),
        rows_of_data=every,
        unpaired=(len(a.outputs) - len(common), len(b.outputs) - len(common)),
        byte_equal=byte_equal,
        scored=scored,
        both=counts[True, True],
        only_a=only_a,
        only_b=only_b,
        neither=scored - counts[True, True] - only_a - only_b,
        difference=(only_b - only_a) / scored if scored else None,
        interval=interval(only_a, only_b, scored) if scored else None,
        p=mcnemar(only_a, only_b) if scored else None,
        verdict=verdict,
        words=words,
        speed=speed.between(a.manifest, b.manifest, len(a.outputs), len(b.outputs)),
        promise=promise.between(a.manifest, b.manifest),
        differing=tuple(
            _differing(index, a, b, right)
            for index, right in zip(common, pairs, strict=True)
            if any(a.outputs[index][key] != b.outputs[index][key] for key in ("output", "token_ids"))
        ),
        manifests=tuple(_why(a.manifest, b.manifest)),
    )


def judge(only_a: int, only_b: int, scored: int, all_equal: bool) -> tuple[str, str]:
    """The rule's verdict, and the same in a sentence."""
    if not scored:
        return "not scored", "No row was scored, so nothing can be said about accuracy."
    if all_equal:
        return "kept", "Kept: every output is the same, byte for byte, so accuracy is the same too."
    low, high = interval(only_a, only_b, scored)
    drop = (only_a - only_b) / scored
    measured = f"measured on these {scored} rows: {change(drop)}"
    if low >= -ALLOWED_DROP:
        most = f"the drop is at most {max(0.0, -low):.2%}, below {ALLOWED_PERCENT}"
        return "kept", f"Kept: with 95 % confidence {most} ({measured})."
    if high < -ALLOWED_DROP:
        least = f"the drop is at least {-high:.2%}, above {ALLOWED_PERCENT}"
        return "broken", f"Broken: with 95 % confidence {least} ({measured})."
    # With no true difference the interval is about ± Z · sqrt(share that flips / rows) wide.
    flips = max(only_a + only_b, 1) / scored
    needed = int(Z95**2 * flips / ALLOWED_DROP**2) + 1
    return "cannot tell", (
        f"Cannot tell at this size: the drop may be anything from {-high:.2%} to {-low:.2%} ({measured}). "
        f"With as many flips a row and no true drop, about {max(needed, scored):,} rows would tell."
    )


def change(drop: float) -> str:
    """A drop in accuracy in words."""
    return "no change" if drop == 0 else f"a {'drop' if drop > 0 else 'gain'} of {abs(drop):.2%}"


def _differing(index: int, a: Run, b: Run, right: tuple[bool | None, bool | None]) -> Differing:
    of_a, of_b = a.outputs[index], b.outputs[index]
    tokens_a, tokens_b = of_a["token_ids"], of_b["token_ids"]
    position = next((i for i, (x, y) in enumerate(zip(tokens_a, tokens_b, strict=False)) if x != y), None)
    if position is None and len(tokens_a) != len(tokens_b):
        position = min(len(tokens_a), len(tokens_b))
    there = tuple(
        None if position is None or position >= len(tokens) else tokens[position] for tokens in (tokens_a, tokens_b)
    )
    texts = (of_a["output"][0]["generated_text"], of_b["output"][0]["generated_text"])
    return Differing(index, position, (there[0], there[1]), texts, right)


def _why(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    flat_a, flat_b = _flat(a), _flat(b)
    names = [name for name in {**flat_a, **flat_b} if flat_a.get(name) != flat_b.get(name)]
    return [(name, flat_a.get(name), flat_b.get(name)) for name in names if name.startswith(EXPLAINS)]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"name": x}} as {"model.name": x}, at any depth."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        flat |= _flat(inner, f"{name}.") if isinstance(inner, Mapping) else {name: inner}
    return flat
