"""A run's bill of materials in CycloneDX 1.6: packages, model, data.

Written by hand from the lock file: it is one JSON object, while cyclonedx-bom brings some thirty packages along, and
reads licences off an environment that need not be the run's. The tests hold it against the schema. Versions are the
lock's, licences those of THIRD_PARTY.yaml. Which lock it was follows from the versions that the run recorded.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from packaging.utils import canonicalize_name

from pipeline import requirements_lock
from pipeline.contest.source import third_party
from pipeline.contest.source.third_party import Package, ThirdParty, Work
from pipeline.files import json_bytes

NAME = "sbom.cdx.json"
LOCKS = ("requirements/jetpack6.lock", "requirements/cpu.lock", "requirements/oldest.lock")
"""Locks that the pipeline runs on. Development's and the host's are no part of a run."""


def make(manifest: Mapping[str, Any], source: Mapping[str, bytes], committed_s: int) -> bytes:
    """The same inputs give the same bytes. `source` holds the lock files and THIRD_PARTY.yaml."""
    cited = third_party.parse(source[third_party.NAME])
    path = lock_of(manifest, source)
    content = source.get(path, b"")
    commit = manifest["code"]["commit"]
    components = [*_packages(manifest, content, cited), *_works(manifest, cited)]
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, commit + hashlib.sha256(content).hexdigest())}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(committed_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": "pipeline",
                "name": "phi3-offline-pipeline",
                "version": commit,
                "properties": [{"name": "lock", "value": f"{path} sha256 {hashlib.sha256(content).hexdigest()}"}],
            },
        },
        "components": components,
        "dependencies": [{"ref": "pipeline", "dependsOn": [each["bom-ref"] for each in components]}],
    }
    return json_bytes(bill)


def lock_of(manifest: Mapping[str, Any], source: Mapping[str, bytes]) -> str:
    """The lock file whose versions are nearest to what the run recorded; of equals the first of LOCKS."""
    packages = manifest["environment"]["packages"]
    recorded = {canonicalize_name(name): version for name, version in packages.items() if version}

    def same(path: str) -> int:
        pinned = dict(pins(source.get(path, b""), manifest["environment"]))
        return sum(pinned.get(name) == version for name, version in recorded.items())

    return max(LOCKS, key=same)


def pins(content: bytes, environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and versions of a lock that are for the run's Python and machine."""
    python = environment["python"]
    markers = {
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "platform_machine": environment["machine"],
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    yield from requirements_lock.pins(content.decode("utf-8", "replace"), markers)


def _packages(manifest: Mapping[str, Any], lock: bytes, cited: ThirdParty) -> Iterator[dict[str, Any]]:
    """The lock's, and torch, which lies outside of any lock: its version is the run's own word."""
    versions = dict(pins(lock, manifest["environment"]))
    versions["torch"] = str(manifest["environment"]["packages"].get("torch") or "unknown")
    known: dict[str, Package] = {canonicalize_name(package.name): package for package in cited.packages}
    for name, version in sorted(versions.items()):
        package = known.get(name)
        yield {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version.replace('+', '%2B')}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}",
            **({"licenses": [{"expression": package.licence}]} if package else {}),
            **({"externalReferences": [{"type": "vcs", "url": package.source}]} if package else {}),
        }


def _works(manifest: Mapping[str, Any], cited: ThirdParty) -> Iterator[dict[str, Any]]:
    for kind, key, sha256, works in (
        ("machine-learning-model", "model", "lock_sha256", cited.models),
        ("data", "dataset", "sha256", cited.data),
    ):
        name, digest = manifest[key]["name"], manifest[key][sha256]
        work = cite(name, works)
        yield {
            "type": kind,
            "bom-ref": f"{key}:{digest}",
            "name": work.name if work else name,
            "version": name,
            "hashes": [{"alg": "SHA-256", "content": digest}],
            **({"licenses": [{"license": {"name": work.licence}}]} if work else {}),
            **({"externalReferences": [{"type": "distribution", "url": work.source}]} if work else {}),
        }


def cite(name: str, works: tuple[Work, ...]) -> Work | None:
    """The work that the file `name` under `configs/` is part of."""
    return next((work for work in works if third_party.matches(name, work)), None)
