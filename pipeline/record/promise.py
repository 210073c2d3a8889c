"""What two runs' manifests promise about their answers to the same prompts: equal to the byte or not, and why.

In bfloat16 a token whose logits nearly tie depends on the order of sums. Where the engine tried that an answer depends
on its prompt alone (`engine.invariant`, pipeline/engine/invariance.py), on the same kind of device, by the same
releases and in the same order of sums, nothing is left that could differ, so every difference is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.record.run_folder import value_at

SAME = (
    ("model.lock_sha256", "weights"),
    ("arguments", "arguments"),
    ("dtype", "number formats"),
    ("environment.gpu", "kinds of device"),
    ("environment.packages.torch", "releases of torch"),
    ("engine.backend.attention", "ways of attention"),
    ("engine.invariant.bits", "orders of sums in the products"),
)
"""Key of the manifest in which two runs must agree, and its name in a sentence."""


@dataclass(frozen=True)
class Promise:
    equal: bool
    """The answers of both runs must be equal to the byte."""
    why: str
    """A clause for people: the reason that they must, or that they need not."""


def between(a: Mapping[str, Any], b: Mapping[str, Any]) -> Promise:
    """The promise that the manifests of two runs make together; each may be damaged or of a release without it."""
    for name, manifest in (("the first", a), ("the second", b)):
        invariant = value_at(manifest, "engine.invariant")
        if not isinstance(invariant, Mapping) or invariant.get("holds") is not True:
            why = invariant.get("why") if isinstance(invariant, Mapping) else None
            return Promise(
                False,
                f"{name} run does not promise that answers depend on prompts alone "
                f"({why or 'its manifest does not say'})",
            )
    for key, name in SAME:
        if value_at(a, key) != value_at(b, key):
            return Promise(False, f"other {name}: {_short(value_at(a, key))} and {_short(value_at(b, key))}")
    return Promise(True, "both runs tried that answers depend on their prompts alone, on the same kind of device")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
