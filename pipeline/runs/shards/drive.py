"""All shards of a plan through a queue, until each has its answers."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from pipeline import files, paths
from pipeline.errors import ResourceError
from pipeline.queues import attempts, boards, opening
from pipeline.queues.driver import Driver, Run, Wanted
from pipeline.queues.local import Local
from pipeline.queues.opening import PYTHON
from pipeline.queues.owner import only_one
from pipeline.queues.queue import Queue, QueueSilent
from pipeline.record.outputs import NAME
from pipeline.runs.shards import keys
from pipeline.runs.shards.plan import ALLOWED, Plan
from pipeline.table import Say

WINDOW = 2
"""Open jobs a board."""
LIMIT_S = 7 * 86_400.0
"""A net; a partition's own limit is shorter."""
PASSED_ON = ("PIPELINE_RUNS", "OMP_NUM_THREADS")
PERIOD_S: Mapping[str, float] = {"local": 0.5, "slurm": 10.0}
GRACE_S: Mapping[str, float] = {"local": 2.0, "slurm": 30.0}


def open_queue(place: Path, on: str, partition: str | None, device: str | None) -> Queue:
    """The queue that `on` names. Raises what `opening.of` does. With several GPUs here each is a board of its own."""
    return opening.of(on, partition, place / "queue", PASSED_ON, _local(place / "queue", device))


def _local(folder: Path, device: str | None) -> Local:
    gpus = _gpus() if device in (None, "cuda") else []
    if len(gpus) < 2:
        return Local(folder)
    names = {f"{attempts.this_node()}-gpu-{each}": {"CUDA_VISIBLE_DEVICES": each} for each in gpus}
    return Local(folder, tuple(names), names)


def _gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    import torch  # noqa: PLC0415 - takes seconds

    number = torch.cuda.device_count()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [each.strip() for each in chosen[:number]] if chosen != [""] else [str(each) for each in range(number)]


def answer(place: Path, plan: Plan, queue: Queue, on: str, say: Say) -> list[Path]:
    """The attempt of each shard that has its answers, by number. What was settled before is not done again.

    Ctrl-C ends the jobs and keeps their whole answers. Raises UsageError (U732) where somebody drives these shards,
    EnvironmentProblem (E633 to E636) where boards are not fit, ResourceError (R441) for a shard that has no answers.
    """
    with only_one(place) as owner:
        wanted = [Wanted(keys.current(place / "runs", each + 1), LIMIT_S) for each in range(plan.count)]
        if on == "slurm" and any(attempts.result(place / "runs" / each.key) is None for each in wanted):
            boards.check(queue, place, (*PYTHON, "-m", "pipeline.queues.boards"), say)
        driver = Driver(queue, place / "runs", f"sh-{_id(plan, place)}", command, ALLOWED, GRACE_S[on])
        try:
            _until_settled(driver, wanted, plan, owner, PERIOD_S[on], say)
        except KeyboardInterrupt:
            driver.cancel()
            for each in wanted:
                driver.settle_without(each.key, {"kind": keys.STOPPED, "node": None, "why": "stopped"})
            raise
    return [_answered(place / "runs" / each.key) for each in wanted]


def command(attempt: Path) -> Sequence[str]:
    return (*PYTHON, "-m", "pipeline.runs.shards.work", str(attempt.resolve()))


def _id(plan: Plan, place: Path) -> str:
    """A name for these shards and no others, not even those of another run of the same request."""
    return hashlib.sha256(files.json_bytes([plan.lock_sha256, str(place.resolve())])).hexdigest()[:8]


def _until_settled(
    driver: Driver, wanted: Sequence[Wanted], plan: Plan, owner: Path, period_s: float, say: Say
) -> None:  # fmt: skip
    said, rows = "", sum(each.rows for each in plan.parts)
    with tqdm(total=rows, desc="answers", unit=" rows", disable=None, leave=False) as bar:
        while True:
            owner.touch()
            try:
                found = driver.look(wanted, WINDOW * max(1, sum(each.up for each in driver.queue.nodes())))
                line = _line(found)
                bar.update(max(0, sum(map(_rows, found)) - bar.n))
            except (QueueSilent, ResourceError, OSError) as error:
                found, line = [], f"waiting: {error}"
            if line != said:
                say(line)
                said = line
            if found and all(each.result for each in found):
                return
            time.sleep(period_s)


def _line(found: Sequence[Run]) -> str:
    counted = Counter(str(each.result["kind"]) if each.result else each.state for each in found)
    return "shards: " + ", ".join(f"{count} {state}" for state, count in sorted(counted.items()))


def _rows(run: Run) -> int:
    """Whole answers so far, in whatever attempt has most."""
    return max((sum(path.read_bytes().count(b"\n") for path in each.folder.glob(f"*/{NAME}"))
                for each in run.attempts), default=0)  # fmt: skip


def _answered(run: Path) -> Path:
    result = attempts.result(run) or {}
    if result.get("kind") == keys.FINE:
        return run / str(result["attempt"])
    log = next((each.folder / "job.log" for each in reversed(attempts.of_run(run))), run)
    raise ResourceError(
        "R441", f"shard {keys.number_of(run.name)} ended without answers", where=paths.shown(log),
        expected="a job that ends well", actual=result.get("why"),
        fix="mend that; then --resume does the rest and keeps all finished answers",
    )  # fmt: skip
