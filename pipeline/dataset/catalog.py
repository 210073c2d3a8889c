"""Which data sets there are, what their licences are, which are on this disk and how long their prompts are."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths, settings, table
from pipeline.dataset import fetch, records
from pipeline.files import remember, remembered, sha256_of
from pipeline.schemas import DatasetConfig
from pipeline.table import Column
from pipeline.text.chat_template import token_ids

COLUMNS = (
    Column("set"),
    Column("or by"),
    Column("rows", right=True),
    Column("on disk"),
    Column("mean", right=True),
    Column("max", right=True),
    Column("licence", wrap=80),
)


@dataclass(frozen=True)
class Listed:
    config: DatasetConfig
    on_disk: bool
    mean_tokens: float | None
    """Mean length of a prompt with the chat template; None where the set, or any tokenizer, is not on this disk."""
    max_tokens: int | None


@dataclass(frozen=True)
class Listing:
    sets: tuple[Listed, ...]
    tokenizer: str | None
    """Name of the model whose tokens were counted: the contest's where it is on this disk, else the stand-in."""


def listing() -> Listing:
    """Every set of `configs/datasets`. Fetches nothing. Raises IntegrityError (M101) for a YAML that is wrong."""
    counter = _Counter.find()
    return Listing(
        tuple(_listed(settings.dataset(name), counter) for name in settings.dataset_names()),
        None if counter is None else counter.folder.name,
    )


def text(listed: Listing) -> str:
    """For the terminal."""
    rows = []
    for each in listed.sets:
        config = each.config
        mean = "" if each.mean_tokens is None else f"{each.mean_tokens:.1f}"
        longest = "" if each.max_tokens is None else f"{each.max_tokens:,}"
        terms = "" if config.terms == "free" else f"{config.terms}: "
        there = "yes" if each.on_disk else "no"
        names = ", ".join(config.aliases)
        rows.append((config.name, names, f"{config.rows:,}", there, mean, longest, f"{terms}{config.licence}"))
    counted = f"prompt tokens counted with the tokenizer of {listed.tokenizer}"
    lines = [
        table.text(COLUMNS, rows),
        "",
        counted if listed.tokenizer else "prompt tokens: no tokenizer on this disk (invoke setup fetches one)",
    ]
    return "\n".join([*lines, "to fetch: invoke data --set NAME (several by commas), or --all"])


def _listed(config: DatasetConfig, counter: _Counter | None) -> Listed:
    path = fetch.place(config.name)
    if not path.exists():
        return Listed(config, False, None, None)
    mean, longest = (None, None) if counter is None else counter.lengths(path)
    return Listed(config, True, mean, longest)


class _Counter:
    """Token lengths of files, kept in `data()/sets/.lengths.json` by the hashes of file and tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cache = paths.data() / "sets" / ".lengths.json"
        self._tokenizer_sha256 = sha256_of(folder / "tokenizer.json")
        self._tokenizer: Any = None

    @classmethod
    def find(cls) -> _Counter | None:
        folders = [paths.models() / name for name in ("phi3-medium", "standin")]
        return next((cls(folder) for folder in folders if (folder / "tokenizer.json").exists()), None)

    def lengths(self, path: Path) -> tuple[float, int]:
        kept = remembered(self._cache)
        key = f"{sha256_of(path)} {self._tokenizer_sha256}"
        with contextlib.suppress(KeyError, TypeError, ValueError):  # not there, or damaged
            mean, longest = kept[key]
            return float(mean), int(longest)
        counts = self._counts(path)
        mean, longest = sum(counts) / len(counts), max(counts)
        remember(self._cache, {**kept, key: [mean, longest]})
        return mean, longest

    def _counts(self, path: Path) -> list[int]:
        if self._tokenizer is None:
            from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

            self._tokenizer = AutoTokenizer.from_pretrained(str(self.folder))
        return [len(ids) for ids in token_ids(self._tokenizer, [row.messages for row in records.read(path)])]
