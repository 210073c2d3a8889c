"""Source trees that share code, openly and in disguise."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipeline import paths

COPIED = (paths.ROOT / "pipeline/engine/prefix_tree.py").read_text(encoding="utf-8")

OTHER = (paths.ROOT / "pipeline/accuracy/metrics.py").read_text(encoding="utf-8")

THIRD = (paths.ROOT / "pipeline/device/power.py").read_text(encoding="utf-8")

SOURCE = "https://github.com/somebody/trees"


def tree(folder: Path, files: dict[str, str], cites: dict[str, str] | None = None) -> Path:
    """A source tree; `cites` are paths to sources."""
    cited = [{"path": path, "licence": "MIT", "source": source} for path, source in (cites or {}).items()]
    told = {"code": cited, "ideas": [], "models": [], "data": [], "packages": []}
    for path, text in {**files, "THIRD_PARTY.yaml": json.dumps(told)}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def disguised(text: str) -> str:
    """Other names, comments and layout, and moved down."""
    renamed = re.sub(r"\b(tree|node|tokens|prompts|prefix|children)\b", r"my_\1", text)
    return "# mine\n\n\nimport os\n\n\n" + re.sub(r"\n\n", "\n\n# a word of mine\n\n", renamed)
