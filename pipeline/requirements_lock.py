"""Reading locked requirements: what they pin for one Python on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packaging.requirements import InvalidRequirement, Requirement


def pins(content: str, markers: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """Names and versions that are for this Python and machine, or for those that `markers` describe."""
    for line in content.splitlines():
        try:
            requirement = Requirement(line.split("#")[0].strip().rstrip("\\").strip())
        except InvalidRequirement:
            continue  # hashes and remarks
        if requirement.marker is None or requirement.marker.evaluate(None if markers is None else dict(markers)):
            yield requirement.name, str(requirement.specifier).removeprefix("==")
