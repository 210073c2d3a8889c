"""The checks of the board itself: what is found, what is wanted, and what to do about the difference.

Each looks at one thing and changes nothing; `fix` does, where something can be done from here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.device import board as boards
from pipeline.device import power
from pipeline.device.board import Board
from pipeline.device.host import Host

OK, WARN, FAIL = "ok", "warn", "fail"
State = Literal["ok", "warn", "fail"]

HOT_C = 70
"""At rest. The GPU is slowed from 99 °C on (Jetson Linux developer guide)."""

BROKEN_DOCKER = "28.0."
"""Does not start containers on Jetson kernels: https://github.com/moby/moby/issues/49557"""

MOUNT_THE_HOST = "in a container, mount the host: docker run -v /:/host …"


@dataclass(frozen=True)
class Check:
    name: str
    found: str
    wanted: str
    state: State
    remedy: str = ""
    fix: Callable[[], object] | None = None
    """Brings about what is wanted; raises PipelineError when it cannot."""


def of_board(host: Host) -> list[Check]:
    """For a Jetson: everything about it. For another machine: memory and swap, which matter anywhere."""
    board = boards.look(host)
    everywhere = [_swap(host)]
    if not board.is_jetson:
        return everywhere
    return [
        _jetpack(board),
        _module(board),
        _mode(host),
        _clocks(host),
        _fan(host),
        _temperature(host),
        *everywhere,
        _desktop(host),
        _docker(host, board),
    ]


def _jetpack(board: Board) -> Check:
    wanted = f"JetPack {boards.TARGET_JETPACK}, L4T 36.3.0"
    if board.l4t is None:
        return Check("JetPack", f"cannot be seen (kernel {board.kernel})", wanted, WARN, MOUNT_THE_HOST)
    found = f"JetPack {board.jetpack or 'unknown'}, L4T {board.l4t}"
    fine = board.jetpack == boards.TARGET_JETPACK
    remedy = f"flash the board with {wanted}: the image's CUDA 12.2 belongs to that release"
    return Check("JetPack", found, wanted, OK if fine else FAIL, "" if fine else remedy)


def _module(board: Board) -> Check:
    wanted = f"{boards.MODULES[boards.TARGET_MODULE]} ({boards.TARGET_MODULE})"
    if board.module is None:
        return Check("module", "cannot be seen", wanted, WARN, MOUNT_THE_HOST)
    if board.module == boards.TARGET_MODULE:
        return Check("module", wanted, wanted, OK)
    found = f"{board.title} ({board.module})"
    return Check("module", found, wanted, WARN, "nothing to mend: times of this board are not those of the contest's")


def _mode(host: Host) -> Check:
    mode = power.mode(host)
    if mode is None:
        return Check("power mode", "cannot be seen", power.WANTED, WARN, MOUNT_THE_HOST)
    if mode.name == power.WANTED:
        return Check("power mode", mode.name, power.WANTED, OK)
    remedy = f"{power.mode_command(host)} (it asks for a reboot), or invoke setup --reboot"
    return Check("power mode", mode.name, power.WANTED, FAIL, remedy, lambda: power.set_mode(host))


def _clocks(host: Host) -> Check:
    locked = power.clocks_locked(host)
    if locked:
        return Check("clocks", "locked", "locked", OK)
    found = "cannot be seen" if locked is None else "free to change"
    return Check("clocks", found, "locked", WARN, power.CLOCKS_COMMAND, lambda: power.lock_clocks(host))


def _fan(host: Host) -> Check:
    profile = power.fan_profile(host)
    if profile in {"cool", None} or power.clocks_locked(host):
        return Check("fan", "at full speed" if profile != "cool" else profile, "cool or full", OK)
    return Check("fan", profile, "cool or full", WARN, "sudo jetson_clocks --fan")


def _temperature(host: Host) -> Check:
    zones = [host.number(f"{zone}/temp") for zone in host.names("sys/class/thermal/thermal_zone*")]
    celsius = [zone / 1000 for zone in zones if zone is not None]
    wanted = f"below {HOT_C} °C at rest"
    if not celsius:
        return Check("temperature", "cannot be read", wanted, WARN, MOUNT_THE_HOST)
    fine = max(celsius) < HOT_C
    remedy = "" if fine else "let it cool; look after fan and air"
    return Check("temperature", f"{max(celsius):.0f} °C", wanted, OK if fine else WARN, remedy)


def _swap(host: Host) -> Check:
    lines = (host.read("proc/swaps") or "").splitlines()[1:]
    devices = [line.split()[0] for line in lines if line.split()]
    used_mib = sum(int(line.split()[3]) for line in lines if len(line.split()) > 3) / 1024
    zram = [device for device in devices if "zram" in device]
    found = f"{', '.join(devices)}; {used_mib:.0f} MiB used" if devices else "none"
    wanted = "no zram, nothing swapped out"
    if zram:
        return Check(
            "swap", found, wanted, WARN, "sudo systemctl disable --now nvzramconfig (then reboot): zram takes memory"
        )
    if used_mib > 1:
        return Check("swap", found, wanted, WARN, "end other programs; sudo swapoff -a && sudo swapon -a")
    return Check("swap", found, wanted, OK)


DESKTOPS = {"Xorg", "Xwayland", "gnome-shell", "gdm3"}


def _desktop(host: Host) -> Check:
    running = sorted({host.read(name) or "" for name in host.names("proc/[0-9]*/comm")} & DESKTOPS)
    remedy = "sudo systemctl set-default multi-user.target && sudo reboot: about 800 MB more for the model"
    if running:
        return Check("desktop", f"running ({', '.join(running)})", "none", WARN, remedy)
    return Check("desktop", "none", "none", OK)


def _docker(host: Host, board: Board) -> Check:
    wanted = "a version other than 28.0, with the runtime nvidia"
    if board.in_container:
        return Check("docker", "this is a container", wanted, OK)
    ran = host.run("docker", "info", "--format", "{{json .}}")
    if ran is None:
        return Check("docker", "not installed", wanted, WARN, "sudo apt-get install docker.io nvidia-container-toolkit")
    try:
        info = json.loads(ran.said[ran.said.index("{") :])
        version, runtimes = info["ServerVersion"], sorted(info["Runtimes"])
    except (ValueError, KeyError, TypeError):
        return Check(
            "docker",
            " ".join(ran.said.split())[:80],
            wanted,
            WARN,
            "sudo systemctl start docker; sudo usermod -aG docker $USER",
        )
    found = f"{version}, runtimes {', '.join(runtimes)}"
    if version.startswith(BROKEN_DOCKER):
        return Check(
            "docker", found, wanted, FAIL, "install 27.5.1: 28.0 does not start on Jetson kernels (moby#49557)"
        )
    if "nvidia" not in runtimes:
        remedy = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
        return Check("docker", found, wanted, FAIL, remedy)
    return Check("docker", found, wanted, OK)


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
