"""Telemetry of a board that is a folder: every channel, what is missing, its cost; and what makes a time invalid."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fake_board import COOLING, UNREADABLE_ZONE, WATTS, ZONES, FakeBoard
from support.rows import write_rows

from pipeline.device import channels, power, telemetry, verdict
from pipeline.device.host import Host
from pipeline.device.telemetry import Recording, Telemetry

FAST_S = 0.02


def record(host: Host, folder: Path, during: Callable[[], None] = lambda: None, seconds: float = 0.12) -> Recording:
    """A recording of so many seconds; half-way `during` changes the board."""
    with Telemetry(host, folder, period_s=FAST_S) as recorded:
        time.sleep(seconds / 2)
        during()
        time.sleep(seconds / 2)
    return recorded.recording


def test_every_channel_of_the_board_is_read_in_its_unit(board: FakeBoard, tmp_path: Path) -> None:
    seen = record(board.host, tmp_path)
    first = {name: seen.values(name)[0] for name in seen.coverage() if name not in channels.KINDS and seen.values(name)}
    expected = {
        "VDD_GPU_SOC_W": 24,
        "VDD_CPU_CV_W": 3,
        "VIN_SYS_5V0_W": 5,
        "VDDQ_VDD2_1V8AO_W": 1,
        "gpu_MHz": 930.75,
        "cpu0_MHz": 2188.8,
        "gpu-thermal_C": 49.062,
        "oc2_events": 4,
        "VDD_GPU_SOC_crit_alarm": 0,
        "devfreq-17000000.gpu_2_held": 0,
        "available_MiB": 30000000 / 1024,
        "swapped_MiB": 0,
    }
    assert {name: first[name] for name in expected} == pytest.approx(expected)
    assert not [name for name in first if "NC" in name or "shunt" in name or "fan" in name]


def test_a_channel_s_kind_can_be_told_by_its_name(board: FakeBoard) -> None:
    board.write("sys/kernel/debug/bpmp/debug/clk/emc/rate", 3200000000)
    found = channels.find(board.host)
    assert {channel.kind for channel in found} == {*channels.KINDS, channels.NOTICE}
    assert {channel.name: channels.kind_of(channel.name) for channel in found} == {
        channel.name: channel.kind for channel in found
    }
    assert channels.kind_of("mood") is None
    assert channels.kind_of("devfreq-17000000.gpu_2_notice") == "cooling"


def test_what_cannot_be_read_is_listed_and_never_zero(board: FakeBoard, tmp_path: Path) -> None:
    seen = record(board.host, tmp_path)
    coverage, missing = seen.coverage(), seen.missing()
    assert coverage[f"{UNREADABLE_ZONE}_C"] == 0
    assert seen.values(f"{UNREADABLE_ZONE}_C") == []
    assert "debugfs" in missing["memory clock"]
    assert set(missing) == {"memory clock", f"{UNREADABLE_ZONE}_C"}
    assert all(coverage[f"{zone}_C"] == 1 for zone in ZONES)


def test_the_memory_clock_is_read_where_debugfs_is(board: FakeBoard, tmp_path: Path) -> None:
    board.write("sys/kernel/debug/bpmp/debug/clk/emc/rate", 3199000000)
    assert record(board.host, tmp_path).values("emc_MHz")[0] == pytest.approx(3199)


def test_the_file_has_a_column_a_channel_and_blanks_for_no_value(board: FakeBoard, tmp_path: Path) -> None:
    seen = record(board.host, tmp_path)
    rows = list(csv.DictReader((tmp_path / telemetry.NAME).read_text().splitlines()))
    assert len(rows) == len(seen.samples) >= 4
    assert {row[f"{UNREADABLE_ZONE}_C"] for row in rows} == {""}
    assert {float(row["VDD_GPU_SOC_W"]) for row in rows} == {24.0}
    assert [float(row["time_s"]) for row in rows] == sorted(float(row["time_s"]) for row in rows)


def test_energy_is_power_times_time(board: FakeBoard, tmp_path: Path) -> None:
    seen = record(board.host, tmp_path)
    span_s = seen.samples[-1].at_s - seen.samples[0].at_s
    assert seen.energy_j() == pytest.approx(WATTS * span_s, rel=1e-6)
    assert seen.describe(prompts=10)["energy_j_per_prompt"] == pytest.approx(seen.energy_j() / 10)


def test_there_is_no_energy_with_a_gap_in_it_or_too_few_samples(board: FakeBoard, tmp_path: Path) -> None:
    gap = record(board.host, tmp_path, lambda: board.write("sys/class/hwmon/hwmon1/curr1_input", "-"))
    assert 0 < gap.coverage()["VDD_GPU_SOC_W"] < 1
    assert gap.energy_j() is None
    assert replace(gap, samples=gap.samples[:2]).energy_j() is None


def test_a_channel_that_vanishes_in_the_middle_stops_nothing(board: FakeBoard, tmp_path: Path) -> None:
    seen = record(board.host, tmp_path, lambda: board.remove("sys/class/thermal/thermal_zone1"))
    assert 0 < seen.coverage()["gpu-thermal_C"] < 1
    assert seen.coverage()["cpu-thermal_C"] == 1


@pytest.mark.alone
@pytest.mark.slow
def test_it_samples_at_most_twice_a_second_and_costs_little(board: FakeBoard, tmp_path: Path) -> None:
    costs = []
    for _ in range(3):  # the least counts: on a busy machine the same work takes several times its time
        with Telemetry(board.host, tmp_path) as recorded:
            time.sleep(2.2)
        seen = recorded.recording
        gaps = [b.at_s - a.at_s for a, b in zip(seen.samples[:-1], seen.samples[1:-1], strict=False)]
        assert min(gaps) >= telemetry.PERIOD_S * 0.99
        costs.append(seen.cost_s / seen.elapsed_s)
    assert min(costs) <= 0.005


def test_the_thread_ends_and_the_file_is_there_when_what_it_watches_fails(board: FakeBoard, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="meant"), Telemetry(board.host, tmp_path):
        raise RuntimeError("meant")
    assert (tmp_path / telemetry.NAME).exists()
    assert "telemetry" not in {thread.name for thread in threading.enumerate()}


def test_a_folder_that_cannot_be_written_loses_the_file_and_not_the_run(board: FakeBoard, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(record(board.host, tmp_path / "file").samples) >= 4


def test_this_machine_is_measured_too(tmp_path: Path) -> None:
    seen = record(Host(Path("/")), tmp_path)
    assert seen.coverage()["available_MiB"] == 1
    assert 0 <= seen.others_share <= 1


# The verdict


def good(board: FakeBoard) -> None:
    board.boot_into("MAXN")
    board.lock_clocks()
    board.write("sys/kernel/debug/bpmp/debug/clk/emc/rate", 3199000000)


def judged(board: FakeBoard, folder: Path, during: Callable[[], None] = lambda: None) -> verdict.Verdict:
    before = verdict.state(board.host)
    seen = record(board.host, folder, during)
    return verdict.judge(before, verdict.state(board.host), seen)


def test_a_board_in_maxn_that_nothing_holds_back_is_valid(board: FakeBoard, tmp_path: Path) -> None:
    good(board)
    assert judged(board, tmp_path) == verdict.Verdict("VALID", True, (), ())


def more_load(board: FakeBoard) -> Callable[[], None]:
    return lambda: board.write("proc/stat", "cpu  3000 0 500 82000 20 0 0 0 0 0")


SPOILT: dict[str, tuple[str, Any, str]] = {
    "over-current": ("sys/class/hwmon/hwmon3/oc3_event_cnt", 37, "oc3_events counted 37"),
    "critical alarm": ("sys/class/hwmon/hwmon1/curr1_crit_alarm", 1, "VDD_GPU_SOC_crit_alarm was on"),
    "heat": ("sys/class/thermal/cooling_device2/cur_state", 2, "devfreq-17000000.gpu_2 was held down"),
    "clock": ("sys/class/devfreq/17000000.gpu/cur_freq", 612000000, "locked clock fell to 612 of 931 MHz"),
    "swap": (
        "proc/meminfo",
        "MemTotal: 4 kB\nMemAvailable: 4 kB\nSwapTotal: 9000 kB\nSwapFree: 900 kB",
        "8 MiB were swapped",
    ),
    "mode": ("var/lib/nvpmodel/status", "pmode:0003", "power mode MODE_40W after the run"),
    "load": ("proc/stat", "cpu  3000 0 500 82000 20 0 0 0 0 0", "other programs used 50%"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_spoils_a_time(board: FakeBoard, tmp_path: Path, case: str) -> None:
    good(board)
    name, value, reason = SPOILT[case]
    found = judged(board, tmp_path, lambda: board.write(name, value))
    assert found.state == "INVALID"
    assert [told for told in found.reasons if reason in told], found.reasons


@pytest.mark.parametrize("device", [name for name in COOLING if name != "pwm-fan"])
def test_only_a_cooling_device_that_slows_something_spoils_a_time(
    board: FakeBoard, tmp_path: Path, device: str
) -> None:
    good(board)
    number = COOLING.index(device)
    board.write(f"sys/class/thermal/cooling_device{number}/cur_state", 1)
    found = judged(board, tmp_path)
    if device == "hot-surface-alert":
        assert (found.state, found.reasons) == ("VALID with notes", ())
        assert found.notes == (f"{device}_{number} was on, a notice that slows nothing",)
    else:
        assert (found.state, found.reasons) == ("INVALID", (f"throttled: {device}_{number} was held down",))


def test_a_notice_of_another_system_is_no_reason_and_no_board_needs_one(board: FakeBoard, tmp_path: Path) -> None:
    good(board)
    folder = f"sys/class/thermal/cooling_device{COOLING.index('hot-surface-alert')}"
    board.write(f"{folder}/type", "intel_powerclamp")
    board.write(f"{folder}/cur_state", -1)  # as it says while it is off
    assert judged(board, tmp_path) == verdict.Verdict("VALID", True, (), ())
    board.remove(folder)
    assert judged(board, tmp_path) == verdict.Verdict("VALID", True, (), ())


def test_events_from_before_the_run_do_not_count(board: FakeBoard, tmp_path: Path) -> None:
    good(board)
    board.write("sys/class/hwmon/hwmon3/oc3_event_cnt", 4711)
    assert judged(board, tmp_path).state == "VALID"


def test_what_is_worth_a_note(board: FakeBoard, tmp_path: Path) -> None:
    board.boot_into("MAXN")
    board.write("sys/class/hwmon/hwmon1/curr2_max_alarm", 1)
    found = judged(board, tmp_path)
    assert (found.state, found.reasons) == ("VALID with notes", ())
    assert "clocks were not locked" in found.notes
    assert "VDD_CPU_CV_max_alarm was on" in found.notes
    assert any("memory clock" in note for note in found.notes)


def test_another_board_than_the_contests_is_noted(board: FakeBoard, tmp_path: Path) -> None:
    good(board)
    board.write("proc/device-tree/compatible", "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0")
    assert any("Jetson AGX Orin 64GB" in note for note in judged(board, tmp_path).notes)


def test_a_container_that_sees_nothing_says_so(board: FakeBoard, tmp_path: Path) -> None:
    for name in ("etc", "var", "usr", "proc/device-tree", "sys"):
        board.remove(name)
    found = judged(board, tmp_path)
    assert found.state == "VALID with notes"
    assert any("-v /:/host" in note for note in found.notes)
    assert "the module could not be seen" in found.notes
    assert any("not measured: power" in note for note in found.notes)


def test_elsewhere_nothing_is_invalid(tmp_path: Path) -> None:
    here = Host(Path("/"))
    state = verdict.state(here)
    found = verdict.judge(state, state, replace(record(here, tmp_path), others_share=0.9))
    assert (found.state, found.counts) == ("VALID with notes", False)
    assert any("other programs used 90%" in note for note in found.notes)


# In a run


@pytest.mark.usefixtures("one_thread")
@pytest.mark.slow
def test_a_run_on_the_board_writes_its_telemetry_and_ends_with_8_in_the_wrong_mode(
    board: FakeBoard, tiny: Path, invoke: Any, runs: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    command = ("run", "--dataset", rows, "--model", tiny, "--max-new-tokens", "4")
    done = invoke(*command)
    assert done.returncode == 8, done.stderr
    assert "INVALID; power mode MODE_30W before the run" in done.stdout
    assert done.stderr.startswith("\nI201 ")
    board.boot_into("MAXN")
    power.lock_clocks(board.host)
    done = invoke(*command)
    assert done.returncode == 0, done.stderr
    assert "VALID with notes" in done.stdout
    told = json.loads((max(runs.iterdir()) / "manifest.json").read_text())
    assert told["board"]["before"]["mode"] == {"id": 0, "name": "MAXN"}
    assert told["board"]["after"]["board"]["module"] == "p3701-0004"
    assert told["verdict"]["reasons"] == []
    assert told["telemetry"]["coverage"]["VDD_GPU_SOC_W"] == 1
    assert (max(runs.iterdir()) / telemetry.NAME).exists()
