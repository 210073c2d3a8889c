"""The checks of the board itself, before a run: JetPack, module, power mode, clocks, fan, memory, desktop, docker.

Each looks at one thing and changes nothing; its `mend` does, where something can be done from here.
"""

from __future__ import annotations

import json
import re

from pipeline.check import FAIL, OK, WARN, CheckResult
from pipeline.device import board as boards
from pipeline.device import power
from pipeline.device.board import Board
from pipeline.device.host import Host

HOT_C = 70
"""At rest. The GPU is slowed from 99 °C on (Jetson Linux developer guide)."""

FIRST_WITH_RAW = 28
"""Docker from this version on builds images and publishes ports by the raw table of iptables, which the kernel of
JetPack 6 comes without: https://github.com/moby/moby/issues/49557. A run, which has no network, needs no table."""
RAW_MODULE = "iptable_raw"

MOUNT_THE_HOST = "in a container, mount the host: docker run -v /:/host …"


def board_results(host: Host) -> list[CheckResult]:
    """On a Jetson every check of this module; on another machine only the swap, which matters anywhere."""
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


def _jetpack(board: Board) -> CheckResult:
    expected = f"JetPack {boards.TARGET_JETPACK}, L4T 36.3.0"
    if board.l4t is None:
        return CheckResult("JetPack", WARN, expected, f"cannot be seen (kernel {board.kernel})", MOUNT_THE_HOST)
    found = f"JetPack {board.jetpack or 'unknown'}, L4T {board.l4t}"
    fine = board.jetpack == boards.TARGET_JETPACK
    fix = f"flash the board with {expected}: the image's CUDA 12.2 belongs to that release"
    return CheckResult("JetPack", OK if fine else FAIL, expected, found, "" if fine else fix)


def _module(board: Board) -> CheckResult:
    expected = f"{boards.MODULES[boards.TARGET_MODULE]} ({boards.TARGET_MODULE})"
    if board.module is None:
        return CheckResult("module", WARN, expected, "cannot be seen", MOUNT_THE_HOST)
    if board.module == boards.TARGET_MODULE:
        return CheckResult("module", OK, expected, expected)
    found = f"{board.title} ({board.module})"
    return CheckResult(
        "module", WARN, expected, found, "nothing to mend: times of this board are not those of the contest's"
    )


def _mode(host: Host) -> CheckResult:
    mode = power.mode(host)
    if mode is None:
        return CheckResult("power mode", WARN, power.TARGET_MODE, "cannot be seen", MOUNT_THE_HOST)
    if mode.name == power.TARGET_MODE:
        return CheckResult("power mode", OK, power.TARGET_MODE, mode.name)
    fix = f"{power.mode_command(host)} (it asks for a reboot), or invoke setup --reboot"
    return CheckResult("power mode", FAIL, power.TARGET_MODE, mode.name, fix, mend=lambda: power.set_mode(host))


def _clocks(host: Host) -> CheckResult:
    locked = power.clocks_locked(host)
    if locked:
        return CheckResult("clocks", OK, "locked", "locked")
    found = "cannot be seen" if locked is None else "free to change"
    return CheckResult("clocks", WARN, "locked", found, power.CLOCKS_COMMAND, mend=lambda: power.lock_clocks(host))


def _fan(host: Host) -> CheckResult:
    profile = power.fan_profile(host)
    if profile in {"cool", None} or power.clocks_locked(host):
        return CheckResult("fan", OK, "cool or full", "at full speed" if profile != "cool" else profile)
    return CheckResult("fan", WARN, "cool or full", profile, "sudo jetson_clocks --fan")


def _temperature(host: Host) -> CheckResult:
    zones = [host.number(f"{zone}/temp") for zone in host.names("sys/class/thermal/thermal_zone*")]
    celsius = [zone / 1000 for zone in zones if zone is not None]
    expected = f"below {HOT_C} °C at rest"
    if not celsius:
        return CheckResult("temperature", WARN, expected, "cannot be read", MOUNT_THE_HOST)
    fine = max(celsius) < HOT_C
    fix = "" if fine else "let it cool; look after fan and air"
    return CheckResult("temperature", OK if fine else WARN, expected, f"{max(celsius):.0f} °C", fix)


