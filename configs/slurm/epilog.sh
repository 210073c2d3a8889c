#!/bin/sh
# After each job, as root, on the board. Keeps what the kernel said of memory since the job began, for people: the judge
# reads the kernel's log itself. tests/cluster/hooks.py runs it; no board has run it.
host=${PIPELINE_HOST:-}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p "$host/var/log/slurm"
# Behind the last line of the prolog of this job: numbers come again after a crash of the controller.
dmesg | awk -v mark="judge: job $SLURM_JOB_ID begins" -v job="$SLURM_JOB_ID" '
  substr($0, length($0) - length(mark) + 1) == mark { count = 0; begun = 1; next }
  begun && tolower($0) ~ /oom-kill|out of memory|killed process/ { lines[count++] = $0 }
  END { for (i = 0; i < count && i < 20; i++) print "job " job " " lines[i] }' >>"$host/var/log/slurm/memory.log"
exit 0
