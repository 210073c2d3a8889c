"""`invoke verify-weights`: what it says when all is well, and when memory is not what the lock pins."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoke import Exit
from support.checkpoints import flip_a_bit

from pipeline import text_generation
from pipeline.commands import prepare
from pipeline.model import lock
from pipeline.runs import verify_weights as verify

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
def test_a_sound_model_on_the_command_line(invoke: Invoke, tiny: Path) -> None:
    done = invoke("verify-weights", "--model", tiny)
    assert done.returncode == 0, done.stderr
    assert "14 tensors" in done.stdout
    assert lock.read(tiny).root in done.stdout
    assert re.search(r"load [\d.]+ s, comparison [\d.]+ s", done.stdout)


def test_rounded_weights_are_said_to_be(tiny: Path) -> None:
    said = verify.text(verify.weights(str(tiny), "bfloat16", "cpu"))
    assert "rounded to bfloat16" in said
    assert f"{tiny} · bfloat16 · cpu" in said


def test_a_bit_that_tips_after_loading_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = text_generation.load

    def load_into_failing_memory(*arguments: Any, **options: Any) -> text_generation.TextGenerator:
        pipe = load(*arguments, **options)
        flip_a_bit(pipe.engine.weights.embed, 12345, bit=30)
        return pipe

    monkeypatch.setattr(text_generation, "load", load_into_failing_memory)
    with pytest.raises(Exit) as caught:
        prepare.verify_weights.body(None, model=str(tiny), device="cpu")
    assert caught.value.code == 4
    assert "M421 the tensor model.embed_tokens.weight in memory" in caught.value.message
    assert f"model.embed_tokens.weight[{12345 // 32}, {12345 % 32}]" in caught.value.message


@pytest.mark.parametrize(("options", "code"), [({"model": "standim"}, "U102"), ({"dtype": "int8"}, "U203")])
def test_wrong_options(tiny: Path, options: dict[str, str], code: str) -> None:
    with pytest.raises(Exit) as caught:
        prepare.verify_weights.body(None, **{"model": str(tiny), **options})
    assert caught.value.code == 2
    assert code in caught.value.message


def test_a_folder_that_cannot_hold_a_lock_is_compared_with_what_was_hashed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in tiny.iterdir():
        if path.name not in (lock.NAME, lock.STAMPS):
            (tmp_path / path.name).symlink_to(path)

    def refuse(path: Path, value: object) -> None:
        raise lock.ResourceError("R102", "a file cannot be written", fix="")

    monkeypatch.setattr(lock, "write_json", refuse)
    said: list[str] = []
    done = verify.weights(str(tmp_path), device="cpu", say=said.append)
    assert done.attestation.lock_sha256 == lock.read(tiny).root
    assert "cannot be written to" in said[0]
