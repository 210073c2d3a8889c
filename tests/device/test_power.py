"""Recognising the board, and bringing it into MAXN with locked clocks: on boards that are folders, with real words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import fake_board
from support.fake_board import FakeBoard

from pipeline.device import board as boards
from pipeline.device import host as hosts
from pipeline.device import power
from pipeline.device.host import Host
from pipeline.errors import EnvironmentProblem, PipelineError, ResourceError

# What it is


def test_the_contests_board_is_known_by_its_device_tree(board: FakeBoard) -> None:
    seen = boards.look(board.host)
    assert (seen.is_jetson, seen.l4t, seen.jetpack, seen.module) == (True, "36.3.0", "6.0", "p3701-0004")
    assert seen.title == "Jetson AGX Orin 32GB"
    assert seen.memory_bytes == 31433728 * 1024
    assert not seen.in_container


@pytest.mark.parametrize(
    ("module", "title"),
    [
        ("p3701-0000", "Jetson AGX Orin developer kit"),
        ("p3701-0005", "Jetson AGX Orin 64GB"),
        ("p3767-0000", "p3767-0000"),
    ],
)
def test_another_module_is_not_taken_for_it(tmp_path: Path, module: str, title: str) -> None:
    seen = boards.look(fake_board.make(tmp_path, module=module).host)
    assert (seen.module, seen.title) == (module, title)


def test_a_device_tree_behind_an_absolute_link_is_found_below_the_root(board: FakeBoard) -> None:
    (board.root / "sys/firmware/devicetree").mkdir(parents=True)
    (board.root / "proc/device-tree").rename(board.root / "sys/firmware/devicetree/base")
    (board.root / "proc/device-tree").symlink_to("/sys/firmware/devicetree/base")
    assert boards.look(board.host).module == "p3701-0004"


@pytest.mark.parametrize(("l4t", "jetpack"), [("36.4.0", "6.1"), ("36.4.4", "6.2.1"), ("35.4.1", None)])
def test_another_release_is_named(tmp_path: Path, l4t: str, jetpack: str | None) -> None:
    seen = boards.look(fake_board.make(tmp_path, l4t=l4t).host)
    assert (seen.l4t, seen.jetpack) == (l4t, jetpack)


def test_a_container_that_sees_no_device_tree_still_knows_a_jetson_by_its_kernel(board: FakeBoard) -> None:
    for name in ("etc/nv_tegra_release", "proc/device-tree"):
        board.remove(name)
    board.write(".dockerenv", "")
    seen = boards.look(board.host)
    assert (seen.is_jetson, seen.module, seen.in_container) == (True, None, True)
    assert "cannot be seen" in seen.title


def test_an_empty_root_is_no_jetson(tmp_path: Path) -> None:
    seen = boards.look(Host(tmp_path))
    assert (seen.is_jetson, seen.title, seen.memory_bytes) == (False, "not a Jetson", None)


def test_links_that_go_round_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("/two")
    (tmp_path / "two").symlink_to("/one")
    assert Host(tmp_path).read("one") is None
    (tmp_path / "up").symlink_to("../../../../three")
    (tmp_path / "three").write_text("here")
    assert Host(tmp_path).read("up") == "here"


def test_the_host_is_named_by_the_environment(board: FakeBoard) -> None:
    assert hosts.current() == board.host


def test_this_machine_can_be_looked_at_and_its_commands_run() -> None:
    here = Host(Path("/"))
    assert boards.look(here).memory_bytes > 0
    assert here.run("echo", "hello").output == "hello"
    assert here.run("no-such-command") is None
    assert here.run("sleep", "9", timeout_s=0.1).status == 124


# Power mode


def test_the_modes_are_read_by_name_through_the_link(board: FakeBoard) -> None:
    assert power.modes(board.host) == {"MAXN": 0, "MODE_15W": 1, "MODE_30W": 2, "MODE_40W": 3}
    assert power.mode(board.host) == power.Mode(2, "MODE_30W")


def test_without_nvpmodel_the_stored_mode_tells(board: FakeBoard) -> None:
    board.remove("usr/sbin/nvpmodel")
    assert power.mode(board.host) == power.Mode(2, "MODE_30W")
    board.remove("var/lib/nvpmodel/status")
    assert power.mode(board.host) is None


def test_a_mode_with_the_same_mask_changes_at_once(board: FakeBoard) -> None:
    board.boot_into("MODE_40W")
    assert power.set_mode(board.host) == "done"
    assert power.mode(board.host).name == "MAXN"
    assert power.set_mode(board.host) == "was so"


def test_a_mode_with_another_mask_is_left_alone_without_reboot(board: FakeBoard) -> None:
    assert power.set_mode(board.host) == "needs a reboot"
    assert power.mode(board.host).name == "MODE_30W"
    assert not (board.root / "rebooted").exists()


def test_nvpmodel_says_no_with_234(board: FakeBoard) -> None:
    ran = board.host.run("nvpmodel", "-m", "0", answer="no\n")
    assert (ran.status, board.host.run("nvpmodel", "-m", "0").status) == (power.REFUSED_REBOOT,) * 2
    assert "enter YES/yes to confirm" in ran.output


def test_reboot_is_only_by_asking_for_it(board: FakeBoard) -> None:
    assert power.set_mode(board.host, reboot=True) == "rebooting"
    assert (board.root / "rebooted").exists()
    assert power.mode(board.host).name == "MAXN"


def refused(kind: type[PipelineError], code: str, call: object, *arguments: object) -> PipelineError:
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert caught.value.code == code
    assert re.search(r"do: +\S", str(caught.value))
    return caught.value


def test_a_board_without_maxn_is_told_its_modes(board: FakeBoard) -> None:
    board.write("etc/nvpmodel/nvpmodel_p3701_0004.conf", "< POWER_MODEL ID=2 NAME=MODE_30W >\nTPC_PG_MASK 240\n")
    assert refused(EnvironmentProblem, "E301", power.set_mode, board.host).actual == "MODE_30W"


def test_nvpmodels_own_words_are_passed_on(board: FakeBoard) -> None:
    board.write("nvpmodel-refuses", "")
    error = refused(EnvironmentProblem, "E302", power.set_mode, board.host)
    assert "status 255: NVPM ERROR: Error writing" in error.actual
    assert "sudo nvpmodel -m 0" in error.fix


def test_a_tool_that_does_not_end_is_ended(board: FakeBoard) -> None:
    board.write("nvpmodel-hangs", "")
    assert board.host.run("nvpmodel", "-q", timeout_s=0.2).status == 124


def test_rights_are_those_to_write_the_root_folder(tmp_path: Path, as_nobody: Callable[..., str]) -> None:
    assert Host(tmp_path).may_change
    imports = "from pathlib import Path\nfrom pipeline.device.host import Host"
    assert as_nobody(imports, "print(Host(Path('/')).may_change)") == "False"


def test_without_rights_the_command_for_the_host_is_outcome(board: FakeBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "may_change", False)
    assert "sudo nvpmodel -m 0" in refused(ResourceError, "R501", power.set_mode, board.host).fix
    assert "sudo jetson_clocks" in refused(ResourceError, "R501", power.lock_clocks, board.host).fix


# Clocks


def test_clocks_are_stored_before_they_are_locked_and_come_back(board: FakeBoard) -> None:
    assert power.clocks_locked(board.host) is False
    assert power.lock_clocks(board.host) == "done"
    assert power.clocks_locked(board.host) is True
    log = (board.root / "jetson_clocks.log").read_text().splitlines()
    assert log == [f"--store {power.STORED_CLOCKS}", "", "--fan"]
    assert power.restore_clocks(board.host) == "done"
    assert power.clocks_locked(board.host) is False
    assert power.restore_clocks(board.host) == "was so"


def test_a_second_lock_does_not_store_what_the_first_one_set(board: FakeBoard) -> None:
    power.lock_clocks(board.host)
    stored = board.host.read(power.STORED_CLOCKS)
    assert power.lock_clocks(board.host) == "was so"
    board.write("sys/class/devfreq/17000000.gpu/min_freq", 1)  # a change of the power mode undoes part of it
    assert power.lock_clocks(board.host) == "done"
    assert board.host.read(power.STORED_CLOCKS) == stored


def test_jetson_clocks_errors_count_though_its_status_is_0(board: FakeBoard) -> None:
    board.write("jetson_clocks-fails", "")
    assert "Failed to write" in refused(EnvironmentProblem, "E303", power.lock_clocks, board.host).actual


def test_clocks_that_cannot_be_seen_are_neither_locked_nor_not(board: FakeBoard) -> None:
    board.remove("sys/class/devfreq/17000000.gpu/min_freq")
    assert power.clocks_locked(board.host) is None
    board.remove("sys/class/devfreq/17000000.gpu")
    assert power.clocks_locked(board.host) is None


def test_the_fans_profile(board: FakeBoard) -> None:
    assert power.fan_profile(board.host) == "quiet"
