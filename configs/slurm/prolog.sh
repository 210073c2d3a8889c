#!/bin/sh
# Before each job, as root, on the board. An example: no board has run it. A status other than 0 drains the board.
# slurmd calls it with next to no environment.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
log=/var/log/slurm/prolog.log
{
  date -u +%FT%TZ
  # What the set-up chose must still hold: it is recorded, and another mode drains the board.
  nvpmodel -q 2>/dev/null | tail -2
  jetson_clocks --show 2>/dev/null | head -20
} >>"$log"
[ ! -x /usr/sbin/nvpmodel ] || nvpmodel -q 2>/dev/null | grep -q MAXN || exit 1
sync
echo 1 >/proc/sys/vm/drop_caches
# The walls of a container, once a boot: one that reaches the network is no wall.
tried=/run/judge-walls-tried
if [ ! -e "$tried" ] && command -v docker >/dev/null && [ -e /etc/slurm/wall-image ]; then
  image=$(cat /etc/slurm/wall-image)
  docker run --rm --network none --read-only --pull never "$image" \
    sh -c '(exec 3<>/dev/tcp/1.1.1.1/53) 2>/dev/null || touch /x 2>/dev/null' && exit 1
  touch "$tried"
fi
# Wait until every sensor is below 60 degrees, ten minutes at most; the judge's own job does so too.
end=$(($(date +%s) + 600))
while cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null | awk '$1 >= 60000 { hot = 1 } END { exit !hot }'; do
  [ "$(date +%s)" -lt "$end" ] || exit 1
  sleep 5
done
exit 0
