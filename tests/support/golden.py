"""The golden corpus (`tests/contest/golden.yaml`): what is to be found of known submissions, and since which rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

PLACE = Path(__file__).parent.parent / "contest" / "golden.yaml"


@dataclass(frozen=True)
class Golden:
    verdict: str
    kind: str | None
    checks: frozenset[str]
    """That fail; of one that nobody can tell, those that cannot."""
    version: int
    rule: str = ""

    @property
    def judged(self) -> tuple[str, str | None, frozenset[str]]:
        return self.verdict, self.kind, self.checks


def read(text: str) -> dict[str, Golden]:
    content = yaml.safe_load(text)
    return {name: Golden(row[0], row[1], frozenset(row[2]), *row[3:]) for name, row in content.items()}


def read_here() -> dict[str, Golden]:
    return read(PLACE.read_text(encoding="utf-8"))


def unnamed_changes(before: dict[str, Golden], now: dict[str, Golden]) -> list[str]:
    """Changes that do not say by which version and rule; a submission that left the corpus is one."""
    complaints = [f"{name} is no longer held" for name in sorted(before.keys() - now.keys())]
    for name in sorted(before.keys() & now.keys()):
        old, new = before[name], now[name]
        if old.judged != new.judged and not (new.version > old.version and new.rule):
            complaints.append(f"{name} changed without a newer version and the rule that changed")
        elif new.version < old.version:
            complaints.append(f"{name} went back to version {new.version}")
    return complaints
