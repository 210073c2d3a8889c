"""How many bytes a device still has for us, by the count of whoever manages its memory.

* A GPU with memory of its own: what CUDA reports.
* A GPU that shares the machine's memory (Jetson): what the kernel calls available. CUDA counts the page cache as
  taken, though the kernel gives it up where memory is needed.
* A CPU: what the kernel calls available, or what the container's limit leaves, whichever is less.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from pipeline.engine.memory import Place

ROOT = Path("/")


def free_bytes(device: Place) -> int:
    """Bytes of the device's memory that are free in this moment."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415 - a CPU's memory needs none

        place = torch.device(str(device))
        if not torch.cuda.get_device_properties(place).is_integrated:
            return torch.cuda.mem_get_info(place)[0]
    available = psutil.virtual_memory().available
    room = container_room_bytes()
    return available if room is None else min(available, room)


def container_room_bytes(root: Path = ROOT) -> int | None:
    """Bytes that the memory limit of our control group leaves (`docker run --memory`); None without a limit.

    Page cache that the group could drop counts as free, as it does in the kernel's own reckoning.
    """
    rooms = [_room(group, *names) for group in _groups(root) for names in (V2, V1)]
    return min((room for room in rooms if room is not None), default=None)


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _groups(root: Path) -> list[Path]:
    """Ours and all above it: each may limit us. In a container the file system shows our own as the top."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    groups = []
    for top in (root / "sys/fs/cgroup", root / "sys/fs/cgroup/memory"):
        groups.append(top)
        for path in {line.split(":", 2)[2].strip("/") for line in lines}:  # hierarchy:controllers:/path
            parts = path.split("/")
            groups += [top.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
    return groups


def _room(group: Path, limit_name: str, used_name: str, cache_name: str) -> int | None:
    try:
        limit = int((group / limit_name).read_text(encoding="ascii"))
        used = int((group / used_name).read_text(encoding="ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    if limit >= 2**60:  # version 1 writes no limit as a huge number
        return None
    return max(0, limit - used + int(stat.get(cache_name, 0)))
