"""A board's measured quantities, each read from a file: power rails, temperatures, clocks, alarms, memory.

INA3221 rails as in the Jetson Linux developer guide (Platform Power and Performance): a rail's power is its voltage
times its current. A file that is not there or refuses to be read never counts as zero: it is listed as missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.device import board, power
from pipeline.device.host import Host

MIB = 2**20


@dataclass(frozen=True)
class Channel:
    """One measured quantity."""

    name: str
    """Ends in the unit, behind the last `_`."""
    kind: str
    read: Callable[[], float]
    """Raises OSError or ValueError when there is no value now."""


KINDS = {
    "power": "no INA3221 rail",
    "temperature": "no thermal zone",
    "gpu clock": "no devfreq of a GPU",
    "memory clock": "its clock needs debugfs and root",
    "cpu clock": "no cpufreq",
    "alarm": "no over-current alarm or counter",
    "cooling": "no cooling device that holds a clock down",
    "memory": "no /proc/meminfo",
}
"""Kind of channel to what its absence means. A notice is a kind whose absence means nothing."""

NOTICE = "notice"
HOLDERS = re.compile(r"(thermal-)?(cpufreq|devfreq)-|.*-throttle-alert")
"""Cooling devices that hold a clock down. Others tell people or other programs something, as `hot-surface-alert` of
L4T 36.3 does at 70 °C, 29 degrees before anything is slowed."""

ENDINGS = {
    "gpu_MHz": "gpu clock",
    "emc_MHz": "memory clock",
    "_MHz": "cpu clock",
    "_W": "power",
    "_C": "temperature",
    "_alarm": "alarm",
    "_events": "alarm",
    "_MiB": "memory",
}
"""How the names of each kind end; the first that fits."""


def kind_of(name: str) -> str | None:
    """The kind of a channel that is known by its name only, as in a recording's file.

    A cooling device's follows from what it is and not from how its column is called.
    """
    if name.endswith(("_held", "_notice")):
        return "cooling" if HOLDERS.match(name) else NOTICE
    return next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), None)


def find(host: Host) -> list[Channel]:
    """Every channel that the host has, whether it answers or not."""
    return [
        *_rails(host),
        *_temperatures(host),
        *_clocks(host),
        *_counters(host),
        *_cooling(host),
        *_memory(host),
    ]


def _file(host: Host, name: str, scale: float = 1.0) -> Callable[[], float]:
    path = host.path(name)
    return lambda: int(path.read_bytes()) * scale


def _product(a: Callable[[], float], b: Callable[[], float]) -> Callable[[], float]:
    return lambda: a() * b()


def _rails(host: Host) -> list[Channel]:
    rails = []
    for folder in host.names("sys/class/hwmon/hwmon*"):
        if host.read(f"{folder}/name") != "ina3221":
            continue
        for label_file in host.names(f"{folder}/in[1-3]_label"):  # in7 is a sum of shunt voltages
            label, number = host.read(label_file), label_file.rsplit("/", 1)[1][2]
            if label in {None, "NC"}:
                continue
            volts, amperes = (_file(host, f"{folder}/{part}{number}_input", 1e-3) for part in ("in", "curr"))
            rails.append(Channel(f"{label}_W", "power", _product(volts, amperes)))
            for alarm in ("max", "crit"):
                name = f"{folder}/curr{number}_{alarm}_alarm"
                if host.path(name).exists():
                    rails.append(Channel(f"{label}_{alarm}_alarm", "alarm", _file(host, name)))
    return rails


def _temperatures(host: Host) -> list[Channel]:
    zones = host.names("sys/class/thermal/thermal_zone*")
    return [
        Channel(
            f"{host.read(f'{zone}/type') or zone.rsplit('/', 1)[1]}_C", "temperature", _file(host, f"{zone}/temp", 1e-3)
        )
        for zone in zones
    ]


def _clocks(host: Host) -> list[Channel]:
    found = [
        Channel("gpu_MHz", "gpu clock", _file(host, f"{name}/cur_freq", 1e-6)) for name in power.gpu_folders(host)[:1]
    ]
    emc = "sys/kernel/debug/bpmp/debug/clk/emc/rate"
    if host.path(emc).exists():
        found.append(Channel("emc_MHz", "memory clock", _file(host, emc, 1e-6)))
    for policy in host.names("sys/devices/system/cpu/cpufreq/policy*"):
        name = f"cpu{re.sub(r'.*policy', '', policy)}_MHz"
        found.append(Channel(name, "cpu clock", _file(host, f"{policy}/scaling_cur_freq", 1e-3)))
    return found


def _counters(host: Host) -> list[Channel]:
    """oc1 counts under-voltage, oc2 average and oc3 momentary over-current; each event throttles."""
    names = host.names("sys/class/hwmon/hwmon*/oc*_event_cnt")
    return [Channel(f"{name.rsplit('/', 1)[1][:3]}_events", "alarm", _file(host, name)) for name in names]


def _cooling(host: Host) -> list[Channel]:
    """Above zero, a device holds a clock down, or only gives notice. A fan that turns faster does neither."""
    found = []
    for folder in host.names("sys/class/thermal/cooling_device*"):
        device = host.read(f"{folder}/type") or folder.rsplit("/", 1)[1]
        if "fan" not in device:
            kind, ending = ("cooling", "held") if HOLDERS.match(device) else (NOTICE, "notice")
            name = f"{device}_{folder.rsplit('device', 1)[1]}_{ending}"
            found.append(Channel(name, kind, _file(host, f"{folder}/cur_state")))
    return found


def _memory(host: Host) -> list[Channel]:
    if not board.memory(host):
        return []

    def of(*names: str) -> Callable[[], float]:
        def read() -> float:
            seen = board.memory(host)
            if not set(names) <= seen.keys():
                raise ValueError(f"/proc/meminfo without {' or '.join(names)}")
            return (seen[names[0]] - sum(seen[name] for name in names[1:])) / MIB

        return read

    return [
        Channel("available_MiB", "memory", of("MemAvailable")),
        Channel("swapped_MiB", "memory", of("SwapTotal", "SwapFree")),
    ]
