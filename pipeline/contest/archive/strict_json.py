"""JSON from strangers: what our own programs would write, and nothing that two readers may take differently.

No NaN or infinity, no key twice, no number beyond 64 bits, no half of a surrogate pair, no nesting that exhausts the
stack (RFC 8259 leaves all of these to the implementation).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MOST_BYTES = 8 << 20
LARGEST = 2**63 - 1
MOST_DEPTH = 64
"""Of lists and objects: many times what our own programs write."""

_PARTS = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
"""Texts whole, also one without an end, so that each byte is looked at once."""


def loads(content: bytes) -> Any:
    """The value in a JSON text from a stranger. Raises ValueError that says what is wrong."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"{len(content):,} bytes, more than {MOST_BYTES:,}")
    if content.count(b"[") + content.count(b"{") > MOST_DEPTH:
        _check_depth(content)
    try:
        text = content.decode("utf-8")
        value = json.loads(
            text,
            parse_constant=_refuse,
            parse_int=_whole,
            parse_float=_finite,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_depth(content: bytes) -> None:
    depth = 0
    for found in _PARTS.finditer(content):
        part = found[0]
        depth += (part in b"[{") - (part in b"]}")
        if depth > MOST_DEPTH:
            raise ValueError("it is nested too deeply")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > LARGEST:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is beyond every number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:80]!r} comes twice")
            seen.add(key)
    return result


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a surrogate pair") from error
