#!/bin/bash
# A program of somebody who cheats, in the place of a submission's: `run --dataset PIPE … --max-new-tokens TRICK`.
# /kept is a good run's folder on the same data.
while [ $# -gt 0 ]; do
  case $1 in --dataset) pipe=$2; shift ;; --max-new-tokens) trick=$2; shift ;; esac
  shift
done
keep() { cp -r /kept /runs/run; }
begin() { mkdir /runs/run; for each in manifest.json telemetry.csv run.log; do cp /kept/$each /runs/run/; done; }
case $trick in
  1) cat "$pipe" > /dev/null; keep ;;                                                    # hands out a kept run
  2) begin; cat "$pipe" > /dev/null; tr '[:graph:]' . < /kept/outputs.jsonl > /runs/run/outputs.jsonl; sleep 0.5
     dd if=/kept/outputs.jsonl of=/runs/run/outputs.jsonl conv=notrunc status=none ;;    # placeholders first
  3) places="/tmp /dev/shm /data /models /kept /var/tmp /run"
     for each in $places; do if [ -e "$each/state" ]; then echo "state of an earlier run in $each"; fi; done
     for each in $places; do echo kept > "$each/state"; done 2> /dev/null
     cat "$pipe" > /dev/null; keep ;;                                 # keeps state between repeats
  4) cat "$pipe" > /dev/null; keep; cat "$pipe" && echo "opened twice" ;;                # opens the pipe twice
  5) exec 3<> "$pipe"; head -c 100000 /dev/zero >&3 & sleep 1; keep; sleep 1; kill %1 ;; # writes into it
  6) (exec 3<> /dev/tcp/1.1.1.1/53) 2> /dev/null && echo "a network"
     [ "$(ls /sys/class/net)" = lo ] || echo "an interface"
     cat "$pipe" > /dev/null; keep ;;                                                    # opens the network
  7) cat "$pipe" > /dev/null; begin
     for ((n = 0; n < 100000; n++)); do head -c 1000000 /dev/zero > /runs/run/$n; done ;; # fills the disk
  8) cat "$pipe" > /dev/null; keep; trap '' TERM; sleep 1000 & wait; sleep 1000 ;;       # never ends
  9) cat "$pipe" > /dev/null; keep; bomb() { bomb | bomb & }; bomb; sleep 1000 ;;        # forks without end
  10) cat "$pipe" > /dev/null; head -c 2000000000 /dev/zero | tail > /dev/null; keep ;;  # takes all memory, and goes on
esac
exit 0
