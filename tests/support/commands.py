"""invoke as a user calls it, as a command line."""

from __future__ import annotations

import sys


def heeding_interrupts(command: list[str]) -> list[str]:
    """A shell starts what it puts into the background deaf to Ctrl-C, and children inherit that: not this one."""
    heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", heed, *command]


def invoke_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "invoke", *map(str, arguments)]
