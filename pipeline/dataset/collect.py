"""Several sets in one go: each that can be had is built, and a table ends it with where from, or why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths, settings, table
from pipeline.dataset import fetch
from pipeline.download import Say
from pipeline.errors import PipelineError, UsageError
from pipeline.schemas import DatasetConfig
from pipeline.table import Column

COLUMNS = (
    Column("set"),
    Column("rows", right=True),
    Column("built"),
    Column("from, or why not", wrap=60),
    Column("licence", wrap=50),
)


@dataclass(frozen=True)
class Outcome:
    """One set: obtained, or the error that kept it from being."""

    config: DatasetConfig
    obtained: fetch.Obtained | None
    error: PipelineError | None = None


def collect(names: Sequence[str], mirror: Path | None = None, say: Say = print) -> tuple[Outcome, ...]:
    """Every set that can be had, in this order; `mirror` as for `fetch.obtain`.

    Raises UsageError before anything is fetched: U101 a name that is none, U114 a mirror that is no folder. What
    `fetch.obtain` raises for a set ends in its outcome, and the next set follows.
    """
    configs = [settings.dataset(name) for name in names]
    if mirror is not None and not mirror.is_dir():
        raise UsageError(
            "U114",
            "--from does not name a folder",
            where=paths.shown(mirror),
            expected="a folder in which FOLDER/KEY/MEMBER is a source's file, KEY being `mirror:` in the set's YAML",
            fix="name the folder, or leave --from out",
        )
    return tuple(_outcome(config, mirror, say) for config in configs)


def text(outcomes: Sequence[Outcome]) -> str:
    """For the terminal."""
    rows = [
        (
            each.config.name,
            f"{each.config.rows:,}",
            "no" if each.obtained is None else "yes",
            _cause(each),
            each.config.licence if each.config.terms == "free" else f"{each.config.terms}: {each.config.licence}",
        )
        for each in outcomes
    ]
    built = sum(each.obtained is not None for each in outcomes)
    return (
        f"{table.text(COLUMNS, rows)}\n\n{built} of {len(outcomes)} sets are in {paths.shown(fetch.place('x').parent)}"
    )


def _outcome(config: DatasetConfig, mirror: Path | None, say: Say) -> Outcome:
    try:
        return Outcome(config, fetch.obtain(config.name, say, mirror))
    except PipelineError as error:
        return Outcome(config, None, error)


def _cause(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"{outcome.error.code} {outcome.error.what}"
    came_from = None if outcome.obtained is None else outcome.obtained.came_from
    return came_from or "this disk, where it was"
