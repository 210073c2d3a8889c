"""A set's expected time on a device that need not be here: the real scheduler, a cost model, answers by a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine import loop, prefix_tree
from pipeline.engine.cost import PassCost
from pipeline.engine.pool import Slots
from pipeline.engine.scheduler import Scheduler
from pipeline.engine.state import Guess, Limits, Prefix, Work


@dataclass(frozen=True)
class Script:
    """Answers that are known beforehand, each with its stop token last. Also forces a real model's choices."""

    answers: Sequence[Sequence[int]]

    @property
    def stop_tokens(self) -> frozenset[int]:
        return frozenset(answer[-1] for answer in self.answers)

    @property
    def longest(self) -> int:
        return max(map(len, self.answers))

    @property
    def candidates(self) -> list[list[Sequence[int]]]:
        """For the scheduler: drafts are right as if the model answered with what the prompt offers."""
        return [[answer] for answer in self.answers]

    def choose(self, works: Sequence[Work]) -> list[int]:
        """The token of every output row. What follows a wrong draft does not matter: the stop token."""
        out: list[int] = []
        for work in works:
            prompt, known = _where(work)
            for at in range(known, known + work.segment.output_rows):
                out.append(self.answers[prompt][min(at, len(self.answers[prompt]) - 1)])
        return out


@dataclass(frozen=True)
class Forecast:
    elapsed_s: float
    pass_rows: tuple[int, ...]
    prompt_rows: int
    peak_slots: int

    @property
    def rows(self) -> int:
        return sum(self.pass_rows)


def forecast(
    prompts: Sequence[Sequence[int]], script: Script, limits: Limits, cost: PassCost, drafts: bool = True
) -> Forecast:
    """Schedule the set as an engine on a CUDA device would; each pass takes what the cost model says."""
    tree = prefix_tree.build(prompts)
    slots = Slots(limits.slots)
    candidates: Sequence[Sequence[Sequence[int]]] = script.candidates if drafts else [()] * len(prompts)
    scheduler = Scheduler(tree, candidates, slots, limits, cost, script.longest, script.stop_tokens)
    pass_rows: list[int] = []
    prompt_rows = 0

    def start(works: list[Work]) -> None:
        nonlocal prompt_rows
        pass_rows.append(sum(len(work.segment) for work in works))
        prompt_rows += sum(len(work.segment) for work in works if isinstance(work.owner, Prefix))

    for _ in loop.run(scheduler, start, lambda works, _: script.choose(works), overlaps=True):
        pass
    return Forecast(sum(map(cost.seconds, pass_rows)), tuple(pass_rows), prompt_rows, slots.peak_used)


def _where(work: Work) -> tuple[int, int]:
    """Whose answer a segment's output rows are, and how much of it is known."""
    if isinstance(work.owner, Prefix):
        return (work.owner.node.prompts or (0,))[0], 0
    if isinstance(work.owner, Guess):
        return work.owner.answer.prompt, 1
    return work.owner.prompt, len(work.owner.tokens)
