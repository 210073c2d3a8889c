"""Locked requirements (requirements/*.lock): the packages and versions that they pin.

Names are as the package index compares them (PEP 503): `Vector_DB` is `vector-db`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


def pins(content: str, markers: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """Names and versions that are for this Python and machine, or for those that `markers` describe."""
    environment = None if markers is None else dict(markers)
    for requirement in _requirements(content):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield canonicalize_name(requirement.name), str(requirement.specifier).removeprefix("==")


def names(content: str) -> set[str]:
    """Names of all packages, for whatever Python and machine."""
    return {canonicalize_name(requirement.name) for requirement in _requirements(content)}


def _requirements(content: str) -> Iterator[Requirement]:
    for line in content.splitlines():
        text = line.split("#")[0].strip().rstrip("\\").strip()
        if not text[:1].isalnum():  # as every name begins (PEP 508)
            continue  # hashes and remarks, most of a lock
        try:
            yield Requirement(text)
        except InvalidRequirement:
            continue
