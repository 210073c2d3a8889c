"""A Jetson that is a folder: the files that are read, and the board's own tools as scripts.

nvpmodel's words and statuses are as people reported them from boards: its two lines, the reboot prompt, the refusal
with 234. The scripts run through a `chroot` of ours, first on the PATH, that changes no root: command lines are real.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.device.host import Host

L4T = "# R{major} (release), REVISION: {minor}, GCID: 36191598, BOARD: generic, EABI: aarch64, DATE: Mon May  6 2024"
MODES = {"MAXN": (0, 128), "MODE_15W": (1, 248), "MODE_30W": (2, 240), "MODE_40W": (3, 128)}
"""Name to id and TPC mask, of the 32 GB module: a change of the mask needs a boot."""

CHROOT = '#!/bin/bash\nroot=$1 tool=$2; shift 2\nFAKE_ROOT=$root exec "$root$tool" "$@"\n'

NVPMODEL = r"""#!/bin/bash
status=$FAKE_ROOT/var/lib/nvpmodel/status
now=$(sed 's/pmode:0*\([0-9]\)/\1/' "$status")
entry() { sed -n "s/^< POWER_MODEL ID=$1 NAME=\(.*\) >.*/\1/p" "$FAKE_ROOT/etc/nvpmodel/nvpmodel_p3701_0004.conf"; }
mask() { sed -n "/ID=$1 /,/^$/s/^TPC_PG_MASK \(.*\)/\1/p" "$FAKE_ROOT/etc/nvpmodel/nvpmodel_p3701_0004.conf"; }
[ -e "$FAKE_ROOT/nvpmodel-hangs" ] && exec sleep 60
case $1 in
-q) echo 'NVPM WARN: fan mode is not set!'; echo "NV Power Mode: $(entry "$now")"; echo "$now" ;;
-m)
  if [ -e "$FAKE_ROOT/nvpmodel-refuses" ]; then
    echo 'NVPM ERROR: Error writing to /sys/devices/platform/gpu.0/tpc_pg_mask'; exit 255
  fi
  echo 'NVPM WARN: Golden image context is already created'
  if [ "$(mask "$now")" != "$(mask "$2")" ]; then
    echo "NVPM WARN: Reboot required for changing to this power mode: $2"
    echo 'NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:'
    read -r answer
    case $answer in
    YES|yes) echo 'NVPM WARN: rebooting'; echo "pmode:000$2" > "$status"; touch "$FAKE_ROOT/rebooted" ;;
    *) echo 'NVPM ERROR: optMask is 1, no request for power mode'; exit 234 ;;
    esac
  else
    echo "pmode:000$2" > "$status"
  fi ;;
esac
"""

JETSON_CLOCKS = r"""#!/bin/bash
echo "$*" >> "$FAKE_ROOT/jetson_clocks.log"
if [ -e "$FAKE_ROOT/jetson_clocks-fails" ]; then
  echo "Error: Failed to write to /sys/kernel/debug/bpmp/debug/clk/emc/rate!"; exit 0
fi
gpu=$FAKE_ROOT/sys/class/devfreq/17000000.gpu cpus=$FAKE_ROOT/sys/devices/system/cpu/cpufreq
case $1 in
--store) { echo "gpu:$(cat "$gpu/min_freq")"; cat "$cpus"/policy0/scaling_min_freq; } > "$FAKE_ROOT$2" ;;
--restore)
  sed -n 's/gpu://p' "$FAKE_ROOT$2" > "$gpu/min_freq"
  for cpu in "$cpus"/policy*; do tail -n 1 "$FAKE_ROOT$2" > "$cpu/scaling_min_freq"; done ;;
--fan) echo 255 > "$FAKE_ROOT/fan" ;;
'')
  cp "$gpu/max_freq" "$gpu/min_freq"
  for cpu in "$cpus"/policy*; do cp "$cpu/scaling_max_freq" "$cpu/scaling_min_freq"; done ;;
