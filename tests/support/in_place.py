"""Calls of a verification made in the test's own process: for hundreds, two processes each cost a minute.

tests/contest/test_checks_apart.py has the real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.contest import apart


def each(calls: Sequence[apart.Call]) -> Iterator[tuple[apart.Call, Any]]:
    for call in calls:
        yield call, call.make()


@contextmanager
def in_place() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(apart, "each", each)
        yield
