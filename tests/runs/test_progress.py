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
ANSWER = """
import sys
from pipeline.commands.common import saying
from pipeline.runs import engines
from pipeline.runs.progress import Bar
with saying("starting"):
    pipe = engines.load("ours", sys.argv[1], device="cpu")
engines.warm_up(pipe)
chats = [[{"role": "user", "content": f"lamp {number}"}] for number in range(3)]
with Bar("mine") as bar:
    bar.begin(len(chats))
    pipe.answer(
        chats, max_new_tokens=4, on_answer=lambda answered: bar.answered(len(answered.token_ids)), on_pass=bar.passed
    )
    assert bar.passes > 0
"""
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


@pytest.mark.slow
def test_the_bar_moves_by_bytes_and_leaves_nothing_behind(tiny: Path) -> None:
    written = on_a_terminal(SLOWLY, tiny)
    shown = [int(percent) for percent in re.findall(r"loading: +(\d+)%", written)]
    assert shown[0] in (49, 50)
    assert shown == sorted(shown)
    assert shown[-1] == 100
    assert "B/s" in written
    assert written.rstrip("\r").endswith(" "), "the line is wiped"


@pytest.mark.slow
def test_loading_warming_up_and_answering_are_drawn_on_a_terminal(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of answers is right and the time left is known in the first frames, before a pass has run."""
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))  # where no curve is kept
    written = on_a_terminal(ANSWER, tiny)
    assert written.startswith("starting …")
    assert "loading:" in written
    assert len(set(re.findall(r"warming up: +(\d+)%", written))) > 5
    frames = re.findall(r"(\d) of (\d+) answers, \d+ tokens, [\d:]+, (\S+) left", written)
    assert frames[0] == ("0", "3", "?")
    assert re.fullmatch(r"[\d:]+", frames[1][2])
    assert frames[1][:2] == ("0", "3")
    assert {total for _, total, _ in frames} == {"3"}


@pytest.mark.slow
def test_transformers_reports_no_bytes_and_the_line_only_says_that_it_loads(tiny: Path) -> None:
    assert set(re.findall(r"loading: \S+", on_a_terminal(LOAD, "reference", tiny))) == {"loading: 0.00B"}


def test_nothing_is_drawn_where_stderr_is_no_terminal(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engines.load("ours", tiny, device="cpu")
    captured = capfd.readouterr()
    assert "loading:" not in captured.err + captured.out


def test_the_bytes_that_are_reported_are_those_of_the_files(tiny: Path) -> None:
    reads: list[int] = []
    text_generation.load(tiny, device="cpu", on_bytes=reads.append)
    assert sum(reads) == loader.file_bytes(tiny)
