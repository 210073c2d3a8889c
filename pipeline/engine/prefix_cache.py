"""Which K/V slots hold which prefix: the nodes of the prefix tree, how far each is computed, and who gives way.

A node's K/V stays as long as a prompt below it has no full answer. While slots are short, nodes that only waiting
prompts need are evicted, deepest first, and computed again later.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.engine.arrays import EMPTY, Ints
from pipeline.engine.pool import Slots
from pipeline.engine.prefix_tree import PrefixTree, tokens_of
from pipeline.engine.segment import Segment
from pipeline.engine.state import Prefix, Work


class PrefixCache:
    """The nodes of one set of prompts, in the slots of `pool`.

    Slots that are released are free after the next `settle`: a set ends thousands of small runs of slots, which are
    given back together.
    """

    def __init__(self, tree: PrefixTree, pool: Slots) -> None:
        self.tree, self.pool = tree, pool
        self.prefixes = [Prefix(node) for node in tree.nodes]
        self.paths = [[self.prefixes[index] for index in path] for path in tree.paths]
        """Each prompt's nodes from the top."""
        self.ends = [path[-1] for path in self.paths]
        """The node that each prompt ends with."""
        for path in self.paths:
            for prefix in path:
                prefix.unfinished += 1
        self.tokens_left = tree.tokens
        """Prompt tokens that are to be computed, evicted ones included."""
        self.evicted_tokens = 0
        """Tokens whose K/V was given up, to be computed again."""
        self._prompt_tokens: dict[int, Ints] = {}
        self._released: list[Ints] = []

    def prompt_tokens(self, prompt: int) -> Ints:
        """The tokens of a prompt, for drafts."""
        if prompt not in self._prompt_tokens:
            self._prompt_tokens[prompt] = tokens_of(self.tree, prompt)
        return self._prompt_tokens[prompt]

    def extend(self, prefix: Prefix, tokens: int) -> Work:
        """Compute the next `tokens` tokens of a node, whose parent is computed or in the same pass."""
        known = len(prefix.slots)
        prefix.slots = np.concatenate([prefix.slots, self.pool.take(tokens)])
        self.tokens_left -= tokens
        parent = self.prefixes[prefix.node.parent].context if prefix.node.parent >= 0 else EMPTY
        context = np.concatenate([parent, prefix.slots])
        ends_here = False
        if not prefix.missing:
            prefix.context = context
            ends_here = bool(prefix.node.prompts) and prefix.next_token is None
        new = prefix.node.tokens[known : known + tokens]
        return Work(Segment(new, prefix.node.start + known, context, int(ends_here)), prefix)

    def admit(self, prompt: int) -> None:
        """An answer is being written behind this prompt: its nodes stay."""
        for prefix in self.paths[prompt]:
            prefix.running += 1

    def leave(self, prompt: int) -> None:
        """The answer behind this prompt is not being written any more."""
        for prefix in self.paths[prompt]:
            prefix.running -= 1

    def finish(self, prompt: int) -> None:
        """The prompt has its full answer: nodes that no other prompt needs are released."""
        for prefix in self.paths[prompt]:
            prefix.unfinished -= 1
            if prefix.unfinished == 0:
                self._forget(prefix)
        self._prompt_tokens.pop(prompt, None)

    def evict(self, slots: int, keep: Sequence[Prefix] = ()) -> None:
        """Evict nodes that only waiting prompts need, deepest first, until `slots` slots are free."""
        for prefix in reversed(self.prefixes):
            if self.pool.free >= slots:
                return
            if prefix.running == 0 and len(prefix.slots) and not any(prefix is other for other in keep):
                self.evicted_tokens += len(prefix.slots)
                self._forget(prefix)
                self.settle()

    def release(self, slots: Ints) -> None:
        """Give slots back at the next `settle`."""
        self._released.append(slots)

    def settle(self) -> None:
        """Give all released slots back to the pool."""
        if self._released:
            self.pool.give_back(np.concatenate(self._released))
            self._released.clear()

    def _forget(self, prefix: Prefix) -> None:
        if prefix.unfinished:
            self.tokens_left += len(prefix.slots)
        self._released.append(prefix.slots)
        prefix.slots = prefix.context = EMPTY
