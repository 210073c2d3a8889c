"""`invoke judge`: a folder of archives becomes a folder of verdicts. Killed at any moment, the same command goes on."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import files, paths
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.judge import classes, conclude, entries, farm, references
from pipeline.contest.judge import plan as planning
from pipeline.contest.judge.plan import FOLDER, NET_S, Plan, Size
from pipeline.contest.verify.again import process as launch
from pipeline.contest.verify.verify import Verdict
from pipeline.dataset import records
from pipeline.errors import ResourceError, UsageError
from pipeline.queues import attempts, opening
from pipeline.queues.driver import Driver, Run, Wanted
from pipeline.queues.opening import PYTHON
from pipeline.queues.owner import only_one
from pipeline.queues.queue import Queue, QueueSilent

CANCEL = "cancel"
WINDOW = 2
"""Open jobs a board."""
WAIT_S = 600.0
"""By how much later than its limit a run may end: waiting for the board to cool, and loading its image."""
PASSED_ON = ("PIPELINE_HOST",)


@dataclass(frozen=True)
class Request:
    folder: Path
    data: Path
    repeat: int
    on: str
    """local or slurm."""
    partition: str | None
    yardstick: Path | None
    model: str
    period_s: float
    """From one look to the next."""
    grace_s: float


def request(
    folder: Path, data: Path, repeat: int | None, on: str, partition: str, yardstick: Path | None, model: str
) -> Request:  # fmt: skip
    """The request to judge, from the command's options.

    Raises UsageError: U736 a number of repeats that cannot be, and what `opening.check` does.
    """
    if not repeat or not 1 <= repeat <= 9:
        raise UsageError(
            "U736", "--repeat, how often each is run, is out of range", expected="1 to 9", actual=repeat, fix="give 3"
        )  # fmt: skip
    opening.check(on, partition)
    slow = on == "slurm"
    period_s, grace_s = (15.0, 30.0) if slow else (1.0, 5.0)
    return Request(folder, data, repeat, on, partition or None, yardstick, model, period_s, grace_s)


def judge(asked: Request, organiser: Organiser, tell: Callable[[str], None]) -> list[Verdict]:
    """All verdicts of the plan, or those of a plan that was cancelled. Raises what its parts do."""
    archives = entries.archives(asked.folder)
    place, model = asked.folder / FOLDER, organiser.model(asked.model or "phi3-medium")
    content = records.read_bytes(asked.data)
    content_sha256 = hashlib.sha256(content).hexdigest()
    rows = records.parse(asked.data, content)
    size = Size(content_sha256, len(rows), sum(len(each["content"]) for row in rows for each in row.messages))
    own_sha256 = files.sha256_of(asked.yardstick) if asked.yardstick else None
    if model is None or model.folder is None:
        raise UsageError(
            "U738", "the organiser's copy of the model is not on this disk", where="--model",
            fix="name its folder, under a path that every board has",
        )  # fmt: skip
    before = planning.read(place)
    if before is not None:
        planning.check_is_the_same(before, place, content_sha256, asked.repeat, archives, own_sha256)
    queue = _queue(asked, place)
    with only_one(place) as owner:
        (place / CANCEL).unlink(missing_ok=True)
        if asked.on == "slurm":
            boards = farm.check(queue, place, PYTHON, tell)
        else:
            launch.check_docker()
            boards = [each.name for each in queue.nodes()]
        if len(boards) > 1 and asked.yardstick is None:
            raise UsageError(
                "U739", "several boards can be compared only by a yardstick that runs on each", where="--yardstick",
                expected="a submission of your own, packed by invoke submit", fix="pack one, and name its tar file",
            )  # fmt: skip
        plan = before or _plan(asked, place, size, own_sha256, model.folder, archives, organiser, tell)
        tell(f"{len(plan.order)} runs of {len(plan.entries)} submissions on {', '.join(boards)}")
        driver = Driver(queue, place / "runs", plan.prefix, command, classes.ALLOWED, asked.grace_s)
        if not drive(plan, place, driver, asked.period_s, owner, tell):
            return []
        return [conclude.conclude(plan, each, place, organiser) for each in plan.entries]


def command(attempt: Path) -> Sequence[str]:
    return (*PYTHON, "-m", "pipeline.contest.judge.work", str(attempt.resolve()))


def cancel(folder: Path, on: str, partition: str | None) -> int:
    """End all jobs of the folder's plan, and its judge at its next look. What is settled stays."""
    place = folder / FOLDER
    plan = planning.read(place)
    if plan is None:
        raise UsageError(
            "U740", "there is no plan here", where=paths.shown(place), fix="name a folder that was judged"
        )  # fmt: skip
    (place / CANCEL).touch()
    opening.check(on, partition)
    return Driver(
        opening.of(on, partition, place / "queue", PASSED_ON), place / "runs", plan.prefix, command, classes.ALLOWED
    ).cancel()


def _queue(asked: Request, place: Path) -> Queue:
    return opening.of(asked.on, asked.partition, place / "queue", PASSED_ON)


