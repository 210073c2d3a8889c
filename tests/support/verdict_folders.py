"""Verdicts as `invoke verify` writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def told(name: str, team_name: str, taken_s: float, **other: Any) -> dict[str, Any]:
    """A verdict as `invoke verify` writes it."""
    prompts, dataset = other.get("prompts") or 30, other.get("dataset", "obqa")
    data_sha256 = other.get("dataset_sha256", _sha256(dataset))
    measured = {
        **{"how": "container", "clock": "the organiser's", "data": dataset, "data_sha256": data_sha256},
        **{"prompts": prompts, "times": 3, "median_s": taken_s, "spread": 0.01, "accuracy": None},
        **{"command": "docker run", "elapsed_s": [taken_s] * 3, "claimed_s": taken_s, "ratio": 1.0, "differing": []},
        "runs": [],
    }
    return {
        "schema": 1,
        "verdict": "VALID",
        "class": None,
        "submission": name,
        "rehearsal": False,
        "team": {"name": team_name, "members": [f"{team_name} one"]},
        "commit": "a" * 40,
        "model": "phi3-medium",
        "dataset": "obqa",
        "dataset_sha256": data_sha256,
        "model_sha256": _sha256(other.get("model", "phi3-medium")),
        "outputs_sha256": _sha256(name),
        "telemetry_sha256": _sha256(name),
        "prompts": prompts,
        "time_s": taken_s,
        "s_per_prompt": taken_s / prompts,
        "accuracy": {"right": 24, "of": 30, "rule": "exact", "share": 0.8, "interval_95": [0.627, 0.905]},
        "device": "Jetson AGX Orin 32GB",
        "submitted_utc": "2026-11-20T10:00:00+00:00",
        "received_utc": "2026-11-20T12:00:00+00:00",
        "checks": [],
        "reasons": [],
        "rerun": measured,
        "audit": None,
    } | other


def _sha256(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def folder_of(path: Path, *verdicts: dict[str, Any], plain_names: bool = False) -> Path:
    for number, verdict in enumerate(verdicts):
        place = path / (f"{number:02}" if plain_names else f"{number:02}-{verdict['submission']}.verdict")
        place.mkdir(parents=True)
        (place / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    return path


def full(words: str) -> dict[str, Any]:
    """A verdict with something in every place, and a stranger's `words` wherever they could have put them."""
    states = {"tokens": "ok", "rule-third-party": "fail", "weights": "unknown", "rule-own-work": "human"}
    checks = [
        {"id": name, "state": state, "found": words, "wanted": f"other than {words}", "class": "integrity"}
        for name, state in states.items()
    ]
    run = {"status": 0, "elapsed_s": 10.2, "folder": "1", "stdout_tail": words, "stderr_tail": " "}
    again = {
        "how": "container",
        "command": f"docker run {words}",
        "times": 2,
        "elapsed_s": [10.2, 10.8],
        "median_s": 10.5,
        "spread": 0.057,
        "claimed_s": 9.8,
        "ratio": 10.5 / 9.8,
        "differing": [3, 7],
        "runs": [run, {**run, "status": 1, "elapsed_s": 10.8, "stderr_tail": words}],
    }
    return told(
        words,
        words,
        9.8,
        verdict="INVALID",
        reasons=[f"rule-third-party: {words}; wanted: {words}"],
        model=words,
        dataset=words,
        device=words,
        checks=checks,
        rerun=again,
    ) | {"class": "integrity"}
