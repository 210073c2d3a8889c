"""The bill of materials by the schema of CycloneDX 1.6, for every lock that a run can have been made with."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from pipeline import paths
from pipeline.contest.source import sbom, third_party

SOURCE = {
    name: (paths.ROOT / name).read_bytes()
    for name in (
        third_party.NAME,
        *(path.relative_to(paths.ROOT).as_posix() for path in paths.ROOT.glob("requirements/*.lock")),
    )
}
WRONG = [
    ({"bomFormat": "SPDX"}, "bomFormat"),
    ({"serialNumber": "urn:uuid:1"}, "serialNumber"),
    ({"colour": "blue"}, "colour"),
]


def manifest(lock: str, **changes: Any) -> dict[str, Any]:
    """What a run with that lock's packages recorded, as far as the bill asks for it."""
    environment = {"python": "3.10.12", "machine": "aarch64" if lock == "jetpack6" else "x86_64"}
    packages = dict(sbom.pins(SOURCE[f"requirements/{lock}.lock"], environment))
    return {
        "code": {"commit": "0123456789abcdef" * 2 + "01234567"},
        "environment": {**environment, "packages": {**packages, "torch": "2.4.0a0+f70bd71a48.nv24.06", "numpy": None}},
        "model": {"name": "phi3-medium", "lock_sha256": "ab" * 32},
        "dataset": {"name": "obqa-first30", "sha256": "cd" * 32},
        **changes,
    }


@functools.cache
def validator() -> Any:
    from cyclonedx.schema import SchemaVersion  # imported here: it takes seconds, also of workers that have other tests
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6)


def trouble(bill: bytes) -> str:
    """What the schema has against it; empty where nothing."""
    return str(validator().validate_str(bill.decode()) or "")


@pytest.mark.parametrize(("lock", "named"), [("jetpack6", "jetpack6"), ("cpu", "cpu"), ("oldest", "jetpack6")])
@pytest.mark.slow
def test_it_is_one_by_the_schema(lock: str, named: str) -> None:
    """Of the image and of hosts; the image's versions are also the oldest ones."""
    bill = sbom.make(manifest(lock), SOURCE, 1728216000)
    assert json.loads(bill)["metadata"]["component"]["properties"][0]["value"].startswith(f"requirements/{named}.lock ")
    assert trouble(bill) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "my own model", "lock_sha256": "ab" * 32}},
        {"dataset": {"name": "때론.jsonl", "sha256": "cd" * 32}},
        {"environment": {"python": "3.12.1", "machine": "x86_64", "packages": {}}},
    ],
)
def test_so_is_that_of_a_run_with_other_things(changes: dict[str, Any]) -> None:
    assert trouble(sbom.make(manifest("cpu", **changes), SOURCE, 0)) == ""


@pytest.mark.parametrize(("change", "named"), WRONG)
def test_the_schema_would_find_a_mistake(change: dict[str, Any], named: str) -> None:
    bill = json.loads(sbom.make(manifest("cpu"), SOURCE, 0)) | change
    assert named in trouble(json.dumps(bill).encode())


def test_all_licences_are_expressions_that_can_be_read() -> None:
    """The schema takes any text for one."""
    from license_expression import get_spdx_licensing

    spdx = get_spdx_licensing()
    cited = third_party.parse(SOURCE[third_party.NAME]).packages
    cited = tuple(each for each in cited if each.licence != "LicenseRef-NVIDIA-Proprietary")  # SPDX's form for others
    assert {each.name: found for each in cited if (found := spdx.validate(each.licence).errors)} == {}
