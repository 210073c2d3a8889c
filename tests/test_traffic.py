"""Bytes over the network while a run goes on, from the kernel's table."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.device import traffic
from pipeline.device.host import Host
from pipeline.device.traffic import Traffic

HEAD = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls\n"
)
LOOPBACK = "    lo:  5000      50    0    0    0     0          0         0     5000      50    0    0    0     0\n"


def table(tmp_path: Path, lines: str) -> Host:
    path = tmp_path / traffic.TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + LOOPBACK + lines)
    return Host(tmp_path)


def test_the_loopback_is_no_network(tmp_path: Path) -> None:
    assert traffic.look(table(tmp_path, "")) == Traffic((), 0, 0)


def test_all_interfaces_count(tmp_path: Path) -> None:
    lines = "  eth0: 1200 3 0 0 0 0 0 0 340 2 0 0 0 0\nwlan0:30 1 0 0 0 0 0 0 4 1 0 0 0 0\n"
    assert traffic.look(table(tmp_path, lines)) == Traffic(("eth0", "wlan0"), 1230, 344)


def test_between_two_moments(tmp_path: Path) -> None:
    one, two = Traffic(("eth0",), 100, 50), Traffic(("eth0", "wlan0"), 130, 50)
    assert traffic.between(one, two) == Traffic(("eth0", "wlan0"), 30, 0)
    assert traffic.between(None, two) is None
    assert traffic.between(one, None) is None


@pytest.mark.parametrize("path", ["", "proc"])
def test_what_cannot_be_read_is_not_taken_for_none(tmp_path: Path, path: str) -> None:
    assert traffic.look(Host(tmp_path / path)) is None


def test_this_machines_table_is_read() -> None:
    assert traffic.look(Host(Path("/"))) is not None
