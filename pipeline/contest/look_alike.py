"""Names as the eye takes them: two that look the same have the same skeleton."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

LONGEST = 100
"""Letters of a name that are looked at."""

LOOKS: Mapping[str, str] = {
    # Cyrillic and Greek letters, and digits, that are drawn as Latin letters in most fonts.
    **dict(zip("авсԁеһіјӏмогорѕтуѵԝхүкнβαοντρυχικ", "abcdehijlmoropstyvwxykhbaovtpuxik", strict=True)),
    **dict(zip("013568|ı", "olesgbll", strict=True)),
}


def skeleton(name: str) -> str:
    """A name as the eye takes it: without accents and blanks, letters of other scripts as those they look like."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(LOOKS.get(each, each) for each in plain if unicodedata.category(each)[0] in "LN|")
    return letters.replace("i", "l").replace("rn", "m").replace("vv", "w")[:LONGEST] or plain[:LONGEST]


def groups(names: Iterable[str]) -> list[list[str]]:
    """Names that look the same, two or more together, in the order given."""
    by_skeleton: dict[str, list[str]] = {}
    for name in names:
        by_skeleton.setdefault(skeleton(name), []).append(name)
    return [group for group in by_skeleton.values() if len(group) > 1]
