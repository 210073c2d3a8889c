"""`invoke verify-weights`: a model is loaded as a run loads it, and what lies in memory is compared with its lock."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipeline import table, text_generation
from pipeline.engine.device import pick_device, synchronize
from pipeline.model import fetch, lock
from pipeline.model.attest import Attestation, attest
from pipeline.model.dtype import pick_dtype
from pipeline.runs import progress
from pipeline.table import Say


@dataclass(frozen=True)
class Verified:
    model: str
    dtype: str
    device: str
    load_s: float
    attestation: Attestation


def weights(model: str, dtype: str | None = None, device: str | None = None, say: Say = print) -> Verified:
    """Load a model as a run does, and compare what lies in memory with its lock.

    Raises what `fetch.resolve`, `text_generation.load` and `attest` raise: IntegrityError names what differs.
    """
    place = pick_device(device)
    folder = fetch.resolve(model, say)
    start = time.perf_counter()
    with progress.loading(folder) as on_bytes:
        pipe = text_generation.load(folder, dtype=dtype, device=device, on_bytes=on_bytes)
    synchronize(place)
    load_s = time.perf_counter() - start
    kind = str(pick_dtype(dtype, folder)).removeprefix("torch.")
    return Verified(model, kind, str(place), load_s, attest(folder, pipe.resident(), lock.current(folder)))


def text(verified: Verified) -> str:
    """A few lines for the terminal."""
    proof = verified.attestation
    rounded = ", rounded to bfloat16" * proof.rounded
    lines = [
        (
            "weights",
            f"{proof.tensors} tensors, {proof.size_bytes / 1e6:,.1f} MB: memory holds what the lock pins{rounded}",
        ),
        ("lock", proof.lock_sha256),
        ("took", f"load {verified.load_s:.1f} s, comparison {proof.elapsed_s:.1f} s"),
    ]
    head = f"{verified.model} · {verified.dtype} · {verified.device}"
    return table.labelled(head, lines)
