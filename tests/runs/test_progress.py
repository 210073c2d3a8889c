"""The bar of loading: it moves by the bytes that are read, and nothing is drawn where stderr is no terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pipeline import text_generation
from pipeline.model import loader
from pipeline.runs import engines

LOAD = "import sys; from pipeline.runs import engines; engines.load(sys.argv[1], sys.argv[2], device='cpu')"
SLOWLY = """
import sys, time
from pathlib import Path
from pipeline.model import loader
from pipeline.runs.progress import loading
folder = Path(sys.argv[1])
total = loader.file_bytes(folder)
with loading(folder) as on_bytes:
    for size_bytes in (total // 2, total - total // 2):
        time.sleep(0.15)
        on_bytes(size_bytes)
"""


def on_a_terminal(code: str, *arguments: object) -> str:
    """Runs Python code and returns all that it writes to stderr, which is a pseudo-terminal."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # one of no rows gets no bar
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=its, stdout=subprocess.DEVNULL, stderr=its
    ) as process:
        os.close(its)
        written = b""
        # Linux answers EIO where the other side of a pseudo-terminal is closed; elsewhere it is an empty read.
        try:
            while piece := os.read(ours, 1 << 16):
                written += piece
        except OSError:
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0, written.decode()
    return written.decode()


def test_the_bar_moves_by_bytes_and_leaves_nothing_behind(tiny: Path) -> None:
    written = on_a_terminal(SLOWLY, tiny)
    shown = [int(percent) for percent in re.findall(r"loading: +(\d+)%", written)]
    assert shown[0] in (49, 50)
    assert shown == sorted(shown)
    assert shown[-1] == 100
    assert "B/s" in written
    assert written.rstrip("\r").endswith(" "), "the line is wiped"


def test_loading_an_engine_on_a_terminal_draws_it(tiny: Path) -> None:
    assert "loading:" in on_a_terminal(LOAD, "ours", tiny)


def test_transformers_reports_no_bytes_and_has_no_bar(tiny: Path) -> None:
    assert "loading:" not in on_a_terminal(LOAD, "reference", tiny)


def test_nothing_is_drawn_where_stderr_is_no_terminal(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engines.load("ours", tiny, device="cpu")
    captured = capfd.readouterr()
    assert "loading:" not in captured.err + captured.out


def test_the_bytes_that_are_reported_are_those_of_the_files(tiny: Path) -> None:
    reads: list[int] = []
    text_generation.load(tiny, device="cpu", on_bytes=reads.append)
    assert sum(reads) == loader.file_bytes(tiny)
