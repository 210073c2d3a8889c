"""Token ids in, token ids out: greedy, exact, for a whole set of prompts at once.

`Engine.generate` puts together what the other modules spell out: the scheduler says which segments come
next, the network computes them in one packed pass, the scheduler takes the choices in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from loguru import logger
from torch import Tensor

from pipeline.engine import calibration, cost, loop, network, prefix_tree
from pipeline.engine.backend import Backend, choose
from pipeline.engine.drafts import SOURCES, DraftPolicy, worth
from pipeline.engine.pass_log import PassLog
from pipeline.engine.pass_runner import Passes, Started
from pipeline.engine.pool import SlotPool
from pipeline.engine.scheduler import Scheduler
from pipeline.engine.segment import Segment, first_row, pack
from pipeline.engine.state import Limits, Prefix, Work
from pipeline.engine.weights import Weights
from pipeline.errors import ResourceError

FORESEEN_TOKENS = 8
"""Tokens that an answer is taken to have before one is known."""


@dataclass
class Stats:
    """Counts and seconds of one call; the keys are those of a run's manifest."""

    passes: int = 0
    prompt_tokens: int = 0
    """Tokens of all prompts, each counted in full."""
    tree_tokens: int = 0
    """Those of them that the prefix tree computes."""
    answer_tokens: int = 0
    prompt_rows: int = 0
    answer_rows: int = 0
    """Rows of answers, drafts included."""
    recomputed_rows: int = 0
    """Rows computed again because memory was short."""
    failed_allocations: int = 0
    """Passes that had to be done again in smaller pieces."""
    smallest_budget_rows: int | None = None
    """To which the budget went down for that; None: it never did."""
    drafts_proposed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    drafts_accepted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    peak_slots: int = 0
    predicted_s: float = 0.0
    """Seconds of this call's passes by the cost model."""
    passes_s: float = 0.0
    """Seconds that they took."""


class DoesNotFit(ResourceError):
    """R301; `index` counts the prompts from 0."""

    def __init__(self, index: int, tokens: int, new: int, slots: int) -> None:
        self.index = index
        super().__init__(
            "R301",
            "the longest prompt and its answer do not fit into the K/V memory",
            where=f"prompt {index} (counted from 0)",
            expected=f"at most {slots:,} tokens",
            actual=f"{tokens:,} + {new:,} new = {tokens + new:,}",
            fix="leave more memory free, ask for fewer new tokens, or leave this prompt out",
        )


@dataclass(frozen=True)
class Progress:
    """After each pass, and on a measured device before the first: how far it is, and how long the rest may take."""

    answers: int
    prompts: int
    answer_tokens: int
    left_s: float
    passes: int


@dataclass(frozen=True)
class Result:
    tokens: list[list[int]]
    """New tokens of each prompt in the caller's order, the stop token included."""
    stats: Stats
    log: PassLog


ChooseTokens = Callable[[Sequence[Work], Started], list[int]]
"""The choice of every output row of a pass, in order. Waits for the device."""

MakePasses = Callable[[Weights, SlotPool, Backend, int | None], Passes]


def models_choice(works: Sequence[Work], started: Started) -> list[int]:
    """The model's likeliest tokens."""
    return started.tokens()


