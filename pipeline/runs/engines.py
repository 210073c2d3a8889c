"""The two engines by name, what a run needs of either, and the head of a manifest that says what one was run on.

In: a name of `request.ENGINES` and a checkpoint's folder. Out: a loaded pipe.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from loguru import logger

from pipeline import reference, text_generation
from pipeline.engine.device import pick_device
from pipeline.engine.pass_log import PassLog
from pipeline.model.attest import Attestation
from pipeline.model.dtype import pick_dtype
from pipeline.model.lock import Lock
from pipeline.runs import kept_curve
from pipeline.runs.progress import loading, warming_up
from pipeline.runs.request import Request, arguments_of


class Answers(Protocol):
    """The result of one call of an engine."""

    @property
    def outputs(self) -> list[Any]:
        """One for each chat in input order, as pipe() returns it."""

    @property
    def log(self) -> PassLog | None:
        """The passes of the call; None where an engine keeps none."""

    def stages(self) -> dict[str, float]:
        """Seconds of the call's parts, as far as the engine tells them apart."""

    def describe(self) -> dict[str, Any]:
        """For the manifest: counts of the call."""


class Pipe(Protocol):
    """A loaded engine."""

    def __call__(self, *chats: Any, **arguments: Any) -> list[Any]:
        """One output of a prompt, or a list of them, as pipe() returns it for the same chats and arguments."""

    def answer(self, *chats: Any, **arguments: Any) -> Answers:
        """The same with `on_answer` and `on_pass` among the arguments, and all that is known of the call."""

    def warm_up(self, on_step: Callable[[int, int], object]) -> None:
        """`on_step(done, all)` is called between the steps of it, if it has any."""

    def describe(self) -> dict[str, Any]:
        """For the manifest: how the engine is set."""

    def resident(self) -> Mapping[str, torch.Tensor]:
        """The weights as they lie on the device, by their names in the checkpoint's files."""


def load(name: str, model: Path | str, *, dtype: str | None = None, device: str | None = None) -> Pipe:
    """The engine of that name with a checkpoint's folder, with a bar on a terminal while it is loaded.

    Raises what its own `load` raises; KeyError for no engine.
    """
    ours = partial(text_generation.load, say=logger.info)
    loaders: dict[str, Callable[..., Pipe]] = {"ours": ours, "reference": reference.load}
    with loading(Path(model)) as on_bytes:
        return loaders[name](model, dtype=dtype, device=device, on_bytes=on_bytes)


def warm_up(pipe: Pipe, prompts: int | None = None) -> None:
    """The engine's own warm-up, with a bar of its steps on a terminal. `prompts`: how many are to come, if that is
    known: ours measures a CPU less for few of them."""
    with warming_up() as on_step:
        if isinstance(pipe, text_generation.TextGenerator):
            kept_curve.warm_up(pipe, on_step, prompts)
        else:
            pipe.warm_up(on_step)


def manifest_head(request: Request, model: Path, lock: Lock, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a manifest begins with: the command, the request, and what it is run with and on.

    `model` is the checkpoint's folder, `provenance` what `record.provenance.describe` gives.
    """
    return {
        "command": ["invoke", *sys.argv[1:]],
        "request": asdict(request),
        "arguments": arguments_of(request),
        "dtype": str(pick_dtype(request.dtype, model)).removeprefix("torch."),
        "device": str(pick_device(request.device)),
        "model": {"name": request.model, "lock_sha256": lock.root},
        **provenance,
    }


def weights(attested: Attestation) -> dict[str, Any]:
    """The manifest's `weights`: what the comparison of memory with the lock gave, without its time."""
    return {key: value for key, value in asdict(attested).items() if key != "elapsed_s"}
