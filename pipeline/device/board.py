"""The machine: L4T and JetPack, the module, its memory.

The module is read from the device tree, never guessed from memory: the first AGX Orin developer kit (P3701-0000) has
32 GB too, but 16 streaming multiprocessors and 12 cores, where the 32 GB module (P3701-0004) has 14 and 8.
Docker hides /sys/firmware, and with it the device tree, from a container without the host's root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.device.host import Host

JETPACKS = {
    "36.2": "6.0 DP",
    "36.3": "6.0",
    "36.4": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5": "6.2.2",
}
"""L4T release to JetPack, for all releases of JetPack 6 that were known in November 2026."""

MODULES = {
    "p3701-0000": "Jetson AGX Orin developer kit",
    "p3701-0004": "Jetson AGX Orin 32GB",
    "p3701-0005": "Jetson AGX Orin 64GB",
    "p3701-0008": "Jetson AGX Orin Industrial",
}

SHOWN_DEVICE_TREE = "/run/device-tree"
"""The folder that our docker commands mount the device tree at, since its own is hidden in a container."""

TARGET_JETPACK, TARGET_MODULE = "6.0", "p3701-0004"
"""The contest's device."""

TARGET_CAPABILITY = (8, 7)
"""Its GPU's compute capability."""


@dataclass(frozen=True)
class Board:
    is_jetson: bool
    l4t: str | None
    """The release, such as "36.3.0"."""
    jetpack: str | None
    module: str | None
    """The part number in the device tree, such as "p3701-0004"."""
    model: str | None
    """The device tree's own words."""
    kernel: str | None
    memory_bytes: int | None
    in_container: bool
    """Whether this is a container that does not see its host."""

    @property
    def title(self) -> str:
        if not self.is_jetson:
            return "not a Jetson"
        known = MODULES.get(self.module or "")
        return known or self.module or self.model or "a Jetson whose module cannot be seen"


def look(host: Host) -> Board:
    """Read it all; what cannot be read is None."""
    compatible = _device_tree(host, "compatible") or ""
    parts = compatible.split("\0")
    module = next((found[0] for part in parts if (found := re.findall(r"p3701-\d{4}|p3767-\d{4}", part))), None)
    l4t, kernel = _l4t(host), host.read("proc/sys/kernel/osrelease")
    tegra = "nvidia,tegra" in compatible or (kernel or "").endswith("-tegra")
    return Board(
        is_jetson=l4t is not None or tegra,
        l4t=l4t,
        jetpack=jetpack_of(l4t),
        module=module,
        model=_device_tree(host, "model"),
        kernel=kernel,
        memory_bytes=memory(host).get("MemTotal"),
        in_container=host.is_a_container,
    )


def memory(host: Host) -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", host.read("proc/meminfo") or "", re.MULTILINE)
    return {name: int(number) * 1024 for name, number in found}


def jetpack_of(l4t: str | None) -> str | None:
    """The JetPack of an L4T release; of a point release of 36 that is not known here, "6.x"."""
    if l4t is None:
        return None
    return JETPACKS.get(l4t.removesuffix(".0"), "6.x" if l4t.startswith("36.") else None)


def _device_tree(host: Host, name: str) -> str | None:
    # /proc/device-tree is a link; within a mounted root it is the second name that surely leads there.
    places = ("proc/device-tree", "sys/firmware/devicetree/base", SHOWN_DEVICE_TREE)
    return next((text for place in places if (text := host.read(f"{place}/{name}"))), None)


def _l4t(host: Host) -> str | None:
    """The L4T release, from a line such as `# R36 (release), REVISION: 3.0, GCID: …`."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", host.read("etc/nv_tegra_release") or "")
    return f"{found[1]}.{found[2]}" if found else None
