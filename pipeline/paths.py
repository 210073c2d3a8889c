"""Where things lie. Anchored at the checkout, so that every command works from any folder.

Where there is no checkout, as with an installed wheel, what is shipped lies in the package, and models, data and runs
below the working folder. The three folders that a container mounts as volumes can be moved by an environment variable.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
"""The checkout; of an installed wheel the folder of packages, where nothing but the package is ours."""
CHECKOUT = (ROOT / "pyproject.toml").is_file()
"""Whether there is one; a copy of its files, as an image has it, counts."""
CONFIGS = ROOT / "configs" if CHECKOUT else PACKAGE / "configs"
STANDIN = ROOT / "data" / "standin" if CHECKOUT else PACKAGE / "standin"
"""The adapter of the stand-in model."""


def models() -> Path:
    """Checkpoints, one folder each."""
    return _folder("PIPELINE_MODELS", "models")


def data() -> Path:
    """`sets/` holds data sets in the organiser's form, `downloads/` what they were made from."""
    return _folder("PIPELINE_DATA", "data")


def runs() -> Path:
    """One folder a run."""
    return _folder("PIPELINE_RUNS", "runs")


def in_image() -> bool:
    """Whether this is the copy in an image of Dockerfile.l4t: no checkout, and nobody's to write."""
    return "PIPELINE_IMAGE" in os.environ


def given(name: str | Path) -> Path:
    """The path that a user names: from where he stands, or else, where nothing lies there, from the checkout."""
    path = Path(name).expanduser()
    from_checkout = ROOT / path
    return from_checkout if CHECKOUT and not os.path.lexists(path) and os.path.lexists(from_checkout) else path


def shown(path: Path) -> str:
    """A path as people read it: relative to the working folder where it lies below it."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd().resolve()))
    except (ValueError, OSError, RuntimeError):  # elsewhere; a circle of links, a RuntimeError before Python 3.13
        return str(path)


def _folder(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable, (ROOT if CHECKOUT else Path.cwd()) / name))
