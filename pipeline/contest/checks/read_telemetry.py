"""Reading telemetry.csv of a run, strictly: a table of known channels, every value a measurement."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from pipeline.contest.checks.submitted import Manifest
from pipeline.device import channels
from pipeline.device.channels import Channel
from pipeline.device.telemetry import NAME, Recording, Sample

MOST_BYTES = 32 << 20
"""A day of samples of forty channels."""


def read(run: Path, manifest: Manifest) -> tuple[Recording | None, str]:
    """The recording in a run's folder, or why it cannot be read."""
    try:
        return _read(run / NAME, manifest), ""
    except (OSError, ValueError, csv.Error) as error:
        return None, f"{NAME}: {error.strerror if isinstance(error, OSError) else error}"


def _read(path: Path, manifest: Manifest) -> Recording:
    """Read a recording from telemetry.csv. Raises OSError, ValueError, csv.Error."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError("too large")
    with path.open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    if not head or head[0] != "time_s" or len(set(head)) < len(head) or not lines:
        raise ValueError("not a table of times and channels")
    kinds = {name: kind for name in head[1:] if (kind := channels.kind_of(name)) is not None}
    strange = [name for name in head[1:] if name not in kinds]
    if strange:
        raise ValueError(f"a channel of no known kind: {strange[0]!r}")
    if any(len(line) != len(head) for line in lines):
        raise ValueError("a line with more or fewer columns than the first")
    columns = tuple(Channel(name, kind, _nothing) for name, kind in kinds.items())
    samples = tuple(Sample(_number(line[0]), tuple(map(_number_or_none, line[1:]))) for line in lines)
    return Recording(columns, samples, manifest.telemetry.elapsed_s, 0.0, manifest.telemetry.others_share)


def _nothing() -> float:
    raise ValueError("a recorded channel is not read again")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no measurement")
    return value


def _number_or_none(text: str) -> float | None:
    return _number(text) if text else None
