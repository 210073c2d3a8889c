"""Faults that are known and not mended yet: the test says what should be, and turns red when it comes true."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest


def known(name: str, reason: str, *more: pytest.MarkDecorator) -> Any:
    """A parameter whose test fails today. `reason`: the fault, in plain words."""
    return pytest.param(name, marks=[pytest.mark.xfail(strict=True, reason=reason), *more])


def cases(names: Collection[str], faults: dict[str, str]) -> list[Any]:
    """All names as parameters, those with a fault marked as known."""
    assert faults.keys() <= set(names)
    return [known(name, faults[name]) if name in faults else name for name in sorted(names)]
