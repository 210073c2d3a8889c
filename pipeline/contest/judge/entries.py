"""The archives of a folder, each verified and unpacked once before anything of it runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import files, paths
from pipeline.check import FAIL
from pipeline.contest.archive import unpack
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.checks.submitted import Manifest
from pipeline.contest.judge.plan import BESIDE_S, FOLDER, UNPACKED, Entry, Size, limit_s, submission_folder
from pipeline.contest.verify import rerun, verify
from pipeline.errors import UsageError
from pipeline.queues import attempts

CHECKED = "checked.json"
NOTHING_RUN = rerun.Request(0, here=False, done=())


def archives(folder: Path) -> dict[str, str]:
    """The tar files of a folder to their sha256. Raises UsageError (U735) where there are none."""
    found = sorted(path for path in folder.glob("*.tar") if path.is_file()) if folder.is_dir() else []
    if not found:
        raise UsageError(
            "U735",
            "there are no archives in this folder" if folder.is_dir() else "there is no such folder",
            where=paths.shown(folder),
            expected="tar files that invoke submit wrote",
            fix="put what teams handed in into one folder, and name that",
        )
    return {path.name: files.sha256_of(path) for path in found}


def check(
    tar: Path, sha256: str, place: Path, organiser: Organiser, size: Size, tell: Callable[[str], None]
) -> Entry | None:
    """Verify an archive, once; None for one whose claims fail already: its verdict is there and nothing is run.

    `size` is that of the data of the judge: a limit grows with what the data are more than those of the claim."""
    folder = submission_folder(place, sha256)
    told = attempts.read(folder / CHECKED)
    if told is None:
        # Not beside the archive: there it would be ranked before anything has run.
        verdict = verify.verify(tar, organiser, NOTHING_RUN, folder / "claims")
        failed = [each.id for each in verdict.checks if each.state == FAIL]
        told = {"file": tar.name, "failed": failed, "claimed_s": 0.0}
        if not failed and verdict.manifest is not None:
            told["claimed_s"] = claimed_s(verdict.manifest, size)
            part = folder / f"{UNPACKED}.part"
            shutil.rmtree(part, ignore_errors=True)  # of a judge that was killed
            shutil.rmtree(folder / UNPACKED, ignore_errors=True)
            part.mkdir(parents=True)
            unpack.unpack(tar, part)
            os.rename(part, folder / UNPACKED)
        if failed:
            verify.write(verdict, verify.folder_of(tar))
        files.write_json(folder / CHECKED, told)
        tell(f"{tar.name}: {'INVALID: ' + ', '.join(failed) if failed else 'to be run'}")
    if told["failed"]:
        return None
    expected_s = float(told["claimed_s"])
    return Entry(sha256[:12], sha256, tar.name, expected_s + BESIDE_S, limit_s(expected_s))


def refused(folder: Path) -> list[dict[str, Any]]:
    """The verdicts of those whose claims fail already, which are not in the plan, as they lie beside the archives."""
    told = [attempts.read(path) for path in sorted((folder / FOLDER / "submissions").glob(f"*/{CHECKED}"))]
    names = sorted(str(each["file"]) for each in told if each and each["failed"])
    verdicts = [attempts.read(verify.folder_of(folder / name) / verify.JSON) for name in names]
    return [each for each in verdicts if each]


def claimed_s(manifest: Manifest, size: Size) -> float:
    """Load, warm-up and section by the team's own word, the section grown to the data of the judge."""
    stats = manifest.engine.stats
    growth = size.growth(manifest.dataset.sha256, manifest.dataset.rows, stats.prompt_tokens if stats else None)
    return manifest.phases_s.load + manifest.phases_s.warm_up + growth * manifest.elapsed_s
