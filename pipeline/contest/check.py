"""What a check found: the one form in which everything that is verified is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

OK, FAIL, UNKNOWN, HUMAN = "ok", "fail", "unknown", "human"
INTEGRITY, FORM, ACCURACY, INVALID_RUN = "integrity", "form", "accuracy", "invalid run"

LONGEST = 400


@dataclass(frozen=True)
class Check:
    id: str
    state: str
    """`ok`; `fail`; `unknown`: nobody could tell, for want of something that `found` names; `human`: people decide."""
    found: str
    wanted: str
    kind: str | None = None
    """What it means where it fails."""

    def as_json(self) -> dict[str, Any]:
        told = {"id": self.id, "state": self.state, "found": self.found, "wanted": self.wanted}
        return {**told, "class": self.kind}


def check(name: str, kind: str, fine: bool | None, found: object, wanted: object) -> Check:
    """None: unknown."""
    state = UNKNOWN if fine is None else OK if fine else FAIL
    return Check(name, state, plain(found), plain(wanted), kind)


def unknown(name: str, kind: str, why: str, wanted: object) -> Check:
    return check(name, kind, None, why, wanted)


def plain(value: object) -> str:
    """Words of strangers, made safe to print: one line, no control characters, not endless."""
    text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(value)[: 2 * LONGEST])
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def listed(values: Iterable[object], most: int = 8) -> str:
    """The first few, and how many more."""
    every = list(values)
    return ", ".join(map(str, every[:most])) + (f" and {len(every) - most} more" if len(every) > most else "")
