"""The answers of all shards as one run folder in file order; refused where they are not those of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.errors import IntegrityError, in_words
from pipeline.record import run_folder
from pipeline.record.outputs import NAME, whole_rows
from pipeline.record.run_folder import value_at
from pipeline.runs import resume
from pipeline.runs.shards.plan import Part

ALIKE = (*resume.SAME, "environment.gpu", "environment.machine", "environment.packages", "code.commit", "weights")
"""Keys of the manifest that must be equal in all shards. An H100 and an H200 are both "cuda", so the device's own name
is among them; the host's processor is not: other sums than in the model's dtype are not taken there."""
NO_TIME = "no time that counts in the contest: shards load each for itself, and run side by side or one after another"


@dataclass(frozen=True)
class Shard:
    """The answers of one shard to one part."""

    number: int
    folder: Path
    manifest: Mapping[str, Any]
    rows: Mapping[int, dict[str, Any]]


def read(folder: Path, number: int) -> Shard:
    """The answers and manifest of one finished shard. Raises IntegrityError (M741) where they cannot be read."""
    try:
        manifest = run_folder.read_manifest(folder, known_schema=True)
        if manifest.get("state") != run_folder.FINISHED:
            raise ValueError(f"state {manifest.get('state')!r}")  # noqa: TRY301
        rows, whole_bytes = whole_rows(folder / NAME)
        content = (folder / NAME).read_bytes()
        if whole_bytes != len(content) or content.count(b"\n") != len(rows):
            raise ValueError("lines that are not whole, or one row twice")  # noqa: TRY301
    except (OSError, ValueError) as error:
        raise IntegrityError(
            "M741",
            "a shard's answers cannot be read",
            where=paths.shown(folder),
            expected="a finished run's folder",
            actual=in_words(error),
            fix="remove the attempt's folder with its run, and go on",
        ) from error
    return Shard(number, folder, manifest, rows)


def check(part: Part, shards: Sequence[Shard]) -> None:
    """Check that the shards are those of one run and hold every row of `part` once.

    Raises IntegrityError: M742 rows that are missing, foreign or there twice, M743 shards of different runs.
    """
    seen: dict[int, int] = {}
    for each in shards:
        piece = set(part.pieces[each.number - 1])
        foreign = sorted(index for index in each.rows if index not in piece or index in seen)
        missing = sorted(piece - each.rows.keys())
        if foreign or missing:
            of_others = [f"row {index} of shard {seen.get(index, 'none')}" for index in foreign[:5]]
            raise IntegrityError(
                "M742", "a shard answered other rows than its own", where=paths.shown(each.folder),
                expected=f"{len(piece)} rows", actual=f"missing: {missing[:5] or 'none'}; not its own: "
                f"{', '.join(of_others) or 'none'}", fix="remove this shard's folder, then --resume",
            )  # fmt: skip
        seen |= dict.fromkeys(each.rows, each.number)
        if other := differing(shards[0].manifest, each.manifest):
            raise _of_another_run(shards[0], each, other)
    lacking = sorted(set(range(part.rows)) - seen.keys())
    if lacking:
        raise IntegrityError(
            "M744", "some rows are in no shard", where=part.name, expected=f"all of {part.rows}", actual=lacking[:5],
            fix="the plan of the shards is damaged: start a new run",
        )  # fmt: skip


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Keys in which two manifests are of different runs."""
    return [key for key in ALIKE if value_at(a, key) != value_at(b, key)]


def _of_another_run(first: Shard, other: Shard, keys: Sequence[str]) -> IntegrityError:
    return IntegrityError(
        "M743", "two shards were made on different devices, or with different packages or weights",
        where=f"{paths.shown(other.folder)}: {', '.join(keys)}",
        expected=f"as in shard {first.number}: {', '.join(str(value_at(first.manifest, key)) for key in keys)}",
        actual=", ".join(str(value_at(other.manifest, key)) for key in keys),
        fix="give a partition of one kind of device, with one installation; then run it anew",
    )  # fmt: skip


def merge(part: Part, shards: Sequence[Shard], path: Path, command: Sequence[str], more: Mapping[str, Any]) -> None:
    """Check, then write the run folder `path`. `more` goes into its manifest."""
    check(part, shards)
    first = dict(shards[0].manifest)
    rows = {index: row for each in shards for index, row in each.rows.items()}
    for key in ("shard", "ready_s", "answered", "answered_s", "schema", "state"):
        first.pop(key, None)
    told = [
        {
            **each.manifest["shard"], "load_and_warm_up_s": each.manifest["ready_s"],
            "answered_s": each.manifest["answered_s"], "processor": each.manifest["environment"]["processor"],
        }
        for each in shards
    ]  # fmt: skip
    with run_folder.RunFolder(path) as folder:
        folder.begin({**first, "command": list(command)})
        for index in range(part.rows):
            if index not in folder.kept:  # of a merge that was killed
                folder.append(index, rows[index]["output"], rows[index]["token_ids"])
        tokens = sum(len(row["token_ids"]) for row in rows.values())
        folder.finish({
            "elapsed_s": None, "answer_tokens": tokens,
            "shards": {"time": NO_TIME, "repeated": part.repeated, "longest": part.longest, "each": told}, **more,
        })  # fmt: skip
