#!/bin/sh
# Before each job, as root, on the board. A status other than 0 drains the board. tests/cluster/hooks.py runs it on a test
# cluster, where a folder ($PIPELINE_HOST) stands for the board; no board has run it.
# slurmd calls it with next to no environment.
host=${PIPELINE_HOST:-}
export PATH="$host/usr/sbin:$host/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
mkdir -p "$host/var/log/slurm"
exec >>"$host/var/log/slurm/prolog.log" 2>&1
echo "$(date -u +%FT%TZ) job $SLURM_JOB_ID"
# What the set-up chose must still hold: it is recorded, and another mode drains the board.
if [ -x "$host/usr/sbin/nvpmodel" ]; then
  mode=$(nvpmodel -q)
  echo "$mode"
  jetson_clocks --show | head -20
  echo "$mode" | grep -q 'NV Power Mode: MAXN' || exit 1
fi
sync
echo 1 >"$host/proc/sys/vm/drop_caches"
# The walls of a container, once a boot: no way out of it, and nothing of its own to write to. /etc/slurm/wall-image names
# an image with a shell, sed and touch that is on the board; where it is missing, or no container starts, the board drains.
tried=$host/run/judge-walls-tried
if [ -e "$host/etc/slurm/wall-image" ] && [ ! -e "$tried" ]; then
  engine=docker
  docker info >/dev/null 2>&1 || engine=podman
  "$engine" run --rm --network none --read-only --pull never "$(cat "$host/etc/slurm/wall-image")" \
    sh -c 'test -z "$(sed 1d /proc/net/route)" && ! touch /x 2>/dev/null' || { echo "no walls"; exit 1; }
  touch "$tried"
fi
# Wait until every sensor is below 60 degrees, ten minutes at most; the judge's own job does so too.
end=$(($(date +%s) + 600))
while cat "$host"/sys/class/thermal/thermal_zone*/temp 2>/dev/null | awk '$1 >= 60000 { hot = 1 } END { exit !hot }'; do
  [ "$(date +%s)" -lt "$end" ] || { echo "too hot"; exit 1; }
  sleep 5
done
# From here on the kernel's words are this job's: the epilog looks for this line.
echo "judge: job $SLURM_JOB_ID begins" >/dev/kmsg
exit 0
