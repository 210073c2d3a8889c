"""One finished run as one tar file that anybody can check: the same inputs give the same bytes.

Every time in the archive is the commit's, and nobody owns its files. Its form: `contest/format.py`.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import files, paths
from pipeline.contest.format import HASH_DIGITS, IMAGE, MANIFEST, RUN, SCHEMA, SOURCE, SUBMISSION
from pipeline.contest.source import commit
from pipeline.contest.submit import redact
from pipeline.contest.team import Team
from pipeline.errors import IntegrityError
from pipeline.record import run_folder
from pipeline.record.outputs import ANSWERS


@dataclass(frozen=True)
class Image:
    """Name and digest of the run's image; None where they are not known."""

    reference: str | None = None
    digest: str | None = None


def pack(
    run: Path,
    team: Team,
    out: Path,
    *,
    checkout: Path = paths.ROOT,
    rehearsal: bool = False,
    image: Image | None = None,
    image_tar: Path | None = None,
    names: redact.Names | None = None,
    documents: Mapping[str, bytes] | None = None,
) -> Path:
    """Write `out`/<team>-<hash>.tar, whole or not at all, and return its path.

    `names` are to be redacted: this machine's and its user's when left out. Raises what
    `run_folder.finished_manifest` and `commit.of_run` raise, IntegrityError (M615) for a run's folder that holds other
    things than files, ResourceError.
    """
    manifest = run_folder.finished_manifest(run)
    made_by = commit.of_run(manifest, checkout)
    run_files, redactions = redact.redact(
        _files_of(run), redact.names_here() if names is None else names, _words(manifest)
    )
    shown = json.loads(run_files["manifest.json"])  # redacted: a model or a data set may be named by its path
    packed: dict[str, bytes | Path] = {**(documents or {})}
    packed |= {f"{RUN}/{path}": content for path, content in run_files.items()}
    packed[SOURCE] = made_by.tar
    if image_tar is not None:
        packed[IMAGE] = image_tar
    described = {
        "schema": SCHEMA,
        "rehearsal": rehearsal,
        "team": {"name": team.name, "members": list(team.members)},
        "run": run.resolve().name,
        "commit": made_by.commit,
        "model": shown["model"],
        "dataset": shown["dataset"],
        "image": asdict(image or Image(team.image)),
        "declarations": dict(sorted(team.declarations.items())),
        "redactions": [{**asdict(each), "file": f"{RUN}/{each.file}"} for each in redactions],
        "files": {path: _size_bytes(content) for path, content in sorted(packed.items())},
    }
    packed[SUBMISSION] = files.json_bytes(described)
    return write(packed, team.slug + "-rehearsal" * rehearsal, made_by.committed_s, out)


def submission_json(path: Path) -> dict[str, Any]:
    """Read the submission.json of a file that `pack` wrote."""
    with tarfile.open(path) as archive:
        member = archive.extractfile(f"{path.stem}/{SUBMISSION}")
        assert member is not None  # `write` puts only files into it
        submission: dict[str, Any] = json.loads(member.read())
    return submission


def write(packed: Mapping[str, bytes | Path], prefix: str, time_s: int, out: Path) -> Path:
    """Write these files and their MANIFEST.sha256 to `out`/<prefix>-<hash>.tar, and return its path."""
    lines = [f"{_sha256(content)}  {path}\n" for path, content in sorted(packed.items())]
    listing = "".join(lines).encode()
    name = f"{prefix}-{hashlib.sha256(listing).hexdigest()[:HASH_DIGITS]}"
    path = out / f"{name}.tar"
    with (
        files.write_atomically(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for member, content in sorted({**packed, MANIFEST: listing}.items()):
            entry = tarfile.TarInfo(f"{name}/{member}")
            entry.size, entry.mtime, entry.mode = _size_bytes(content), time_s, 0o644
            with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as data:
                archive.addfile(entry, data)
    return path


def _files_of(folder: Path) -> dict[str, bytes]:
    """Files of a run's folder: path below it to content. Hidden files are left out (a killed process or an editor left
    them), and so are the report and the answers by themselves: both can be made again of the rest, and nobody should
    open a stranger's page, nor hold one list of answers against another."""
    contents: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise IntegrityError(
                "M615",
                "a run's folder holds something that is not a file",
                where=paths.shown(path),
                expected="files and folders",
                fix="take it out of the run's folder: a run makes only files",
            )
        if (
            path.is_file()
            and name not in (run_folder.REPORT, ANSWERS)
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ):
            contents[name] = path.read_bytes()
    return contents


def _words(manifest: Mapping[str, Any]) -> set[str]:
    """Values of the manifest without which a run cannot be checked; they are not redacted."""
    parts = (manifest["model"], manifest["dataset"], manifest["engine"], manifest["request"], manifest["environment"])
    values = [value for part in parts for value in part.values()] + [manifest["dtype"], manifest["device"]]
    return {value for value in values if isinstance(value, str)} | {"invoke", "run", "torch"}


def _size_bytes(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _sha256(content: bytes | Path) -> str:
    return files.sha256_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
