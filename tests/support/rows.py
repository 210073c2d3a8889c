"""Files in the organiser's form."""

from __future__ import annotations

import json
from pathlib import Path


def write_rows(path: Path, count: int) -> Path:
    """A file in the organiser's form whose prompts share a beginning and list choices."""
    lines = [
        {
            "message": [
                {"role": "user", "content": f"Read and answer.\nquestion: What is {i}?\nchoices: ['one', '{i} two']\n"}
            ],
            "answer": "one",
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
