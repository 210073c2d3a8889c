"""The rows in a source's file, whatever its format."""

from __future__ import annotations

import gzip
import json
from typing import Any


def rows_of(member: str, content: bytes, rows_at: str | None = None) -> list[dict[str, Any]]:
    """Rows by the ending of the file's name. Raises ValueError for an ending that nobody reads.

    `.parquet`; `.arrow` (Arrow's stream format, as the `datasets` library writes it); `.json` (the list, or the list at
    the key `rows_at`); `.jsonl`; `.jsonl.gz` (evaluation requests: one line a choice, and everything once more without
    context under document numbers from 1,000,000, so each document counts once).
    """
    if member.endswith(".jsonl.gz"):
        requests = [json.loads(line) for line in gzip.decompress(content).splitlines()]
        documents: dict[int, dict[str, Any]] = {}
        for request in requests:
            if request["doc_id"] < 1_000_000:
                documents.setdefault(request["doc_id"], request["doc"])
        return list(documents.values())
    if member.endswith(".jsonl"):
        # Not splitlines(): U+2028 and its like are ordinary characters inside a JSON string.
        return [json.loads(line) for line in content.decode("utf-8").split("\n") if line.strip()]
    if member.endswith(".json"):
        whole = json.loads(content)
        return whole if rows_at is None else whole[rows_at]
    # Slow to import, and not needed for sets that are already built.
    import pyarrow  # noqa: PLC0415
    import pyarrow.parquet  # noqa: PLC0415

    if member.endswith(".arrow"):
        return pyarrow.ipc.open_stream(content).read_all().to_pylist()
    if member.endswith(".parquet"):
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    raise ValueError(f"no reader for {member}")
