"""Bytes that a process could have sent: its own interfaces and their counters."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.device import traffic as network
from pipeline.device.traffic import Traffic

HEAD = "Inter-|   Receive\n face |bytes packets\n"


def table(folder: Path, **interfaces: tuple[int, int]) -> Path:
    lines = [f"{name:>6}: {got} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0\n" for name, (got, sent) in interfaces.items()]
    path = folder / "dev"
    path.write_text(HEAD + "".join(lines))
    return path


def test_a_container_without_a_network_has_no_interface(tmp_path: Path) -> None:
    seen = network.counters(table(tmp_path, lo=(500, 500)))
    assert seen == {}
    assert network.between(seen, seen) == Traffic((), 0, 0)


def test_bytes_are_counted_over_all_interfaces_also_one_that_came_later(tmp_path: Path) -> None:
    before = network.counters(table(tmp_path, lo=(1, 1), eth0=(100, 10)))
    after = network.counters(table(tmp_path, lo=(9, 9), eth0=(150, 12), wlan0=(7, 3)))
    assert network.between(before, after) == Traffic(("eth0", "wlan0"), 57, 5)


@pytest.mark.parametrize("text", ["", HEAD + "nonsense\n", HEAD + "eth0: x y\n", HEAD + "eth0: 1\n"])
def test_what_cannot_be_read_is_not_taken_for_silence(tmp_path: Path, text: str) -> None:
    (tmp_path / "dev").write_text(text)
    seen = network.counters(tmp_path / "dev")
    assert seen == ({} if text == "" else None)
    assert network.counters(tmp_path / "nowhere") is None
    assert network.between(None, {}) is network.between({}, None) is None


def test_this_machine_says_something() -> None:
    assert network.counters() is not None
