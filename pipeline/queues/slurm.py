"""Slurm as a queue, by sbatch, squeue, scontrol and scancel, and nothing else of it.

Neither sacct (it needs a database) nor what Slurm thinks became of a job: files say that. A job is known by its name,
since after a crash of its controller Slurm gives a lost job's number to the next one.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from math import ceil

from pipeline.errors import EnvironmentProblem, UsageError
from pipeline.queues.queue import Job, Listed, Node, QueueSilent

PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel")
PATIENCE_S = 30.0
NICE = 1000
"""What does not come first is this much behind what does."""
HANDED_ON = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "PIPELINE_MODELS", "PIPELINE_DATA")
"""Environment variables that a job gets: none that could hold a secret."""
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED"}
UNUSABLE = re.compile(r"DOWN|DRAIN|FAIL|MAINT|NOT_RESPONDING|UNKNOWN|POWER|INVAL|REBOOT|\*")


class Slurm:
    def __init__(self, partition: str | None, passed: tuple[str, ...] = ()) -> None:
        """Raises EnvironmentProblem (E631 no Slurm, E632 its controller does not answer), UsageError (U731)."""
        self.handed_on = HANDED_ON + passed
        try:
            known = _called("scontrol", "--oneliner", "show", "partition")
        except FileNotFoundError as error:
            raise EnvironmentProblem(
                "E631",
                "there is no Slurm here",
                where=os.environ.get("PATH"),
                expected=", ".join(PROGRAMS),
                fix="install slurm-client and give it the farm's slurm.conf, or judge on this machine: --on local",
            ) from error
        except QueueSilent as error:
            raise EnvironmentProblem(
                "E632",
                "Slurm's controller does not answer",
                where="scontrol show partition",
                actual=error,
                fix="look at it with: scontrol ping",
            ) from error
        by_name = {_field(line, "PartitionName"): line for line in known.splitlines() if line}
        default = [name for name, line in by_name.items() if _field(line, "Default") == "YES"]
        self.partition = partition or (default[0] if default else "")
        if self.partition not in by_name:
            raise UsageError(
                "U731",
                "there is no such partition",
                where="--partition",
                expected=", ".join(sorted(by_name)),
                actual=self.partition or "none, and none is the default",
                fix="name one of these",
            )
        self._most_minutes = _minutes(_field(by_name[self.partition], "MaxTime"))

    def submit(self, job: Job) -> None:
        if any(each.name == job.name for each in self.jobs()):
            return
        # All of a small environment. --export with names would have slurmd start a login shell on the board first,
        # which takes from seconds to a minute there, and Slurm takes the job for lost meanwhile.
        kept = {name: os.environ[name] for name in (*self.handed_on, "SLURM_CONF") if name in os.environ}
        options = [f"--partition={self.partition}", f"--job-name={job.name}", f"--output={job.log}"]
        options += ["--open-mode=append", "--dependency=singleton", "--no-requeue", "--nodes=1", "--ntasks=1"]
        options += [
            "--exclusive",
            "--mem=0",
            f"--time={min(ceil(job.limit_s / 60), self._most_minutes)}",
            f"--nice={0 if job.first else NICE}",
        ]
        options += ["--export=ALL", f"--chdir={job.log.parent}"]
        options += [f"--exclude={','.join(job.avoid)}"] * bool(job.avoid)
        options += [f"--nodelist={job.node}"] * bool(job.node)
        _called("sbatch", *options, text=f"#!/bin/sh\nexec {shlex.join(job.command)}\n", environment=kept)

    def jobs(self) -> list[Listed]:
        return [each for _, each in self._numbered()]

    def _numbered(self) -> list[tuple[str, Listed]]:
        """This user's jobs in every partition, with Slurm's number of each."""
        said = _called("squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%T|%N|%r|%j")
        found = []
        for line in said.splitlines():
            number, state, node, reason, name = line.split("|", 4)
            held = state in WAITING and ("held" in reason.lower() or reason == "BadConstraints")
            found.append(
                (number, Listed(name, "held" if held else "waiting" if state in WAITING else "running", node or None))
            )
        return found

    def cancel(self, name: str) -> None:
        for number, each in self._numbered():
            if each.name == name:
                _called("scancel", "--full", number)

    def nodes(self) -> list[Node]:
        said = _called("scontrol", "--oneliner", "show", "node")
        found = []
        for line in said.splitlines():
            if self.partition in _field(line, "Partitions").split(","):
                state = _field(line, "State")
                reason = line.partition(" Reason=")[2].partition(" [")[0]
                found.append(Node(_field(line, "NodeName"), not UNUSABLE.search(state), f"{state} {reason}".strip()))
        return found


def _field(line: str, name: str) -> str:
    found = re.search(rf"(?:^|\s){name}=(\S*)", line)
    return found[1] if found else ""


def _minutes(limit: str) -> int:
    """A partition's longest time, as Slurm writes it: 1-02:03:04, UNLIMITED. A longer job would wait for ever."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    if found is None:
        return 365 * 1440
    days, hours, minutes, _ = (int(each or 0) for each in found.groups())
    return max(1, 1440 * days + 60 * hours + minutes)


def _called(*command: str, text: str = "", environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", check=False, timeout=PATIENCE_S,
            env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise QueueSilent(f"{command[0]} did not end within {PATIENCE_S:g} s") from error
    if done.returncode:
        raise QueueSilent(f"{command[0]}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout
