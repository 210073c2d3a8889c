"""A clone with a run of its own in it, for what packs, checks and shows submissions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.commands import invoke_command

from pipeline import paths
from pipeline.record import checkout

WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
WHEN = {"GIT_AUTHOR_DATE": "2024-10-06T12:00:00Z", "GIT_COMMITTER_DATE": "2024-10-06T12:00:00Z"}


@dataclass(frozen=True)
class Clone:
    """Of what lies in this checkout now, committed once."""

    path: Path

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments],
            env={**os.environ, **WHO, **WHEN},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def invoke(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """As a user calls it there; runs go to runs/ of the clone."""
        environment = {key: value for key, value in os.environ.items() if key != "PIPELINE_RUNS"}
        return subprocess.run(
            invoke_command(*arguments),
            cwd=self.path,
            env={**environment, "PYTHONPATH": str(self.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    @property
    def run(self) -> Path:
        """The newest run."""
        return max((self.path / "runs").iterdir())


def clone(folder: Path) -> Clone:
    """Everything that git would commit here, with changes, as one commit in a new repository."""
    for path in checkout.files(paths.ROOT):
        copy = folder / path.relative_to(paths.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    made = Clone(folder)
    made.git("init", "--quiet", "--initial-branch=main")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "All")
    return made


def change_manifest(run: Path, **changes: Any) -> None:
    """Set keys of a run's manifest."""
    path = run / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=2) + "\n")
