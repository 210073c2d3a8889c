"""Runs of a tiny model by `timed.run`, that end well or must not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.runs import timed as running
from pipeline.runs.request import Request


def run(tiny: Path, file: Path | str, **request: Any) -> running.Summary:
    request = {"max_new_tokens": 8, **request}
    return running.run(Request(dataset=str(file), model=str(tiny), **request), lambda line: None)


def refused(kind: type[PipelineError], tiny: Path | str, file: Path | str, **request: Any) -> PipelineError:
    """The error of a run that must fail; its message has all its parts."""
    with pytest.raises(kind) as caught:
        run(tiny, file, **request)
    assert re.search(r"^  do:       \S", str(caught.value), re.MULTILINE)
    return caught.value


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
