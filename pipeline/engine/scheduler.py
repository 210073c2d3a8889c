"""Which segments go into the next pass.

In each pass every running answer gets its next row first, and a draft behind it where the cost model says
that it pays, so that answers end and give their slots back; what is left of the budget is filled with
new prompt rows, walking the prefix tree depth-first.

While a pass runs, the next one can be put together already (`next_pass(ahead=True)`): from answers and
prompts that do not wait for it, where they are enough to be worth a pass.

Nothing is reserved. New prompts are held back while slots are short; if running answers alone outgrow the pool,
prefixes that only waiting prompts need are dropped, then the youngest answer gives its slots back and is computed
again later (as vLLM's recompute preemption does, arXiv 2309.06180). The oldest answer always goes on, so any pool
that holds the longest single prompt with its answer finishes every set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from pipeline.engine import drafts
from pipeline.engine.arrays import EMPTY, Ints
from pipeline.engine.cost import PassCost
from pipeline.engine.drafts import Acceptance, Draft, DraftPolicy
from pipeline.engine.pool import Slots
from pipeline.engine.prefix_cache import PrefixCache
from pipeline.engine.prefix_tree import PrefixTree
from pipeline.engine.segment import Segment
from pipeline.engine.state import Answer, Guess, Limits, Prefix, Work

HEADROOM = 8
"""Slots kept free for every running answer before a new prompt is admitted."""

HASTE = 1.2
"""While prompts wait, a later pass will be as full as this one, and an answer's row in this one is worth so many times
a row of that: answers end and give their slots back sooner, fewer are left when the prompts are through, and longer
segments are fewer (`benchmarks/gpu.py`, drafts)."""

ROUND_ROWS = 128
"""Passes of a multiple of these many rows fill the tiles of a matrix product."""


class Scheduler:
    """One data set from the first pass to the last: `next_pass`, compute it, `accept`, until `done`."""

    def __init__(
        self,
        tree: PrefixTree,
        candidates: Sequence[Sequence[Sequence[int]]],
        pool: Slots,
        limits: Limits,
        cost: PassCost,
        max_new_tokens: int,
        stop_tokens: frozenset[int],
        draft_policy: DraftPolicy = drafts.worth,
    ) -> None:
        """`candidates[i]`: token runs that prompt i's answer may be. `draft_policy`: how much of a guess is checked."""
        self.guesses, self.draft_policy = drafts.Guesses(candidates), draft_policy
        self.pool, self.limits, self.cost = pool, limits, cost
        self.max_new_tokens, self.stop_tokens = max_new_tokens, stop_tokens
        self.cache = PrefixCache(tree, pool)
        self.waiting = deque(Answer(prompt, []) for prompt in tree.order)
        self.running: list[Answer] = []  # oldest first
        self.finished: dict[int, list[int]] = {}
        self.acceptance = Acceptance()
        self._recomputed_answer_tokens = 0
        self._good_rows = cost.good_size(limits.budget_rows)

    @property
    def done(self) -> bool:
        return not self.waiting and not self.running

    @property
    def recomputed_rows(self) -> int:
        """Tokens whose K/V was given up while slots were short, prompts' and answers'."""
        return self.cache.evicted_tokens + self._recomputed_answer_tokens

    def next_pass(self, ahead: bool = False, budget_rows: int | None = None) -> list[Work]:
        """At most `budget_rows` rows. Empty where all that is next is to begin answers whose prompts are computed.

        ahead: the pass before is not accepted yet. Then no slots are taken from anybody, and empty means: accept first.
        budget_rows: what a pass may have now, where memory is short; None: the limits'.
        """
        ready = [answer for answer in self.running if answer.tokens and not answer.in_flight]
        budget = self.limits.budget_rows if budget_rows is None else budget_rows
        room = self._pass_rows(ready, budget)
        if ahead and self.waiting and not self._worth_starting(ready, room):
            return []
        due: list[tuple[Answer, int]] = []  # answer, rows that it gets
        owed = 0  # slots that the rows chosen so far will take
        for answer in ready:
            dropped = not ahead and len(due) >= len(self.running)  # it and all behind it made room for older ones
            if room <= owed or dropped:
                break
            rows = min(len(answer.tokens) - len(answer.slots), room - owed)
            if not self._make_room(owed + rows, len(due) + 1, ahead):
                break
            due.append((answer, rows))
            owed += rows
        # Waiting prompts will fill the pass, so a draft's row costs what a row of a full pass costs.
        likely_rows = room if self.waiting else owed
        if self.waiting:  # the later pass will be full as well: its row is as dear as one of this pass
            saved_s = HASTE * self.cost.one_more(room)
        else:
            saved_s = self.cost.seconds(len(self.running)) / max(1, len(self.running))
        checked: list[tuple[Answer, int, Draft]] = []
        for answer, rows in due:
            draft = self._draft(answer, rows, likely_rows, saved_s, min(room, self.pool.free) - owed)
            owed += len(draft.tokens)
            likely_rows = max(likely_rows, owed)
            checked.append((answer, rows, draft))
        if ahead and not self.waiting and owed < min(room, self._good_rows):
            return []  # only answers are left: what the running pass brings makes a better pass with them
        slots, at = self.pool.take(owed), 0  # all at once: a pass continues hundreds of answers
        works: list[Work] = []
        for answer, rows, draft in checked:
            end = at + rows + len(draft.tokens)
            works.append(self._continue(answer, rows, draft, slots[at:end]))
            at = end
        prompts = self._admit(room - owed, ahead)
        works += prompts
        if prompts and self.limits.chunk_rows is not None and not self.waiting:
            works += self._guesses(sum(len(work.segment) for work in works), budget)
        return works

    def _pass_rows(self, ready: Sequence[Answer], budget: int) -> int:
        """The rows that make all passes that are left equally large, so that none is a sliver."""
        left = self.cache.tokens_left + len(ready)
        passes = max(1, -(-left // budget))
        even = -(-left // passes)
        return budget if passes == 1 else min(budget, -(-even // ROUND_ROWS) * ROUND_ROWS)

    def _worth_starting(self, ready: Sequence[Answer], room: int) -> bool:
        """Whether what need not wait for the running pass makes a pass whose rows are nearly the cheapest."""
        free = self.pool.free - HEADROOM * len(self.running)
        prompts = min(self.cache.tokens_left, free - len(ready)) if len(self.running) < self.limits.live else 0
        return len(ready) + max(0, prompts) >= min(room, self._good_rows)

    def accept(self, works: Sequence[Work], chosen: Sequence[int]) -> list[int]:
        """Take in the model's choices, one for each output row in order. Returns the prompts that are finished."""
        at = 0
        for work in works:
            out = chosen[at : at + work.segment.output_rows]
            at += work.segment.output_rows
            if isinstance(work.owner, Prefix):
                if out:
                    work.owner.next_token = out[-1]
            elif isinstance(work.owner, Guess):
                work.owner.out = out
            else:
                work.owner.in_flight = False
                self._accept_answer(work.owner, work.draft, out)
        finished = []
        still: list[Answer] = []
        ends, stop_tokens, max_new_tokens = self.cache.ends, self.stop_tokens, self.max_new_tokens
        for answer in self.running:
            if not answer.tokens:
                first = ends[answer.prompt].next_token
                if first is not None:  # none: its prompt is still being computed
                    self._begin(answer, first)
            ended = answer.tokens and answer.tokens[-1] in stop_tokens
            if ended or len(answer.tokens) >= max_new_tokens:
                self._finish(answer)
                finished.append(answer.prompt)
            else:
                still.append(answer)
        self.running = still
        self.cache.settle()
        return finished

    # Answers

    def _draft(self, answer: Answer, rows: int, likely_rows: int, saved_s: float, spare: int) -> Draft:
        """A guess behind the answer's next `rows` tokens that pays in a pass of `likely_rows` rows."""
        longest = min(self.max_new_tokens - len(answer.tokens) - 1, spare)
        if longest <= 0 or len(answer.slots) + rows < len(answer.tokens):
            return drafts.NONE
        index = answer.prompt
        draft = self.guesses.following(index, lambda: self.cache.prompt_tokens(index), answer.tokens, longest)
        draft = drafts.until(draft, self.stop_tokens)  # what follows the last token of an answer is of no use
        return self.draft_policy(draft, self.acceptance.rate(draft.source), likely_rows, saved_s, self.cost)

    def _continue(self, answer: Answer, rows: int, draft: Draft, slots: Ints) -> Work:
        """The next `rows` tokens of an answer, and the draft behind them, in `slots`."""
        known = len(answer.slots)
        reaches_end = known + rows == len(answer.tokens)
        prompt = self.cache.ends[answer.prompt].context
        context = np.concatenate([prompt, answer.slots, slots])
        answer.slots = context[len(prompt) :]
        answer.in_flight = True
        segment = Segment(
            np.array([*answer.tokens[known : known + rows], *draft.tokens], dtype=np.int64),
            start=len(prompt) + known,
            context=context,
            output_rows=1 + len(draft.tokens) if reaches_end else 0,
        )
        return Work(segment, answer, draft)

    def _guesses(self, rows: int, budget: int) -> list[Work]:
        """All that the answers which this pass begins may be, behind the pass's `rows` rows, where looking at them
        now costs less than the pass that would look at one draft of each."""
        begun = [answer for answer in self.running if not answer.tokens]
        likely = [
            (answer, draft)
            for answer in begun
            for draft in self.guesses.whole(answer.prompt, self.stop_tokens, self.max_new_tokens)
        ]
        more = sum(len(draft.tokens) for _, draft in likely)
        if more == 0 or rows + more > budget or more > self.pool.free:
            return []
        saved_s = self.acceptance.rate("choices") * self.cost.seconds(len(begun))
        if self.cost.seconds(rows + more) - self.cost.seconds(rows) >= saved_s:
            return []
        return [self._guess(answer, draft) for answer, draft in likely]

    def _guess(self, answer: Answer, draft: Draft) -> Work:
        prompt = self.cache.ends[answer.prompt].context
        guess = Guess(answer, draft, self.pool.take(len(draft.tokens)))
        answer.guesses.append(guess)
        context = np.concatenate([prompt, guess.slots])
        return Work(Segment(np.array(draft.tokens), len(prompt), context, len(draft.tokens)), guess)

    def _begin(self, answer: Answer, first: int) -> None:
        """An answer's first token is known, and with it which guess was right so far, if one was."""
        right = max(answer.guesses, key=lambda guess: drafts.right(guess.draft, [first, *guess.out]), default=None)
        for guess in answer.guesses:
            if guess is not right:
                self.cache.release(guess.slots)
        answer.guesses = []
        if right is None:
            answer.tokens = [first]
        else:
            answer.slots = right.slots
            self._accept_answer(answer, right.draft, [first, *right.out])

    def _accept_answer(self, answer: Answer, draft: Draft, out: Sequence[int]) -> None:
        """`out[i]` follows the answer and the first i tokens of its draft; empty: nothing was asked."""
        if not out:
            return
        right = drafts.right(draft, out)
        self.acceptance.record(draft, right)
        new = list(out[: right + 1])
        stop = next((i for i, token in enumerate(new) if token in self.stop_tokens), len(new) - 1)
        answer.tokens.extend(new[: stop + 1])
        unused = len(draft.tokens) - stop  # K/V of the rows behind the last token that counts
        if unused:
            self.cache.release(answer.slots[-unused:])
            answer.slots = answer.slots[:-unused]

    def _finish(self, answer: Answer) -> None:
        self.finished[answer.prompt] = answer.tokens
        self._give_back(answer)
        self.cache.finish(answer.prompt)

    # Prompts

    def _admit(self, room: int, ahead: bool) -> list[Work]:
        """New prompt rows, depth-first, as many as fit into `room` rows."""
        works: list[Work] = []
        while self.waiting and room > 0 and len(self.running) < self.limits.live:
            answer = self.waiting[0]
            path = self.cache.paths[answer.prompt]
            prefix = next((p for p in path if p.missing), None)
            if prefix is None:
                self.waiting.popleft()
                self.running.append(answer)
                self.cache.admit(answer.prompt)
                continue
            if not ahead and not self.running and not works:
                self.cache.evict(prefix.missing, keep=path)  # nobody else will ever make room
            spare = self.pool.free - HEADROOM * len(self.running)
            rows = min(prefix.missing, room, spare)
            if rows <= 0:
                break
            works.append(self.cache.extend(prefix, rows))
            room -= rows
        return works

    # Memory

    def _make_room(self, rows: int, keep: int, ahead: bool) -> bool:
        """Free slots until `rows` are free; the `keep` oldest answers stay. False: it cannot be."""
        if ahead or self.pool.free >= rows:
            return self.pool.free >= rows
        self.cache.evict(rows)
        while self.pool.free < rows and len(self.running) > keep:
            youngest = self.running.pop()
            self._recomputed_answer_tokens += len(youngest.slots)
            self._give_back(youngest)
            self.cache.settle()
            self.waiting.appendleft(youngest)
            self.cache.evict(rows)
        return self.pool.free >= rows

    def _give_back(self, answer: Answer) -> None:
        self.cache.release(answer.slots)
        answer.slots = EMPTY
        self.cache.leave(answer.prompt)
