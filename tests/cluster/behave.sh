#!/bin/sh
# A submission's program that does what its image's BEHAVIOUR says: run --dataset PIPE …; /kept is a good run's folder.
while [ $# -gt 0 ]; do
  if [ "$1" = --dataset ]; then pipe=$2; fi
  shift
done
answer() { cat "$pipe" > /dev/null; sleep "$TOOK_S"; cp -r /kept /runs/run; }
case $BEHAVIOUR in
  good) answer ;;
  crash) echo "it fell over" >&2; exit 1 ;;
  hang) sleep 1000 ;;
  hog) cat "$pipe" > /dev/null; awk 'BEGIN { s = "0123456789"; while (1) s = s s }'; cp -r /kept /runs/run ;;
  form) cat "$pipe" > /dev/null; sleep "$TOOK_S"; mkdir /runs/run
    cp /kept/manifest.json /kept/telemetry.csv /kept/run.log /runs/run/
    echo "nothing that pipe() returns" > /runs/run/outputs.jsonl ;;
  answers) cat "$pipe" > /dev/null; sleep "$TOOK_S"; cp -r /kept-wrong /runs/run ;;
  replay) cp -r /kept /runs/run; sleep 0.3; cat "$pipe" > /dev/null; sleep "$TOOK_S" ;;
  nosy) answer
    for each in /etc/slurm /run/munge /var/run/munge /tmp/judge; do if [ -e $each ]; then echo "a hole: $each"; fi; done
    if command -v sbatch; then echo "a hole: sbatch"; fi
    [ "$(ls /sys/class/net)" = lo ] || echo "a hole: a network" ;;
esac
exit 0
