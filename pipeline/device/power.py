"""Power mode, clocks and fan, through the board's own tools: nvpmodel and jetson_clocks.

A power mode that powers other parts of the GPU needs a boot: nvpmodel then asks on its standard input, and anything but
"yes" leaves the mode as it was, with status 234. Clocks are lost at boot; what they were before the lock is stored
where a boot loses it too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.device.host import Host, Ran
from pipeline.errors import EnvironmentProblem, ResourceError

TARGET_MODE = "MAXN"
"""The contest's power mode."""

REFUSED_REBOOT = 234
"""nvpmodel's status when it was not allowed to reboot."""

STORED_CLOCKS = "/run/phi3-pipeline-clocks.conf"
"""On the host. /run is empty after a boot, as the lock itself is gone then."""

Outcome = Literal["was so", "done", "needs a reboot", "rebooting"]


@dataclass(frozen=True)
class Mode:
    id: int
    name: str


def modes(host: Host) -> dict[str, int]:
    """Name to id, of the board's own list; ids differ from board to board, names do not."""
    found = re.findall(
        r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", host.read("etc/nvpmodel.conf") or "", re.MULTILINE
    )
    return {name: int(number) for number, name in found}


def mode(host: Host) -> Mode | None:
    """The power mode now; None where it cannot be seen. nvpmodel prints it in two lines, behind warnings."""
    ran = host.run("nvpmodel", "-q")
    found = re.search(r"^NV Power Mode: (\S+)\n(\d+)$", ran.output, re.MULTILINE) if ran and ran.status == 0 else None
    if found:
        return Mode(int(found[2]), found[1])
    stored = re.search(r"pmode:(\d+)", host.read("var/lib/nvpmodel/status") or "")
    by_id = {number: name for name, number in modes(host).items()}
    return Mode(int(stored[1]), by_id[int(stored[1])]) if stored and int(stored[1]) in by_id else None


def set_mode(host: Host, *, reboot: bool = False) -> Outcome:
    """Bring the board into MAXN. Only `reboot` lets it boot, at once.

    Raises EnvironmentProblem: E301 the board lists no MAXN, E302 nvpmodel failed; ResourceError (R501) without rights.
    """
    now = mode(host)
    if now is not None and now.name == TARGET_MODE:
        return "was so"
    number = modes(host).get(TARGET_MODE)
    if number is None:
        raise EnvironmentProblem(
            "E301",
            f"this board lists no power mode {TARGET_MODE}",
            where=host.path("etc/nvpmodel.conf"),
            expected=f"< POWER_MODEL ID=… NAME={TARGET_MODE} >",
            actual=", ".join(modes(host)) or "no list of modes",
            fix="look at the board's modes with: sudo nvpmodel -p --verbose",
        )
    _need_rights(host, mode_command(host))
    ran = host.run("nvpmodel", "-m", str(number), answer="yes\n" if reboot else "no\n")
    if ran is not None and _asks_for_reboot(ran):
        return "rebooting" if reboot else "needs a reboot"
    now = mode(host)
    if now is None or now.name != TARGET_MODE:
        raise EnvironmentProblem(
            "E302",
            "nvpmodel did not change the power mode",
            where=f"nvpmodel -m {number}",
            expected=TARGET_MODE,
            actual=_outcome(ran),
            fix=f"on the host: {mode_command(host)}",
        )
    return "done"


def mode_command(host: Host) -> str:
    """The command that brings the host into the target mode, for people to type."""
    return f"sudo nvpmodel -m {modes(host).get(TARGET_MODE, 0)}"


def clocks_locked(host: Host) -> bool | None:
    """Whether GPU and CPUs are held at one frequency; None where that cannot be seen."""
    pairs = [(f"{name}/min_freq", f"{name}/max_freq") for name in gpu_folders(host)]
    cpus = host.names("sys/devices/system/cpu/cpufreq/policy*")
    pairs += [(f"{name}/scaling_min_freq", f"{name}/scaling_max_freq") for name in cpus]
    seen = [(host.number(low), host.number(high)) for low, high in pairs]
    if not gpu_folders(host) or any(None in pair for pair in seen):
        return None
    return all(low == high for low, high in seen)


def gpu_folders(host: Host) -> list[str]:
    """The devfreq folders of the GPU: 17000000.gpu on JetPack 6, 17000000.ga10b before."""
    return [name for pattern in ("gpu", "ga10b") for name in host.names(f"sys/class/devfreq/*{pattern}*")]


def lock_clocks(host: Host) -> Outcome:
    """Hold all clocks at their highest and the fan with them; what was before can be brought back by `restore_clocks`.

    Raises EnvironmentProblem (E303), ResourceError (R501).
    """
    if clocks_locked(host):
        return "was so"
    _need_rights(host, CLOCKS_COMMAND)
    if host.read(STORED_CLOCKS) is None:  # a second lock must not store what the first one set
        _jetson_clocks(host, "--store", STORED_CLOCKS)
    _jetson_clocks(host)
    _jetson_clocks(host, "--fan")
    return "done"


def restore_clocks(host: Host) -> Outcome:
    """Clocks and fan as they were before `lock_clocks`. Raises EnvironmentProblem (E303), ResourceError (R501)."""
    if host.read(STORED_CLOCKS) is None:
        return "was so"
    _need_rights(host, f"sudo jetson_clocks --restore {STORED_CLOCKS}")
    _jetson_clocks(host, "--restore", STORED_CLOCKS)
    host.path(STORED_CLOCKS).unlink(missing_ok=True)
    return "done"


CLOCKS_COMMAND = f"sudo jetson_clocks --store {STORED_CLOCKS} && sudo jetson_clocks && sudo jetson_clocks --fan"


def fan_profile(host: Host) -> str | None:
    """The fan's profile at boot, cool or quiet."""
    found = re.search(r"FAN_DEFAULT_PROFILE\s+(\w+)", host.read("etc/nvfancontrol.conf") or "")
    return found[1] if found else None


def _asks_for_reboot(ran: Ran) -> bool:
    return ran.status == REFUSED_REBOOT or "Reboot required" in ran.output


def _jetson_clocks(host: Host, *arguments: str) -> None:
    ran = host.run("jetson_clocks", *arguments, timeout_s=120)
    # It ends with 0 after some of its errors.
    if ran is None or ran.status != 0 or "error" in ran.output.lower():
        raise EnvironmentProblem(
            "E303",
            "jetson_clocks failed",
            where=" ".join(("jetson_clocks", *arguments)),
            actual=_outcome(ran),
            fix=f"on the host: {CLOCKS_COMMAND}",
        )


def _need_rights(host: Host, command: str) -> None:
    if not host.may_change:
        raise ResourceError(
            "R501",
            "only root may change the board's settings",
            actual="not root",
            fix=f"on the host: {command}",
        )


def _outcome(ran: Ran | None) -> str:
    return "there is no such command here" if ran is None else f"status {ran.status}: {ran.output[-300:] or 'no words'}"
