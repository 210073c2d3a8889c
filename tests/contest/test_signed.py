"""Signed verdicts and heads: what the key signed is believed, of that file; anything else is not."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from support.verdict_folders import folder_of, told

from pipeline.contest.ranking import log
from pipeline.contest.signing import envelope, keys
from pipeline.contest.verify import signed_verdict
from pipeline.errors import PipelineError, UsageError
from pipeline.files import sha256_of


class Signed:
    def __init__(self, folder: Path) -> None:
        self.key, self.tar = folder / "organiser.key", folder / "blue.tar"
        self.public = keys.make(self.key)
        self.tar.write_bytes(b"a submission")
        self.verdict = told("blue", "Blue", 10.0)
        (self.folder,) = folder_of(folder / "received", self.verdict).iterdir()
        self.path = signed_verdict.sign(self.tar, self.folder, self.key)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(PipelineError) as caught:
        call()
    return caught.value.code


def test_a_verdict_is_an_in_toto_statement_in_a_dsse_envelope_that_others_can_check(signed: Signed) -> None:
    """By the two specifications alone, without our code."""
    content = json.loads(signed.path.read_bytes())
    assert set(content) == {"payload", "payloadType", "signatures"}
    assert content["payloadType"] == "application/vnd.in-toto+json"
    payload = base64.b64decode(content["payload"])
    (signature,) = content["signatures"]
    public = serialization.load_pem_public_key(signed.public.read_bytes())
    assert isinstance(public, ed25519.Ed25519PublicKey)
    encoded = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payload)).encode() + b" " + payload
    public.verify(base64.b64decode(signature["sig"]), encoded)
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "blue.tar", "digest": {"sha256": sha256_of(signed.tar)}}]
    assert statement["predicate"] == signed.verdict


def test_the_encoding_is_that_of_the_specification() -> None:
    """Its own example: github.com/secure-systems-lab/dsse, protocol.md."""
    assert envelope.encoded("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_it_is_believed_with_its_key_and_of_its_file_alone(signed: Signed, tmp_path: Path) -> None:
    assert signed_verdict.check(signed.folder, signed.public, signed.tar).predicate == signed.verdict
    other = keys.make(tmp_path / "other.key")
    assert code(lambda: signed_verdict.check(signed.path, other)) == "M751"
    signed.tar.write_bytes(b"another submission")
    assert code(lambda: signed_verdict.check(signed.path, signed.public, signed.tar)) == "M752"


def test_a_verdict_that_was_edited_beside_the_signed_one_is_seen(signed: Signed) -> None:
    (signed.folder / "verdict.json").write_text(json.dumps({**signed.verdict, "time_s": 1.0}), encoding="utf-8")
    assert code(lambda: signed_verdict.check(signed.folder, signed.public)) == "M753"


@pytest.mark.slow
def test_every_altered_byte_of_what_is_signed_is_found(signed: Signed) -> None:
    content = json.loads(signed.path.read_bytes())
    payload = base64.b64decode(content["payload"])
    for at in range(len(payload)):
        changed = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        signed.path.write_text(json.dumps({**content, "payload": base64.b64encode(changed).decode()}), encoding="utf-8")
        assert code(lambda: envelope.read(signed.path, signed.public, signed_verdict.OF)) == "M751"


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"payload": 1, "payloadType": "", "signatures": []}',
        b'{"payload": "YQ==", "payloadType": "application/vnd.in-toto+json", "signatures": []}',
        b'{"payload": "YQ==", "payloadType": 7, "signatures": [{"sig": "YQ=="}]}',
        b'{"payload": "YQ==", "payloadType": "a", "signatures": [{"sig": "\xc3\xa9"}]}',
    ],
)
def test_what_is_no_envelope_is_said_to_be_none(wrong: bytes, signed: Signed) -> None:
    signed.path.write_bytes(wrong)
    assert code(lambda: signed_verdict.check(signed.path, signed.public)) == "M751"


def test_a_signed_head_is_no_verdict(signed: Signed) -> None:
    received = signed.folder.parent
    head = log.record(received, received)
    path = log.sign_head(received, signed.key)
    assert log.signed_head(path, signed.public) == head
    assert code(lambda: signed_verdict.check(path, signed.public)) == "M751"
    (received / log.NAME).write_bytes(b"")
    assert code(lambda: log.check(received, log.expected(received, "", str(signed.public)))) == "M755"


def test_a_key_is_its_owners_and_is_never_written_over(signed: Signed, tmp_path: Path) -> None:
    assert stat.S_IMODE(signed.key.stat().st_mode) == 0o600
    before = signed.key.read_bytes()
    assert code(lambda: keys.make(signed.key)) == "U751"
    assert signed.key.read_bytes() == before
    another = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for wrong in (b"", b"no key", another, signed.public.read_bytes()):
        (tmp_path / "wrong").write_bytes(wrong)
        assert code(lambda: keys.read_private(tmp_path / "wrong")) == "U752"
    with pytest.raises(UsageError):
        keys.read_public(signed.key)


def test_verifying_again_without_a_key_leaves_no_signature_of_the_old_verdict(signed: Signed) -> None:
    signed_verdict.settle(signed.tar, signed.folder, None)
    assert not signed.path.exists()


@pytest.mark.slow
def test_as_it_is_called(
    signed: Signed, invoke: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    made = invoke("signing-key", tmp_path / "new.key")
    assert (made.returncode, (tmp_path / "new.key.pub").is_file()) == (0, True), made.stderr
    done = invoke("verify", signed.tar, "--sign", signed.key, "--out", signed.folder)
    assert done.returncode in (4, 6), done.stderr  # it is no tar file of ours: INVALID, and signed all the same
    fine = invoke("check-signed", signed.folder, "--key", signed.public, "--file", signed.tar)
    assert (fine.returncode, "INVALID" in fine.stdout) == (0, True), fine.stderr
    other = invoke("check-signed", signed.folder, "--key", tmp_path / "new.key.pub")
    assert (other.returncode, "M751" in other.stderr) == (4, True)
