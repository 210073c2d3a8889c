"""Devices and dtypes that the engine runs on, by the names that users, manifests and configurations give them."""

from __future__ import annotations

import torch

from pipeline.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str | None) -> torch.device:
    """The device of that name; without a name a GPU where there is one.

    Raises UsageError: U204 there is no such device, U206 there is no GPU.
    """
    known = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    name = name or known[-1]
    if name == "cuda" and name not in known:
        raise UsageError(
            "U206",
            "there is no GPU here",
            expected="cpu",
            actual=f"torch {torch.__version__} {'sees none' if torch.version.cuda else 'is built for CPUs only'}",
            fix="invoke doctor says what is missing; --device cpu runs without one",
        )
    if name not in known:
        raise UsageError(
            "U204", "there is no such device here", expected=" or ".join(known), actual=name, fix="name one of them"
        )
    return torch.device(name)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work that was queued on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
