"""What a verdict keeps of a submission beside its checks: when it was received, and prints by which a copy is known."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from pipeline.contest.archive import strict_json
from pipeline.contest.checks.submitted import Submitted
from pipeline.device.telemetry import NAME
from pipeline.files import sha256_of
from pipeline.record.outputs import outputs_digest

KEY = "received_utc"


def received_utc(verdict: Path, name: str) -> str:
    """The organiser's time of receipt: when the submission of this name was first verified with its verdict there."""
    try:
        earlier = strict_json.loads(verdict.read_bytes())
        if isinstance(earlier, dict) and earlier.get("submission") == name:
            datetime.fromisoformat(earlier[KEY])
            return str(earlier[KEY])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or one of an older program
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def prints(submitted: Submitted) -> dict[str, str | None]:
    """Hashes of the answers and of the recording: what nobody has in common who ran it himself."""
    by_row, telemetry = submitted.by_row, submitted.run / NAME
    return {
        "outputs_sha256": outputs_digest([[{"generated_text": by_row[index].text}] for index in sorted(by_row)]),
        "telemetry_sha256": sha256_of(telemetry) if telemetry.is_file() else None,
    }