esac
"""

DOCKER = """#!/bin/bash
echo '{"ServerVersion":"27.5.1","Runtimes":{"runc":{"path":"runc"},"nvidia":{"path":"nvidia-container-runtime"}}}'
"""

NO_COMPILER = "#!/bin/bash\necho error: this board has no compiler; exit 1\n"

HWMON = {
    "hwmon0/name": "pwmfan",
    "hwmon1/name": "ina3221",
    "hwmon1/in1_label": "VDD_GPU_SOC",
    "hwmon1/in1_input": "20000",
    "hwmon1/curr1_input": "1200",
    "hwmon1/curr1_max_alarm": "0",
    "hwmon1/curr1_crit_alarm": "0",
    "hwmon1/in2_label": "VDD_CPU_CV",
    "hwmon1/in2_input": "20000",
    "hwmon1/curr2_input": "150",
    "hwmon1/curr2_max_alarm": "0",
    "hwmon1/curr2_crit_alarm": "0",
    "hwmon1/in3_label": "VIN_SYS_5V0",
    "hwmon1/in3_input": "5000",
    "hwmon1/curr3_input": "1000",
    "hwmon1/in7_label": "Sum of shunt voltages",
    "hwmon1/in7_input": "77",
    "hwmon2/name": "ina3221",
    "hwmon2/in1_label": "NC",
    "hwmon2/in2_label": "VDDQ_VDD2_1V8AO",
    "hwmon2/in2_input": "20000",
    "hwmon2/curr2_input": "50",
    "hwmon2/in3_label": "NC",
    "hwmon3/name": "soctherm_oc",
    "hwmon3/oc1_event_cnt": "0",
    "hwmon3/oc2_event_cnt": "4",
    "hwmon3/oc3_event_cnt": "0",
}
WATTS = 24 + 3 + 5 + 1

COOLING = (
    *("pwm-fan", "cpufreq-cpu0", "devfreq-17000000.gpu", "cpufreq-cpu4"),
    *(f"{part}-throttle-alert" for part in ("cpu", "gpu", "cv0", "cv1", "cv2", "soc0", "soc1", "soc2")),
    "hot-surface-alert",
)
"""Cooling devices as L4T 36.3 has them: the last is a notice at 70 °C, which slows nothing."""

ZONES = {"cpu-thermal": "51500", "gpu-thermal": "49062", "tj-thermal": "52000"}
UNREADABLE_ZONE = "cv0-thermal"
"""Powered down: the kernel answers EAGAIN. Here a folder lies where the file would be, which cannot be read either."""


@dataclass(frozen=True)
class FakeBoard:
    root: Path
    bin: Path
    """To be first on the PATH."""

    @property
    def host(self) -> Host:
        return Host(self.root)

    def write(self, name: str, text: object) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
        return path

    def remove(self, name: str) -> None:
        path = self.root / name
        for below in sorted(path.rglob("*"), reverse=True) if path.is_dir() else ():
            below.rmdir() if below.is_dir() else below.unlink()
        path.rmdir() if path.is_dir() else path.unlink()

    def environment(self) -> dict[str, str]:
        path = f"{self.bin}:{os.environ['PATH']}"
        return {"PIPELINE_HOST": str(self.root), "PATH": path, "CUDA_HOME": str(self.bin.parent)}

    def boot_into(self, mode: str) -> None:
        self.write("var/lib/nvpmodel/status", f"pmode:000{MODES[mode][0]}")

    def lock_clocks(self, locked: bool = True) -> None:
        self.write("sys/class/devfreq/17000000.gpu/min_freq", 930750000 if locked else 306000000)
        for cpu in (0, 4):
            self.write(f"sys/devices/system/cpu/cpufreq/policy{cpu}/scaling_min_freq", 2188800 if locked else 115200)


def make(folder: Path, *, module: str = "p3701-0004", l4t: str = "36.3.0", mode: str = "MODE_30W") -> FakeBoard:
    """A board as it is after flashing, in the power mode that the 32 GB module starts with."""
    board = FakeBoard(folder / "board", folder / "bin")
    major, minor = l4t.split(".", 1)
    board.write("etc/nv_tegra_release", L4T.format(major=major, minor=minor))
    board.write("proc/sys/kernel/osrelease", "5.15.136-tegra")
    board.write("proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    board.write("proc/device-tree/compatible", f"nvidia,p3737-0000+{module}\0nvidia,{module}\0nvidia,tegra234\0")
    board.write(
        "proc/meminfo",
        "MemTotal: 31433728 kB\nMemFree: 29000000 kB\nMemAvailable: 30000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB",
    )
    board.write("proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority")
    board.write("proc/stat", "cpu  1000 0 500 80000 20 0 0 0 0 0")
    board.write("lib/modules/5.15.136-tegra/modules.dep", "kernel/net/ipv4/netfilter/iptable_nat.ko: ip_tables.ko")
    board.write("lib/modules/5.15.136-tegra/modules.builtin", "kernel/fs/ext4/ext4.ko")
    (board.root / "proc/1").mkdir()
    board.write("proc/1/comm", "systemd")
    entries = [f"< POWER_MODEL ID={i} NAME={name} >\nTPC_PG_MASK {mask}\n" for name, (i, mask) in MODES.items()]
    board.write("etc/nvpmodel/nvpmodel_p3701_0004.conf", "\n".join(entries))
    (board.root / "etc/nvpmodel.conf").symlink_to("/etc/nvpmodel/nvpmodel_p3701_0004.conf")
    board.write("etc/group", "root:x:0:\nvideo:x:44:me\nbackup:x:34:\nrender:x:104:me\ni2c:x:116:me")
    board.write("etc/nvfancontrol.conf", "POLLING_INTERVAL 2\n<FAN 1>\n\tFAN_DEFAULT_PROFILE quiet\n")
    board.write("etc/systemd/system/placeholder", "")
    (board.root / "etc/systemd/system/default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    for name, text in HWMON.items():
        board.write(f"sys/class/hwmon/{name}", text)
    for number, (zone, temperature) in enumerate(ZONES.items()):
        board.write(f"sys/class/thermal/thermal_zone{number}/type", zone)
        board.write(f"sys/class/thermal/thermal_zone{number}/temp", temperature)
    board.write("sys/class/thermal/thermal_zone9/type", UNREADABLE_ZONE)
    (board.root / "sys/class/thermal/thermal_zone9/temp").mkdir()
    for number, device in enumerate(COOLING):
        board.write(f"sys/class/thermal/cooling_device{number}/type", device)
        board.write(f"sys/class/thermal/cooling_device{number}/cur_state", 3 if device == "pwm-fan" else 0)
    for name, hertz in (("cur_freq", 930750000), ("max_freq", 930750000)):
        board.write(f"sys/class/devfreq/17000000.gpu/{name}", hertz)
    for cpu in (0, 4):
        for name in ("scaling_cur_freq", "scaling_max_freq"):
            board.write(f"sys/devices/system/cpu/cpufreq/policy{cpu}/{name}", 2188800)
    board.lock_clocks(False)
    board.boot_into(mode)
    (board.root / "run").mkdir()
    for place, text in {
        "usr/sbin/nvpmodel": NVPMODEL,
        "usr/bin/jetson_clocks": JETSON_CLOCKS,
        "usr/bin/docker": DOCKER,
        "../bin/chroot": CHROOT,
        "../bin/nvcc": NO_COMPILER,
    }.items():
        board.write(place, text.rstrip("\n")).chmod(0o755)
    return board
