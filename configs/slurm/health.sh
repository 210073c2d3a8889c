#!/bin/sh
# On idle boards, as root. It drains, and never resumes: that is for people. tests/cluster/hooks.py runs it on a test
# cluster, where a folder ($PIPELINE_HOST) stands for the board; no board has run it.
host=${PIPELINE_HOST:-}
export PATH="$host/usr/sbin:$host/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
drain() { scontrol update nodename="${SLURMD_NODENAME:-$(hostname -s)}" state=drain reason="$1"; exit 0; }
[ "$(df --output=pcent "$host/var/tmp" | tail -1 | tr -dc 0-9)" -lt 90 ] || drain "disk"
docker info >/dev/null 2>&1 || podman info >/dev/null 2>&1 || drain "containers"
[ "$(timedatectl show --property=NTPSynchronized --value 2>/dev/null)" != no ] || drain "clock"
exit 0