def _plan(
    asked: Request, place: Path, size: Size, own_sha256: str | None, model: Path, archives: dict[str, str],
    organiser: Organiser, tell: Callable[[str], None],
) -> Plan:  # fmt: skip
    """The yardstick and every archive are verified, then the plan is written, once."""
    own = None
    if asked.yardstick is not None and own_sha256 is not None:
        own = entries.check(asked.yardstick, own_sha256, place, organiser, size, tell)
        if own is None:
            raise UsageError(
                "U741", "the yardstick itself is not a valid submission", where=paths.shown(asked.yardstick),
                fix="see what invoke verify says of it",
            )  # fmt: skip
    checked = [
        entries.check(asked.folder / name, sha256, place, organiser, size, tell) for name, sha256 in archives.items()
    ]
    todo = tuple({each.id: each for each in checked if each is not None}.values())
    return planning.write(
        planning.make(asked.data, size.sha256, model, asked.repeat, todo, own, archives), place
    )  # fmt: skip


def drive(plan: Plan, place: Path, driver: Driver, period_s: float, owner: Path, tell: Callable[[str], None]) -> bool:
    """Look until all is settled; False if it was cancelled meanwhile."""
    said = ""
    while True:
        if (place / CANCEL).exists():
            driver.cancel()
            return False
        try:
            owner.touch()
            nodes = driver.queue.nodes()
            up = [each.name for each in nodes if each.up]
            found = driver.look(_wanted(plan, place, up), WINDOW * max(1, len(up)))
            _skip(plan, driver, found)
            if _finished(plan, place, up):
                driver.cancel()  # reference runs for boards that have gone
                return True
        except (QueueSilent, ResourceError, OSError) as error:
            # Slurm restarts, a shared folder is full or away: whoever waits loses nothing.
            found, said = [], _say(f"waiting: {error}", said, tell)
        if found:
            counted = Counter(each.result["kind"] if each.result else each.state for each in found)
            down = "".join(f"; {each.name} is not used: {each.why}" for each in nodes if not each.up)
            said = _say(", ".join(f"{count} {state}" for state, count in sorted(counted.items())) + down, said, tell)
        time.sleep(period_s)


def _say(text: str, before: str, tell: Callable[[str], None]) -> str:
    if text != before:
        tell(text)
    return text


@dataclass(frozen=True)
class Begun:
    turns: list[references.Turns]
    runs: Counter[str]
    """How many began on each board."""
    had: dict[str, set[str]]
    """The boards that each submission had."""
    lately: set[str]
    """Boards of the runs of the latest turn."""
    settled: bool

    def due(self, plan: Plan, up: Sequence[str]) -> list[tuple[str, str]]:
        """Reference runs, with their boards."""
        if plan.yardstick is None:
            return []
        turn = max(len(each.keys) for each in self.turns)
        return references.due(self.runs, up, self.lately if self.settled else (), turn)


def _begun(plan: Plan, place: Path) -> Begun:
    turns = references.turns(plan, place)
    begun = Begun(turns, Counter(), {}, set(), all(attempts.result(place / "runs" / each.counts) for each in turns))
    latest = max((len(each.keys) for each in turns), default=1)
    for each in turns:
        for turn, key in enumerate(each.keys, 1):
            nodes = [one.node for one in attempts.of_run(place / "runs" / key) if one.node is not None]
            begun.runs.update(nodes)
            begun.had.setdefault(plan.entry(key).id, set()).update(nodes)
            begun.lately.update(nodes if turn == latest else ())
    return begun


def _wanted(plan: Plan, place: Path, up: Sequence[str]) -> list[Wanted]:
    begun = _begun(plan, place)
    first = [Wanted(key, _net_s(plan, key), node=node, first=True) for key, node in begun.due(plan, up)]
    # Where there are three boards, none has a submission twice.
    spread = len(up) >= 3
    return first + [
        Wanted(
            each.counts,
            _net_s(plan, each.counts),
            tuple(sorted({*each.spoilt_on, *(begun.had.get(plan.entry(each.counts).id, ()) if spread else ())})),
        )
        for each in begun.turns
    ]


def _net_s(plan: Plan, key: str) -> float:
    return plan.entry(key).limit_s + NET_S + WAIT_S


def _skip(plan: Plan, driver: Driver, found: Sequence[Run]) -> None:
    """None is repeated after a run of it has passed its limit."""
    late = {plan.entry(each.key).id for each in found if each.result and each.result["kind"] == classes.TIMEOUT}
    for each in found:
        begun = any(one.started is not None for one in each.attempts)
        if each.result is None and not begun and not each.key.startswith("ref-") and plan.entry(each.key).id in late:
            driver.settle_without(each.key, {"kind": classes.NOT_RUN, "why": "another run of it passed its limit"})


def _finished(plan: Plan, place: Path, up: Sequence[str]) -> bool:
    begun = _begun(plan, place)
    return begun.settled and all(attempts.result(place / "runs" / key) for key, _ in begun.due(plan, up))
