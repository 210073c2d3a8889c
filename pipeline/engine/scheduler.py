"""Which segments go into the next pass.

In each pass every live answer gets its next row first, and a draft behind it where the cost model says
that it pays, so that answers end and give their slots back; what is left of the budget is filled with
new prompt rows, walking the prefix tree depth-first.

While a pass runs, the next one can be put together already (`next_pass(ahead=True)`): from answers and
prompts that do not wait for it, where they are enough to be worth a pass.

Memory is grown into, not reserved. New prompts are held back while slots are short; if live answers
alone outgrow the pool, prefixes that only waiting prompts need are dropped, then the youngest answer
gives its slots back and is computed again later (as vLLM's recompute preemption does, arXiv
2309.06180). The oldest answer always goes on, so any pool that holds the longest single prompt with its
answer finishes every set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from pipeline.engine import drafts
from pipeline.engine.arrays import EMPTY, Ints
from pipeline.engine.cost import PassCost
from pipeline.engine.drafts import Acceptance, Draft
from pipeline.engine.pool import Slots
from pipeline.engine.prefix_tree import PrefixTree, tokens_of
from pipeline.engine.segment import Segment
from pipeline.engine.state import Answer, Guess, Limits, Prefix, Work

HEADROOM = 8
"""Slots kept free for every live answer before a new prompt is let in."""

HASTE = 1.2
"""What a row of an answer is worth more now than in a later pass that is as full: answers end and give their slots
back sooner, few are left when the prompts are through, and longer segments are fewer (`benchmarks/gpu.py`, drafts)."""

ROUND_ROWS = 128
"""Passes of a multiple of these many rows fill the tiles of a matrix product."""


class Scheduler:
    """One data set from the first pass to the last: `next_pass`, run it, `accept`, until `done`."""

    def __init__(
        self,
        tree: PrefixTree,
        candidates: Sequence[Sequence[Sequence[int]]],
        pool: Slots,
        limits: Limits,
        cost: PassCost,
        max_new_tokens: int,
        stop_tokens: frozenset[int],
    ) -> None:
        self.tree, self.candidates, self.pool, self.limits, self.cost = tree, candidates, pool, limits, cost
        self.planned = limits  # `limits` goes below it while memory is short
        self.max_new_tokens, self.stop_tokens = max_new_tokens, stop_tokens
        self.prefixes = [Prefix(node) for node in tree.nodes]
        for path in tree.paths:
            for index in path:
                self.prefixes[index].unfinished += 1
        self.waiting = deque(Answer(prompt, []) for prompt in tree.order)
        self.live: list[Answer] = []  # oldest first
        self.finished: dict[int, list[int]] = {}
        self.acceptance = Acceptance()
        self.recomputed_rows = 0
        self.prompt_rows_left = tree.tokens
        self._good_rows = cost.good_size(limits.budget_rows)
        self._prompt_tokens: dict[int, Ints] = {}
        self._released: list[Ints] = []

    @property
    def done(self) -> bool:
        return not self.waiting and not self.live

    def next_pass(self, ahead: bool = False) -> list[Work]:
        """At most `budget_rows` rows; none where all that is next is to begin answers whose prompt is known.

        ahead: the pass before is not accepted yet. Then nothing is taken from anybody, and none means: accept first.
        """
        ready = [answer for answer in self.live if answer.tokens and not answer.running]
        room = self._pass_rows(ready)
        if ahead and self.waiting and not self._worth_starting(ready, room):
            return []
        due: list[tuple[Answer, int]] = []  # answer, rows that it gets
        owed = 0  # slots that the rows chosen so far will take
        for answer in ready:
            dropped = not ahead and len(due) >= len(self.live)  # it and all behind it made room for older ones
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
            saved_s = self.cost.seconds(len(self.live)) / max(1, len(self.live))
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
        prompts = self._let_in(room - owed, ahead)
        works += prompts
        if prompts and self.limits.chunk_rows is not None and not self.waiting:
            works += self._guesses(sum(len(work.segment) for work in works))
        return works

    def _pass_rows(self, ready: Sequence[Answer]) -> int:
        """As many rows as make all passes that are left equally large, so that none is a sliver."""
        budget = self.limits.budget_rows
        left = self.prompt_rows_left + len(ready)
        passes = max(1, -(-left // budget))
        even = -(-left // passes)
        return budget if passes == 1 else min(budget, -(-even // ROUND_ROWS) * ROUND_ROWS)

    def _worth_starting(self, ready: Sequence[Answer], room: int) -> bool:
        """Whether what does not wait for the running pass makes a pass whose rows are nearly as cheap as they get."""
        free = self.pool.free - HEADROOM * len(self.live)
        prompts = min(self.prompt_rows_left, free - len(ready)) if len(self.live) < self.limits.live else 0
        return len(ready) + max(0, prompts) >= min(room, self._good_rows)

    def accept(self, works: Sequence[Work], chosen: Sequence[int]) -> list[int]:
        """Take in the model's choices, one for each wanted row in order. Returns the prompts that are finished."""
        at = 0
        for work in works:
            out = chosen[at : at + work.segment.wanted]
            at += work.segment.wanted
            if isinstance(work.owner, Prefix):
                if out:
                    work.owner.next_token = out[-1]
            elif isinstance(work.owner, Guess):
                work.owner.out = out
            else:
                work.owner.running = False
                self._accept_answer(work.owner, work.draft, out)
        finished = []
        still: list[Answer] = []
        for answer in self.live:
            if not answer.tokens:
                first = self.prefixes[self.tree.paths[answer.prompt][-1]].next_token
                if first is not None:  # none: its prompt is still being computed
                    self._begin(answer, first)
            ended = answer.tokens and answer.tokens[-1] in self.stop_tokens
            if ended or len(answer.tokens) >= self.max_new_tokens:
                self._finish(answer)
                finished.append(answer.prompt)
            else:
                still.append(answer)
        self.live = still
        self._give_back_released()
        return finished

    # Answers

    def _draft(self, answer: Answer, rows: int, likely_rows: int, saved_s: float, spare: int) -> Draft:
        """A guess behind the answer's next `rows` tokens that pays in a pass of `likely_rows` rows."""
        longest = min(self.max_new_tokens - len(answer.tokens) - 1, spare)
        if longest <= 0 or len(answer.slots) + rows < len(answer.tokens):
            return drafts.NONE
        candidates = self.candidates[answer.prompt]
        draft = drafts.guess(lambda: self._tokens_of(answer.prompt), answer.tokens, candidates, longest)
        draft = drafts.until(draft, self.stop_tokens)  # what follows the last token of an answer is of no use
        return drafts.worth(draft, self.acceptance.rate(draft.source), likely_rows, saved_s, self.cost)

    def _tokens_of(self, prompt: int) -> Ints:
        if prompt not in self._prompt_tokens:
            self._prompt_tokens[prompt] = tokens_of(self.tree, prompt)
        return self._prompt_tokens[prompt]

    def _continue(self, answer: Answer, rows: int, draft: Draft, slots: Ints) -> Work:
        """The next `rows` tokens of an answer, and the draft behind them, in `slots`."""
        known = len(answer.slots)
        reaches_end = known + rows == len(answer.tokens)
        prompt = self.prefixes[self.tree.paths[answer.prompt][-1]].context
        context = np.concatenate([prompt, answer.slots, slots])
        answer.slots = context[len(prompt) :]
        answer.running = True
        segment = Segment(
            np.array([*answer.tokens[known : known + rows], *draft.tokens], dtype=np.int64),
            start=len(prompt) + known,
            context=context,
            wanted=1 + len(draft.tokens) if reaches_end else 0,
        )
        return Work(segment, answer, draft)

    def _guesses(self, rows: int) -> list[Work]:
        """All that the answers which this pass begins may be, behind the pass's `rows` rows, where looking at them
        now costs less than the pass that would look at one draft of each."""
        begun = [answer for answer in self.live if not answer.tokens]
        likely = [
            (answer, draft)
            for answer in begun
            for draft in drafts.whole(self.candidates[answer.prompt], self.stop_tokens, self.max_new_tokens)
        ]
        more = sum(len(draft.tokens) for _, draft in likely)
        if more == 0 or rows + more > self.limits.budget_rows or more > self.pool.free:
            return []
        saved_s = self.acceptance.rate("choices") * self.cost.seconds(len(begun))
        if self.cost.seconds(rows + more) - self.cost.seconds(rows) >= saved_s:
            return []
        return [self._guess(answer, draft) for answer, draft in likely]

    def _guess(self, answer: Answer, draft: Draft) -> Work:
        prompt = self.prefixes[self.tree.paths[answer.prompt][-1]].context
        guess = Guess(answer, draft, self.pool.take(len(draft.tokens)))
        answer.guesses.append(guess)
        context = np.concatenate([prompt, guess.slots])
        return Work(Segment(np.array(draft.tokens), len(prompt), context, len(draft.tokens)), guess)

    def _begin(self, answer: Answer, first: int) -> None:
        """An answer's first token is known, and with it which guess was right so far, if one was."""
        right = max(answer.guesses, key=lambda guess: drafts.right(guess.draft, [first, *guess.out]), default=None)
        self._released += [guess.slots for guess in answer.guesses if guess is not right]
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
            self._released.append(answer.slots[-unused:])
            answer.slots = answer.slots[:-unused]

    def _finish(self, answer: Answer) -> None:
        self.finished[answer.prompt] = answer.tokens
        self._give_back(answer)
        for index in self.tree.paths[answer.prompt]:
            prefix = self.prefixes[index]
            prefix.unfinished -= 1
            if prefix.unfinished == 0:
                self._forget(prefix)
        self._prompt_tokens.pop(answer.prompt, None)

    # Prompts

    def _let_in(self, room: int, ahead: bool) -> list[Work]:
        """New prompt rows, depth-first, as many as fit into `room` rows."""
        works: list[Work] = []
        while self.waiting and room > 0 and len(self.live) < self.limits.live:
            answer = self.waiting[0]
            path = [self.prefixes[index] for index in self.tree.paths[answer.prompt]]
            prefix = next((p for p in path if p.missing), None)
            if prefix is None:
                self.waiting.popleft()
                self.live.append(answer)
                for p in path:
                    p.live += 1
                continue
            if not ahead and not self.live and not works:
                self._drop_idle(prefix.missing, keep=path)  # nobody else will ever make room
            spare = self.pool.free - HEADROOM * len(self.live)
            rows = min(prefix.missing, room, spare)
            if rows <= 0:
                break
            works.append(self._extend(prefix, rows))
            room -= rows
        return works

    def _extend(self, prefix: Prefix, rows: int) -> Work:
        """The next `rows` tokens of a node."""
        known = len(prefix.slots)
        prefix.slots = np.concatenate([prefix.slots, self.pool.take(rows)])
        self.prompt_rows_left -= rows
        parent = self.prefixes[prefix.node.parent].context if prefix.node.parent >= 0 else EMPTY
        context = np.concatenate([parent, prefix.slots])
        ends_here = False
        if not prefix.missing:
            prefix.context = context
            ends_here = bool(prefix.node.prompts) and prefix.next_token is None
        new = prefix.node.tokens[known : known + rows]
        return Work(Segment(new, prefix.node.start + known, context, int(ends_here)), prefix)

    # Memory

    def _make_room(self, rows: int, keep: int, ahead: bool) -> bool:
        """Free slots until `rows` are free; the `keep` oldest answers stay. False: it cannot be."""
        if ahead:
            return self.pool.free >= rows
        self._drop_idle(rows)
        while self.pool.free < rows and len(self.live) > keep:
            youngest = self.live.pop()
            self.recomputed_rows += len(youngest.slots)
            self._give_back(youngest)
            self._give_back_released()
            self.waiting.appendleft(youngest)
            self._drop_idle(rows)
        return self.pool.free >= rows

    def _drop_idle(self, rows: int, keep: Sequence[Prefix] = ()) -> None:
        """Drop prefixes that only waiting prompts need, deepest first, until `rows` slots are free."""
        for prefix in reversed(self.prefixes):
            if self.pool.free >= rows:
                return
            if prefix.live == 0 and len(prefix.slots) and not any(prefix is other for other in keep):
                self.recomputed_rows += len(prefix.slots)
                self._forget(prefix)
                self._give_back_released()

    def _give_back(self, answer: Answer) -> None:
        self._released.append(answer.slots)
        answer.slots = EMPTY
        for index in self.tree.paths[answer.prompt]:
            self.prefixes[index].live -= 1

    def _give_back_released(self) -> None:
        """All at once: a set ends thousands of small runs of slots."""
        if self._released:
            self.pool.give_back(np.concatenate(self._released))
            self._released.clear()

    def _forget(self, prefix: Prefix) -> None:
        if prefix.unfinished:
            self.prompt_rows_left += len(prefix.slots)
        self._released.append(prefix.slots)
        prefix.slots = prefix.context = EMPTY