class Engine:
    """A model on a device, ready for sets of prompts."""

    MEASURED, A_FEW, KEPT = "measured", "measured at a few sizes", "kept, and checked at two sizes"

    def __init__(
        self,
        weights: Weights,
        limits: Limits,
        pass_cost: cost.PassCost = cost.UNKNOWN,
        backend: Backend | None = None,
        draft_policy: DraftPolicy = worth,
        choose_tokens: ChooseTokens = models_choice,
        make_passes: MakePasses = Passes,
        most_slots: int | None = None,
    ) -> None:
        """backend: left out, the best that works on the device of the weights.

        draft_policy: how much of a guess is checked. choose_tokens: the choices of a pass; another than the model's own
        for benchmarks on random weights. make_passes: runs the passes; another for measurements and fault injection.
        most_slots: to which the pool grows for a prompt that is too long for it; left out: it stays as `limits` say.
        """
        self.weights = weights
        self._planned = limits
        self._most_slots = limits.slots if most_slots is None else most_slots
        self.cost = pass_cost
        self.curve_from = self.MEASURED
        self.draft_policy, self._choose_tokens = draft_policy, choose_tokens
        self.backend = backend or choose(weights.shape, weights.dtype, weights.device)
        # A pass that reads weights from a disk is as large as can be: what would go into the next belongs into it.
        self._overlaps = weights.device.type == "cuda" and not weights.streamed
        self.pool = SlotPool(weights.shape, limits.slots, weights.dtype, weights.device)
        self._passes = make_passes(weights, self.pool, self.backend, limits.chunk_rows)

    def warm_up(
        self,
        on_step: Callable[[int, int], object] = lambda done, all: None,
        known: cost.PassCost | None = None,
        few: bool = False,
    ) -> None:
        """Time passes of made-up tokens, so that limits and drafts follow this device. Sees no data. `on_step(done,
        all)` is called between the steps of it. `known`: the curve as this device had it before, taken if two of its
        points hold. `few`: a CPU is timed at a few sizes only."""
        few = few and self.weights.device.type == "cpu" and not self.weights.streamed
        held = None if known is None else calibration.held_again(self._passes, self.limits, known, on_step)
        self.cost = held or calibration.measure(self._passes, self.limits, on_step, few)
        self.curve_from = self.KEPT if held else self.A_FEW if few else self.MEASURED

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_tokens: frozenset[int],
        candidates: Sequence[Sequence[Sequence[int]]] | None = None,
        limits: Limits | None = None,
        on_answer: Callable[[int, list[int]], None] = lambda prompt, tokens: None,
        on_pass: Callable[[Progress], None] = lambda progress: None,
    ) -> Result:
        """Answer every prompt (at least one token each) with at most `max_new_tokens` tokens.

        `candidates[i]`: token runs that prompt i's answer may be, the stop token included; only guesses.
        `limits`: None for `limits_in_use()`.
        `on_answer(prompt, tokens)` comes as soon as an answer is complete, in no fixed order.
        Raises ResourceError (R301) before any work if memory cannot hold the longest prompt with its answer.
        """
        if not prompts:
            return Result([], Stats(), PassLog())
        called, log = time.perf_counter(), PassLog()
        self.fit_pool(prompts, max_new_tokens)
        tree = prefix_tree.build(prompts)
        limits = limits or self.limits_in_use()
        scheduler = Scheduler(
            tree,
            candidates if candidates is not None else [()] * len(prompts),
            self.pool,
            limits,
            self.cost,
            max_new_tokens,
            stop_tokens,
            self.draft_policy,
        )
        stats = Stats(prompt_tokens=sum(map(len, prompts)), tree_tokens=tree.tokens)
        self.pool.peak_used = 0
        faults_before = self._passes.faults
        start = time.perf_counter()
        log.planned_s = start - called

        def start_pass(works: Sequence[Work]) -> Started:
            before = stats.prompt_rows, stats.answer_rows
            started = self._start(works, stats)
            log.prompt_rows.append(stats.prompt_rows - before[0])
            log.answer_rows.append(stats.answer_rows - before[1])
            return started

        def tokens(works: Sequence[Work], started: Started) -> list[int]:
            chosen = self._choose_tokens(works, started)
            log.end_s.append(time.perf_counter() - called)
            log.handed_on_s.append(0.0)
            return chosen

        def budget_rows() -> int:
            return self._passes.budget_rows(limits.budget_rows)

        if self.cost is not cost.UNKNOWN:
            on_pass(self._foreseen(tree.tokens, len(prompts), limits))
        try:
            for finished in loop.run(scheduler, start_pass, tokens, self._overlaps, budget_rows):
                accepted = time.perf_counter()
                stats.passes_s = accepted - start
                for prompt in finished:
                    stats.answer_tokens += len(scheduler.finished[prompt])
                    on_answer(prompt, scheduler.finished[prompt])
                if finished:
                    log.handed_on_s[-1] += time.perf_counter() - accepted
                on_pass(self._progress(scheduler, stats, len(prompts)))
        finally:
            self.pool.reset()
        stats.drafts_proposed, stats.drafts_accepted = scheduler.acceptance.proposed, scheduler.acceptance.accepted
        stats.recomputed_rows, stats.peak_slots = scheduler.recomputed_rows, self.pool.peak_used
        stats.failed_allocations = self._passes.faults - faults_before
        stats.smallest_budget_rows = self._passes.smallest_rows
        return Result([scheduler.finished[index] for index in range(len(prompts))], stats, log)

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Logits (V) of the next token, in float32 on the host: to look into an answer, not to give one.

        Raises ResourceError (R301) where memory cannot hold the tokens.
        """
        self.fit_pool([tokens], max_new_tokens=0)
        slots, size = self.pool.take(len(tokens)), self.limits.chunk_rows or self.limits.budget_rows
        try:
            for start in range(0, len(tokens), size):
                part = np.array(tokens[start : start + size], dtype=np.int64)
                segment = Segment(part, start, slots[: start + len(part)], output_rows=1)
                last = network.forward(self.weights, self.pool, pack([segment], self.weights.device), self.backend)
        finally:
            self.pool.give_back(slots)
        return last[0].float().cpu()

    def _start(self, works: Sequence[Work], stats: Stats) -> Started:
        """Hand a pass to the device. Does not wait for a CUDA device."""
        rows = sum(len(work.segment) for work in works)
        prompt_rows = sum(len(work.segment) for work in works if isinstance(work.owner, Prefix))
        stats.passes += 1
        stats.prompt_rows += prompt_rows
        stats.answer_rows += rows - prompt_rows
        stats.predicted_s += self.cost.seconds(rows)
        segments = [work.segment for work in works]
        more = self.cost.padded(rows) - rows
        return self._passes.run(segments + [first_row(segments[0])] * more)

    def _progress(self, scheduler: Scheduler, stats: Stats, prompts: int) -> Progress:
        """The work left: prompt tokens are known, answers count as long as those seen so far."""
        answers = len(scheduler.finished)
        written = stats.answer_tokens + sum(len(answer.tokens) for answer in scheduler.running)
        mean = stats.answer_tokens / answers if answers else max(1.0, written / max(1, len(scheduler.running)))
        rows_left: float = stats.tree_tokens - min(stats.prompt_rows, stats.tree_tokens)
        rows_left += max(0.0, mean * prompts - written)
        done = max(1, stats.prompt_rows + stats.answer_rows)
        return Progress(answers, prompts, written, stats.passes_s * rows_left / done, stats.passes)

    def _foreseen(self, tree_tokens: int, prompts: int, limits: Limits) -> Progress:
        """Before the first pass: the prompts, and answers of `FORESEEN_TOKENS` each, by the cost of full passes."""
        rows = tree_tokens + prompts * FORESEEN_TOKENS
        size = min(rows, limits.budget_rows)
        return Progress(0, prompts, 0, self.cost.seconds(size) * rows / size, 0)

    @property
    def limits(self) -> Limits:
        """The planned limits, with the slots that the pool has by now."""
        return replace(self._planned, slots=self.pool.slots)

    def limits_in_use(self) -> Limits:
        """`limits` as far as the measured cost makes use of them: `calibration.fitting`."""
        return calibration.fitting(self.limits, self.cost)

    def fit_pool(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        """Grow the pool, as far as memory lets it, for a prompt beyond the longest context that it was made for."""
        longest = max(range(len(prompts)), key=lambda index: len(prompts[index]))
        tokens = len(prompts[longest])
        need, slots = tokens + max_new_tokens, self.pool.slots
        if need <= slots:
            return
        if need > self._most_slots:
            raise DoesNotFit(longest, tokens, max_new_tokens, max(slots, self._most_slots))
        grown = min(self._most_slots, need + slots)  # beside it there is room for as many others as before
        try:
            self.pool.resize(grown)
        except ResourceError as error:
            raise DoesNotFit(longest, tokens, max_new_tokens, slots) from error
        logger.info("the K/V memory grew from {:,} to {:,} tokens for a prompt of {:,}", slots, grown, tokens)
