"""The answers of a running program, copied as they appear: outputs.jsonl in the only new folder of an empty one.

An answer counts from the moment at which the organiser saw it in the file, and as it was then. So the file may only
grow: what is written over, cut or exchanged after it was copied is a lie about when it was known.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

ANSWERS = "outputs.jsonl"
MOST_FILES = 1000
CHUNK = 1 << 20


class Watch:
    """Looks at a folder that was empty when the program began; `look` as often as the clock is to be exact."""

    def __init__(self, runs: Path, most_bytes: int) -> None:
        self.runs, self.most_bytes = runs, most_bytes
        self.copied = bytearray()
        self.first_change_s: float | None = None
        self.last_change_s: float | None = None
        """When the answers were first seen to grow, and last, by `time.perf_counter`."""
        self.wrong: list[str] = []
        self.folder: str | None = None
        self._place: int | None = None
        self._file: int | None = None

    def look(self) -> None:
        """Copy what is new. After the first thing that is wrong nothing more is copied."""
        if self.wrong or (self._file is None and not self._open()):
            return
        try:
            named = os.stat(ANSWERS, dir_fd=self._place, follow_symlinks=False)
        except FileNotFoundError:
            return self._refuse("the answers were taken away")
        now_s, ours = time.perf_counter(), os.fstat(self._file or 0)
        if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
            return self._refuse("the answers were exchanged for another file")
        if ours.st_size < len(self.copied):
            return self._refuse(f"the answers shrank from {len(self.copied):,} to {ours.st_size:,} bytes")
        if ours.st_size > self.most_bytes:
            return self._refuse(f"the answers have more than {self.most_bytes:,} bytes")
        if ours.st_size > len(self.copied):
            while part := os.pread(self._file or 0, min(CHUNK, ours.st_size - len(self.copied)), len(self.copied)):
                self.copied += part
            self.first_change_s = self.first_change_s or now_s
            self.last_change_s = now_s

    def finish(self) -> None:
        """The program has ended: its answers must be what was copied, and nothing else may lie beside their folder."""
        self.look()
        if self._file is not None and not self.wrong:
            at = 0
            while part := os.pread(self._file, CHUNK, at):
                if part != self.copied[at : at + len(part)]:
                    self._refuse("answers were written over after they had been written")
                    break
                at += len(part)
        names = sorted(os.listdir(self.runs))
        if self.folder is not None and names != [self.folder]:
            self._refuse(f"{len(names)} entries where one run's folder belongs")
        if not names:
            self._refuse("it ended and left no run")
        elif self._file is None:
            self._refuse("it left no answers")

    def close(self) -> None:
        for each in (self._file, self._place):
            if each is not None:
                os.close(each)
        self._file = self._place = None

    def used_bytes(self) -> int:
        """The bytes in the folder; too many files count as more than there can be."""
        found, pending, used = 0, [self.runs], 0
        while pending:
            try:
                with os.scandir(pending.pop()) as entries:
                    for entry in entries:
                        found += 1
                        if found > MOST_FILES:
                            return 1 << 62
                        used += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(Path(entry.path))
            except OSError:
                continue  # gone since, or not to be entered
        return used

    def _open(self) -> bool:
        """Open the answers when they are there: no link is followed, and nothing but a plain file is opened."""
        try:
            if self._place is None:
                name = next(iter(os.listdir(self.runs)), None)
                if name is None:
                    return False
                self._place = os.open(self.runs / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                self.folder = name
            file = os.open(ANSWERS, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._place)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._refuse(f"its folder or answers cannot be opened: {error.strerror}")
            return False
        self._file = file
        seen = os.fstat(file)
        if not stat.S_ISREG(seen.st_mode) or seen.st_nlink > 1:
            self._refuse("the answers are no file of their own")
            return False
        return True

    def _refuse(self, why: str) -> None:
        self.wrong.append(why)
