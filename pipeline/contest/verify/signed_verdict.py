"""`invoke verify --sign KEY`: the verdict as a statement about the submission's file, and its check.

Whoever has the file, the organiser's public key and `verdict.dsse.json` can see that this organiser gave this verdict
of these bytes. Nobody needs the organiser's data or model for that.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.check import plain
from pipeline.contest.archive import strict_json
from pipeline.contest.signing import envelope, keys
from pipeline.contest.signing.envelope import Statement
from pipeline.errors import IntegrityError
from pipeline.files import sha256_of

NAME = "verdict.dsse.json"
JSON = "verdict.json"
OF = "urn:phi3-offline-pipeline:verdict:1"
"""The predicate is verdict.json's content."""


def key(path: Path) -> Path:
    """The path of a key that can sign. Raises UsageError (U752), EnvironmentProblem (E702)."""
    keys.read_private(path)
    return path


def settle(tar: Path, folder: Path, key: Path | None) -> None:
    """Sign the verdict that lies in `folder`; without a key take away what was signed of an earlier one."""
    if key is None:
        (folder / NAME).unlink(missing_ok=True)
    else:
        sign(tar, folder, key)


def sign(tar: Path, folder: Path, key: Path) -> Path:
    """Sign the verdict that lies in `folder`, of `tar`; raises as `envelope.sign`."""
    content = strict_json.loads((folder / JSON).read_bytes())
    envelope.sign(Statement(tar.name, sha256_of(tar), OF, content), key, folder / NAME)
    return folder / NAME


def check(path: Path, public: Path, tar: Path | None = None) -> Statement:
    """The statement of a signed verdict, held against the submission's file and the verdict.json beside it, if any.

    Raises as `envelope.read`, and IntegrityError (M752 another submission's, M753 verdict.json is another).
    """
    path = path / NAME if path.is_dir() else path
    statement = envelope.read(path, public, OF)
    if tar is not None and sha256_of(tar) != statement.sha256:
        raise IntegrityError(
            "M752",
            "the signed verdict is about another file",
            where=paths.shown(tar),
            expected=f"sha256 {statement.sha256}, of {statement.name}",
            actual=sha256_of(tar),
            fix="find the file that was verified, or verify this one",
        )
    beside = path.with_name(JSON)
    if beside.is_file() and strict_json.loads(beside.read_bytes()) != statement.predicate:
        raise IntegrityError(
            "M753",
            "verdict.json is not what was signed",
            where=paths.shown(beside),
            fix="trust the signed one, or verify again with --sign",
        )
    return statement


def text(statement: Statement) -> str:
    """For the terminal: the signature is good, so these are the organiser's words."""
    said = statement.predicate
    return "\n".join(
        [
            "the signature is good",
            f"  file     {plain(statement.name)}, sha256 {statement.sha256}",
            f"  verdict  {said['verdict']}, rules version {said.get('rules_version')}",
            f"  received {said.get('received_utc')}",
        ]
    )
