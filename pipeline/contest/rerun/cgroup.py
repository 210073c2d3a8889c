"""A container as the kernel sees it: how much processor time it used, and whether it ran out of memory.

Docker's and podman's own word on memory is not enough: podman leaves OOMKilled false, and a child that was killed can
leave the container at status 0. The kernel counts in the container's control group, and writes a line with its id.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
DEEPEST = 5
KILLED = re.compile(r"oom-kill:|Killed process|out of memory", re.IGNORECASE)


class KernelLog:
    """Lines that the kernel writes from now on, where this user may read them."""

    def __init__(self, path: Path = Path("/dev/kmsg")) -> None:
        self._file: int | None = None
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError:
            self.close()

    @property
    def readable(self) -> bool:
        return self._file is not None

    def killed_for_memory(self, container: str) -> bool:
        """Whether a line since the beginning says that a process of this container was killed for want of memory."""
        return any(container in line and KILLED.search(line) for line in self._lines())

    def _lines(self) -> list[str]:
        lines: list[str] = []
        while self._file is not None:
            try:
                part = os.read(self._file, 1 << 14)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue  # overwritten before it was read
                break
            if not part:
                break
            lines.append(part.decode("utf-8", "replace"))
        return lines

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


class ControlGroup:
    """The container's group, looked up by its id in either version's tree, and its counters while it is there."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.oom_kills = 0
        self.cpu_s: float | None = None
        self._memory: Path | None = None
        self._cpu: Path | None = None

    def look(self, container: str) -> None:
        """Read the counters; the last ones stay when the group has gone."""
        if self._memory is None and self._cpu is None:
            one = not (self.root / "memory").is_dir()
            self._memory = self._find(self.root if one else self.root / "memory", container)
            self._cpu = self._memory if one else self._find(self.root / "cpuacct", container)
        if self._memory is not None:
            for name in ("memory.events", "memory.oom_control"):
                counted = re.search(r"^oom_kill (\d+)$", _read(self._memory / name), re.MULTILINE)
                self.oom_kills = max(self.oom_kills, int(counted[1]) if counted else 0)
        if self._cpu is not None:
            usec = re.search(r"^usage_usec (\d+)$", _read(self._cpu / "cpu.stat"), re.MULTILINE)
            nsec = _read(self._cpu / "cpuacct.usage").strip()
            used_s = int(usec[1]) / 1e6 if usec else int(nsec) / 1e9 if nsec.isdigit() else None
            self.cpu_s = self.cpu_s if used_s is None else used_s

    @staticmethod
    def _find(root: Path, container: str) -> Path | None:
        level = [root]
        for _ in range(DEEPEST):
            below: list[Path] = []
            for folder in level:
                try:
                    below += [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
                except OSError:
                    continue
            for each in below:
                if container in each.name and "conmon" not in each.name:
                    return each
            level = below
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
