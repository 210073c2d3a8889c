"""An in-toto statement (v1) in a DSSE envelope (v1), signed with ed25519: what a file is, and what was found of it.

https://github.com/secure-systems-lab/dsse and https://github.com/in-toto/attestation say what these are; any program
that reads them can check ours. What is signed is the payload as bytes, so nobody need write JSON the same way twice.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.contest.archive import strict_json
from pipeline.contest.signing import keys
from pipeline.errors import IntegrityError
from pipeline.files import json_bytes, write_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
MOST_BYTES = 64 * 2**20
"""Of an envelope's file."""


@dataclass(frozen=True)
class Statement:
    """Something said about one file."""

    name: str
    sha256: str
    of: str
    """The kind of what is said: a URI."""
    predicate: Mapping[str, Any]

    def payload(self) -> bytes:
        return json_bytes(
            {
                "_type": STATEMENT,
                "subject": [{"name": self.name, "digest": {"sha256": self.sha256}}],
                "predicateType": self.of,
                "predicate": dict(self.predicate),
            }
        )


def sign(statement: Statement, key: Path, to: Path) -> None:
    """Write the signed statement. Raises UsageError (U752), EnvironmentProblem (E702), ResourceError (R101, R102)."""
    private, payload = keys.read_private(key), statement.payload()
    signature = private.sign(encoded(PAYLOAD_TYPE, payload))
    signed = {"keyid": keys.key_id(private.public_key()), "sig": _text(signature)}
    write_json(to, {"payload": _text(payload), "payloadType": PAYLOAD_TYPE, "signatures": [signed]})


def read(path: Path, public: Path, of: str) -> Statement:
    """The statement of that kind in an envelope with a good signature by this key, whatever else signed it.

    Raises IntegrityError (M751), UsageError (U753 of the key), EnvironmentProblem (E702), OSError.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only signing needs it

    key = keys.read_public(public)
    try:
        kind, payload, signatures = _parts(path)
        for each in signatures:
            try:
                key.verify(each, encoded(kind, payload))
            except InvalidSignature:
                continue
            break
        else:
            raise ValueError(f"no signature in it is one by the key {keys.key_id(key)[:16]}…")  # noqa: TRY301
        return _statement(kind, payload, of)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            "M751",
            "this is not a statement signed with this key",
            where=paths.shown(path),
            expected=f"a DSSE envelope with a statement of {of}, signed by {paths.shown(public)}",
            actual=error,
            fix="get the file anew from who signed it, and make sure that the key is theirs",
        ) from error


def encoded(kind: str, payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding, in which type and payload cannot run into each
    other."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def _parts(path: Path) -> tuple[str, bytes, list[bytes]]:
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    envelope = strict_json.loads(content)
    try:
        kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(each["sig"], validate=True) for each in envelope["signatures"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is no DSSE envelope: {error}") from error
    if not isinstance(kind, str):
        raise ValueError("it is no DSSE envelope: its payload's type is no text")  # noqa: TRY004
    return kind, payload, signatures


def _statement(kind: str, payload: bytes, of: str) -> Statement:
    if kind != PAYLOAD_TYPE:
        raise ValueError(f"a payload of type {kind!r}")
    content = json.loads(payload)  # signed: it is what the key's owner wrote
    try:
        ((name, sha256),) = [(each["name"], each["digest"]["sha256"]) for each in content["subject"]]
        found = Statement(name, sha256, content["predicateType"], content["predicate"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is no in-toto statement: {error}") from error
    if content.get("_type") != STATEMENT or found.of != of:
        raise ValueError(f"a statement of {found.of!r}")
    return found


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