def _swap(host: Host) -> CheckResult:
    lines = (host.read("proc/swaps") or "").splitlines()[1:]
    devices = [line.split()[0] for line in lines if line.split()]
    used_mib = sum(int(line.split()[3]) for line in lines if len(line.split()) > 3) / 1024
    zram = [device for device in devices if "zram" in device]
    found = f"{', '.join(devices)}; {used_mib:.0f} MiB used" if devices else "none"
    expected = "no zram, nothing swapped out"
    if zram:
        return CheckResult(
            "swap", WARN, expected, found, "sudo systemctl disable --now nvzramconfig (then reboot): zram takes memory"
        )
    if used_mib > 1:
        return CheckResult("swap", WARN, expected, found, "end other programs; sudo swapoff -a && sudo swapon -a")
    return CheckResult("swap", OK, expected, found)


DESKTOPS = {"Xorg", "Xwayland", "gnome-shell", "gdm3"}


def _desktop(host: Host) -> CheckResult:
    running = sorted({host.read(name) or "" for name in host.names("proc/[0-9]*/comm")} & DESKTOPS)
    fix = "sudo systemctl set-default multi-user.target && sudo reboot: about 800 MB more for the model"
    if running:
        return CheckResult("desktop", WARN, "none", f"running ({', '.join(running)})", fix)
    return CheckResult("desktop", OK, "none", "none")


def _docker(host: Host, board: Board) -> CheckResult:
    expected = "27.5.1, or a kernel with iptables' raw table; the runtime nvidia"
    if board.in_container:
        return CheckResult("docker", OK, expected, "this is a container")
    ran = host.run("docker", "info", "--format", "{{json .}}")
    if ran is None:
        return CheckResult(
            "docker", WARN, expected, "not installed", "sudo apt-get install docker.io nvidia-container-toolkit"
        )
    try:
        info = json.loads(ran.output[ran.output.index("{") :])
        version, runtimes = info["ServerVersion"], sorted(info["Runtimes"])
    except (ValueError, KeyError, TypeError):
        return CheckResult(
            "docker",
            WARN,
            expected,
            " ".join(ran.output.split())[:80],
            "sudo systemctl start docker; sudo usermod -aG docker $USER",
        )
    found = f"{version}, runtimes {', '.join(runtimes)}"
    if trouble := _raw_table(host, board, version):
        return CheckResult("docker", FAIL, expected, f"{found}; {trouble}", TAKE_AN_OLDER_DOCKER)
    if "nvidia" not in runtimes:
        fix = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
        return CheckResult("docker", FAIL, expected, found, fix)
    return CheckResult("docker", OK, expected, found)


TAKE_AN_OLDER_DOCKER = (
    "install 27.5.1 (moby#49557); or set DOCKER_INSECURE_NO_IPTABLES_RAW=1 for the daemon (28.0.2 or newer), which "
    "leaves published ports open to the local network"
)


def _raw_table(host: Host, board: Board, version: str) -> str:
    """Why this docker lacks the raw table on this kernel; empty where it does not, or where the daemon goes without."""
    major = re.match(r"\d+", version)
    if major is None or int(major[0]) < FIRST_WITH_RAW:
        return ""
    kernel = board.kernel or ""
    modules = [host.read(f"lib/modules/{kernel}/{name}") for name in ("modules.dep", "modules.builtin")]
    if any(RAW_MODULE in (each or "") for each in modules) or host.path(f"sys/module/{RAW_MODULE}").exists():
        return ""
    environment = host.run("systemctl", "show", "docker", "--property=Environment")
    if environment is not None and "DOCKER_INSECURE_NO_IPTABLES_RAW=1" in environment.output:
        return ""
    return f"kernel {kernel} has no {RAW_MODULE}, so docker build and published ports fail"


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
