"""A recording of the board during a timed section: a thread reads every channel at most twice a second.

Faster would see the same values again: an INA3221 averages 512 samples, about 430 ms. The thread's own processor time
is counted and goes into the manifest. Samples stay in memory until the clock has stopped.
"""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from loguru import logger

from pipeline import files
from pipeline.device import channels
from pipeline.device.channels import Channel
from pipeline.device.host import Host
from pipeline.errors import ResourceError

PERIOD_S = 0.5
NAME = "telemetry.csv"
FEWEST_FOR_ENERGY = 4
"""Samples of the power rails; from fewer nothing can be integrated."""


@dataclass(frozen=True)
class Sample:
    at_s: float
    values: tuple[float | None, ...]
    """One a channel; None where it gave none."""


@dataclass(frozen=True)
class Work:
    """Processor time up to a moment, in clock ticks over all cores."""

    all: int
    busy: int
    ours: int


@dataclass(frozen=True)
class Recording:
    channels: tuple[Channel, ...]
    samples: tuple[Sample, ...]
    elapsed_s: float
    cost_s: float
    """Processor time of the sampling itself."""
    others_share: float | None
    """Share of all the cores' time that other processes used; None where /proc/stat does not say."""

    def values(self, name: str) -> list[float]:
        """The values of a channel, in order; samples without one are left out."""
        index = [channel.name for channel in self.channels].index(name)
        return [value for sample in self.samples if (value := sample.values[index]) is not None]

    def of_kind(self, kind: str) -> dict[str, list[float]]:
        return {channel.name: self.values(channel.name) for channel in self.channels if channel.kind == kind}

    def coverage(self) -> dict[str, float]:
        """Channel to the share of samples in which it gave a value; a kind without any channel has none."""
        missing = {kind: 0.0 for kind in channels.KINDS if not self.of_kind(kind)}
        shares = {c.name: round(len(self.values(c.name)) / max(1, len(self.samples)), 4) for c in self.channels}
        return {**shares, **missing}

    def missing(self) -> dict[str, str]:
        """Channels and kinds that gave nothing at all, and why."""
        kinds = {kind: why for kind, why in channels.KINDS.items() if not self.of_kind(kind)}
        silent = {c.name: "it is there and cannot be read" for c in self.channels if not self.values(c.name)}
        return {**kinds, **silent}

    def energy_j(self) -> float | None:
        """All power rails over the recording, by trapezoids; None when a rail is missing from a sample, or too few."""
        rails = [index for index, channel in enumerate(self.channels) if channel.kind == "power"]
        if not rails or len(self.samples) < FEWEST_FOR_ENERGY:
            return None
        sums, times = [], [sample.at_s for sample in self.samples]
        for sample in self.samples:
            watts = [value for index in rails if (value := sample.values[index]) is not None]
            if len(watts) < len(rails):
                return None
            sums.append(sum(watts))
        return sum((b - a) * (p + q) / 2 for a, b, p, q in zip(times, times[1:], sums, sums[1:], strict=False))

    def describe(self, prompts: int) -> dict[str, Any]:
        """For the manifest; `prompts` were answered in it, repeats counted."""
        energy_j = self.energy_j()
        return {
            "samples": len(self.samples),
            "elapsed_s": self.elapsed_s,
            "cost_share": self.cost_s / self.elapsed_s,
            "others_share": self.others_share,
            "coverage": self.coverage(),
            "missing": self.missing(),
            "energy_j": energy_j,
            "energy_j_per_prompt": energy_j / prompts if energy_j is not None and prompts else None,
        }

    def write(self, folder: Path) -> None:
        """telemetry.csv: a line a sample, a column a channel, empty where it gave nothing."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["time_s", *(channel.name for channel in self.channels)])
        for sample in self.samples:
            table.writerow([f"{sample.at_s:.3f}", *("" if v is None else f"{v:.10g}" for v in sample.values)])
        with files.write_atomically(folder / NAME, durable=False) as file:
            file.write(text.getvalue().encode())


class Telemetry:
    """Records from `with` to its end, and then writes it to the folder, also when what lay between failed."""

    def __init__(self, host: Host, folder: Path, period_s: float = PERIOD_S) -> None:
        self.host, self.folder, self.period_s = host, folder, period_s
        self.recording: Recording | None = None
        self.used_elsewhere_s = 0.0
        """Processor time of what is timed, where that is no child of this process: a container's."""
        self.start_s = time.perf_counter()
        """The begin of the recording, by the clock that all intervals are measured with; set anew by `with`."""
        self._channels = tuple(channels.find(host))
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._cost_s = 0.0
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Telemetry:
        self.start_s, self._before = time.perf_counter(), work(self.host)
        self._take()  # one before the clock: an interval has two ends
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._take()
        self.recording = Recording(
            channels=self._channels,
            samples=tuple(self._samples),
            elapsed_s=time.perf_counter() - self.start_s,
            cost_s=self._cost_s,
            others_share=others(self._before, work(self.host), self.used_elsewhere_s),
        )
        try:
            self.recording.write(self.folder)
        except (ResourceError, OSError) as trouble:  # a run is worth more than its telemetry
            logger.info("the telemetry could not be written: {}", trouble)

    def _run(self) -> None:
        start_s = time.thread_time()
        while not self._stop.wait(self.period_s):
            self._take()
        self._cost_s = time.thread_time() - start_s

    def _take(self) -> None:
        at_s = time.perf_counter() - self.start_s
        self._samples.append(Sample(at_s, tuple(_value(channel) for channel in self._channels)))


def _value(channel: Channel) -> float | None:
    """A thermal zone of a part that is powered down answers EAGAIN: no value, and no reason to stop."""
    try:
        return channel.read()
    except (OSError, ValueError):
        return None


def work(host: Host) -> Work | None:
    """From /proc/stat: user nice system idle iowait irq softirq steal …"""
    line = (host.read("proc/stat") or "").split("\n", 1)[0].split()[1:9]
    try:
        ticks = [int(word) for word in line]
        idle = ticks[3] + ticks[4]
    except (ValueError, IndexError):
        return None
    spent = os.times()
    ours = (spent.user + spent.system + spent.children_user + spent.children_system) * os.sysconf("SC_CLK_TCK")
    return Work(all=sum(ticks), busy=sum(ticks) - idle, ours=int(ours))


def others(before: Work | None, after: Work | None, elsewhere_s: float = 0.0) -> float | None:
    """The share of all cores' time that other programs used between two readings; None where that cannot be told.

    `elsewhere_s` is processor time of what is timed and no child of this process.
    """
    if before is None or after is None or after.all <= before.all:
        return None
    used = (after.busy - before.busy) - (after.ours - before.ours) - elsewhere_s * os.sysconf("SC_CLK_TCK")
    return max(0.0, used / (after.all - before.all))
