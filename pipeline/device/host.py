"""The host, as files below a root folder and as commands: from within a container, and in tests, that root is not `/`.

A container sees its host's settings only when the host's root is mounted (`-v /:/host`); its tools then run by
`chroot`, with the host's own libraries. `PIPELINE_HOST` names another folder than `/host`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MOUNTED = Path("/host")
TOOL_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/bin")
MOST_LINKS = 40
"""Symbolic links in one path, as in Linux."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended: 124 stands for a timeout, 126 for one that could not be started."""

    status: int
    output: str
    """Standard output and errors, in order."""


@dataclass(frozen=True)
class Host:
    """A machine, seen through its root folder."""

    root: Path

    @property
    def is_a_container(self) -> bool:
        """Whether what we see is a container's own root and not a machine's."""
        return any((self.root / name).exists() for name in (".dockerenv", "run/.containerenv"))

    @property
    def may_change(self) -> bool:
        """Whether this process may set power mode and clocks: as root, who is told by the root folder being
        writable."""
        return os.access(self.root, os.W_OK)

    def path(self, name: str) -> Path:
        """The path of a host's file. A link as /etc/nvpmodel.conf is followed below the root, as the host would."""
        todo, at, links = list(Path(name.lstrip("/")).parts), self.root, 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                at = at.parent if at != self.root else at
            elif (at / part).is_symlink() and links < MOST_LINKS:
                links += 1
                target = Path(os.readlink(at / part))
                if target.is_absolute():
                    at, target = self.root, target.relative_to("/")
                todo = [*target.parts, *todo]
            else:
                at = at / part
        return at

    def read(self, name: str) -> str | None:
        """A small file's text without NULs and blanks at its ends; None where it is not there or cannot be read."""
        try:
            return self.path(name).read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n")
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """A file that holds one whole number."""
        text = self.read(name)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def names(self, pattern: str) -> list[str]:
        """Files and folders that match, as names below the root, sorted."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern.lstrip("/")))

    def tool(self, name: str) -> str | None:
        """The path of a command, as the host itself names it; None where there is none."""
        if self.root == Path("/"):
            return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        return next((f"/{folder}/{name}" for folder in TOOL_FOLDERS if self.path(f"{folder}/{name}").is_file()), None)

    def run(self, name: str, *arguments: str, answer: str = "", timeout_s: float = 30) -> Ran | None:
        """Run one of the host's commands, with `answer` on its standard input; None where there is no such command."""
        tool = self.tool(name)
        if tool is None:
            return None
        enter = [] if self.root == Path("/") else ["chroot", str(self.root)]
        try:
            process = subprocess.run(
                [*enter, tool, *arguments],
                input=answer,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout_s,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Ran(124, f"no end within {timeout_s:.0f} s")
        except OSError as error:
            return Ran(126, f"{error.strerror}: {error.filename}")
        return Ran(process.returncode, process.stdout.strip())


def current() -> Host:
    """The host that this process is to look at."""
    named = os.environ.get("PIPELINE_HOST")
    if named:
        return Host(Path(named))
    return Host(MOUNTED if (MOUNTED / "etc").is_dir() else Path("/"))
