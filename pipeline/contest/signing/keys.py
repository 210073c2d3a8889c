"""Keys of ed25519 in PEM files: `NAME` is private, `NAME.pub` beside it is for everybody.

`cryptography` computes; it is a package of the host (requirements/host.in) and is imported only here, when asked for.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.errors import EnvironmentProblem, UsageError
from pipeline.files import resource_trouble, write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MOST_BYTES = 10_000
"""Of a key's file."""


def make(path: Path) -> Path:
    """A new key at `path`, readable for its owner alone, and its public half, whose path is returned.

    Raises UsageError (U751 there is a file already), ResourceError (R101, R102), EnvironmentProblem (E702).
    """
    public = public_path(path)
    if taken := next((each for each in (path, public) if each.exists()), None):
        raise UsageError(
            "U751",
            "there is a file of this name already, and a key is never overwritten",
            where=paths.shown(taken),
            fix="name another file, or move this one away: what it signed can be checked only with its public half",
        )
    private, encoding = _ed25519().Ed25519PrivateKey.generate(), _serialization()
    pem, pkcs8 = encoding.Encoding.PEM, encoding.PrivateFormat.PKCS8
    content = private.private_bytes(pem, pkcs8, encoding.NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except OSError as error:
        raise resource_trouble(error, path) or error from error
    with write_atomically(public) as file:
        file.write(private.public_key().public_bytes(pem, encoding.PublicFormat.SubjectPublicKeyInfo))
    return public


def public_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")


def read_private(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file. Raises UsageError (U752), EnvironmentProblem (E702)."""
    kind, encoding = _ed25519(), _serialization()
    try:
        key = encoding.load_pem_private_key(_content(path), password=None)
        if isinstance(key, kind.Ed25519PrivateKey):
            return key
        actual = "a key of another kind"
    except (OSError, ValueError, TypeError) as error:  # TypeError: it asks for a password
        actual = (error.strerror if isinstance(error, OSError) else None) or "no such key can be read in it"
    except _unsupported() as error:
        actual = str(error)
    raise UsageError(
        "U752",
        "this is not a private key to sign with",
        where=paths.shown(path),
        expected="an ed25519 key in PEM, as invoke signing-key makes it",
        actual=actual,
        fix="invoke signing-key FILE makes one",
    )


def read_public(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file. Raises UsageError (U753), EnvironmentProblem (E702)."""
    kind, encoding = _ed25519(), _serialization()
    try:
        key = encoding.load_pem_public_key(_content(path))
        if isinstance(key, kind.Ed25519PublicKey):
            return key
        actual = "a key of another kind"
    except (OSError, ValueError) as error:
        actual = (error.strerror if isinstance(error, OSError) else None) or "no such key can be read in it"
    except _unsupported() as error:
        actual = str(error)
    raise UsageError(
        "U753",
        "this is not a public key to check with",
        where=paths.shown(path),
        expected="the public half of an ed25519 key in PEM: FILE.pub, as invoke signing-key makes it",
        actual=actual,
        fix="ask the organiser for it, by another way than the one by which the signed file came",
    )


def key_id(key: Ed25519PublicKey) -> str:
    """The hash of the public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _content(path: Path) -> bytes:
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    return content


# Imported when asked for: only signing needs it.


def _ed25519():  # type: ignore[no-untyped-def]
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError as error:
        raise EnvironmentProblem(
            "E702",
            "signatures need cryptography",
            expected="the packages of requirements/host.lock",
            actual=error,
            fix="pip install --require-hashes -r requirements/host.lock",
        ) from error
    return ed25519


def _serialization():  # type: ignore[no-untyped-def]
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    return serialization


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415

    return UnsupportedAlgorithm
