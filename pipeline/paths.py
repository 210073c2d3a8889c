"""Where things lie. Anchored at the checkout, so that every command works from any folder.

The three folders that a container mounts as volumes can be moved by an environment variable.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


def models() -> Path:
    """Checkpoints, one folder each."""
    return Path(os.environ.get("PIPELINE_MODELS", ROOT / "models"))


def data() -> Path:
    """`sets/` holds data sets in the organiser's form, `downloads/` what they were made from."""
    return Path(os.environ.get("PIPELINE_DATA", ROOT / "data"))


def runs() -> Path:
    """One folder a run."""
    return Path(os.environ.get("PIPELINE_RUNS", ROOT / "runs"))


def in_image() -> bool:
    """Whether this is the copy in an image of Dockerfile.l4t: no checkout, and nobody's to write."""
    return "PIPELINE_IMAGE" in os.environ


def shown(path: Path) -> str:
    """A path as people read it: relative to the working folder where it lies below it."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
