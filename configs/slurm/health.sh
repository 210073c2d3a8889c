#!/bin/sh
# On idle boards, as root. An example: no board has run it. It drains, and never resumes: that is for people.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
drain() { scontrol update nodename="$(hostname -s)" state=drain reason="$1"; exit 0; }
[ "$(df --output=pcent /var/tmp | tail -1 | tr -dc 0-9)" -lt 90 ] || drain "disk"
docker info >/dev/null 2>&1 || podman info >/dev/null 2>&1 || drain "containers"
[ "$(timedatectl show --property=NTPSynchronized --value 2>/dev/null)" != no ] || drain "clock"
exit 0
